#!/usr/bin/env bash
set -euo pipefail
export LOCAL_NIM_CACHE=~/.cache/nim
mkdir -p "$LOCAL_NIM_CACHE"
Repository=nim/meta/llama-3.1-8b-instruct
Latest_Tag=1.13.1
export IMG_NAME="nvcr.io/${Repository}:${Latest_Tag}"
docker run -d --rm --name=llama-3.1-8b \
  --runtime=nvidia \
  --gpus '"device=0"' \
  --shm-size=16GB \
  -e NGC_API_KEY \
  -v "$LOCAL_NIM_CACHE:/opt/nim/.cache" \
  -u $(id -u) \
  -p 127.0.0.1:8000:8000 \
  $IMG_NAME
