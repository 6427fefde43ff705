"""How long `atoll doctor` takes over fifty files of two hundred lines: twenty-five Compose stacks with their nginx."""

import argparse
import tempfile
import time
from pathlib import Path

SERVICE = """  vllm-{n}:
    image: vllm/vllm-openai:v0.32.0
    command:
      - Qwen/Qwen2.5-32B-Instruct
      - --tensor-parallel-size
      - '2'
    ports:
      - '127.0.0.1:80{n:02d}:8000'
    environment:
      HF_HOME: /models
      HF_HUB_OFFLINE: '1'
    volumes:
      - /srv/models:/models:ro
    healthcheck:
      test: [CMD, curl, -f, 'http://localhost:8000/health']
      start_period: 15m
    restart: unless-stopped
    stop_grace_period: 130s
    deploy:
      resources:
        reservations:
          devices:
            - driver: nvidia
              device_ids: ['{first}', '{second}']
              capabilities: [gpu]
"""
LOCATION = """    location /team{n}/v1/ {{
      proxy_pass http://engines;
      proxy_set_header Host $host;
    }}
"""
NGINX = """events {{}}
http {{
  upstream engines {{
    server vllm-0:8000;
    server vllm-1:8000;
  }}
  server {{
{locations}  }}
}}
"""


def write_stacks(folder: Path, count: int) -> int:
    """Write so many stacks, each a compose.yaml and an nginx.conf; gives the number of lines."""
    compose = "services:\n" + "".join(SERVICE.format(n=n, first=2 * n, second=2 * n + 1) for n in range(8))
    nginx = NGINX.format(locations="".join(LOCATION.format(n=n) for n in range(46)))
    for number in range(count):
        place = folder / f"stack{number}"
        place.mkdir(parents=True)
        (place / "compose.yaml").write_text(compose)
        (place / "nginx.conf").write_text(nginx)
    return count * (compose.count("\n") + nginx.count("\n"))


def main() -> None:
    from atoll.workflows.diagnose import ask, diagnose

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stacks", type=int, default=25)
    with tempfile.TemporaryDirectory() as folder:
        lines = write_stacks(Path(folder), parser.parse_args().stacks)
        began = time.process_time()
        found = diagnose(ask([folder])).findings
        print(f"{lines} lines, {len(found)} findings: {time.process_time() - began:.2f} s of one core (aim: 2 s)")


if __name__ == "__main__":
    main()
