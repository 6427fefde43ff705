"""What an image's tag says of the vLLM inside, by who made it."""

import pytest

from atoll.engines.vllm.images import image_release, is_newest_image, is_official_image


@pytest.mark.parametrize(
    ("image", "release"),
    [
        ("vllm/vllm-openai:v0.32.0", (0, 32, 0)),
        ("docker.io/vllm/vllm-openai:v0.8.5.post1", (0, 8, 5)),
        ("vllm/vllm-openai:v0.10.1.1-aarch64", (0, 10, 1)),
        ("vllm/vllm-openai:v0.13.0-cu130", (0, 13, 0)),
        ("vllm/vllm-openai:v0.11.1rc2", (0, 11, 1)),
        ("vllm/vllm-openai-rocm:v0.14.0", (0, 14, 0)),
        ("harbor.example/hub/vllm/vllm-openai:v0.20.2", (0, 20, 2)),
        ("harbor.example/llm/vllm-openai:v0.20.2", (0, 20, 2)),
        ("rocm/vllm:rocm6.4.1_vllm_0.9.1_20250715", (0, 9, 1)),
        ("rocm/vllm:rocm6.3.1_instinct_vllm0.8.3_20250415", (0, 8, 3)),
        ("rocm/vllm-dev:rocm6.4.1_navi_ubuntu24.04_py3.12_pytorch_2.7_vllm_0.8.5", (0, 8, 5)),
        ("ghcr.io/some/server:cu124-vllm0.6.3.post1", (0, 6, 3)),
        ("public.ecr.aws/deep-learning-containers/vllm:0.9-gpu-py312", (0, 9)),
        ("763104351884.dkr.ecr.us-east-1.amazonaws.com/vllm:0.11.0-gpu-py312-cu128-ubuntu22.04-ec2", (0, 11, 0)),
        ("public.ecr.aws/q9t5s3a7/vllm-cpu-release-repo:v0.9.1", (0, 9, 1)),
        ("intel/vllm:0.10.2-xpu", (0, 10, 2)),
        ("ghcr.io/somebody/vllm:0.9.0", (0, 9, 0)),
        # said by nobody
        ("ghcr.io/somebody/vllm:0.3.1", None),
        ("vllm/vllm-openai:latest", None),
        ("vllm/vllm-openai:gptoss", None),
        ("vllm/vllm-openai:nightly-aarch64", None),
        ("vllm/vllm-openai:cu130-nightly-1234abc", None),
        ("vllm/vllm-openai:nightly-0123456789abcdef0123456789abcdef01234567", None),
        ("nvcr.io/nvidia/vllm:25.11-py3", None),
        ("nvcr.io/nvidia/tritonserver:25.03-vllm-python-py3", None),
        ("nvcr.io/nvidia/pytorch:25.04-py3", None),
        ("nvidia/cuda:12.8.1-devel-ubuntu22.04", None),
        ("ubuntu:22.04", None),
        ("python:3.12-slim", None),
        ("opea/vllm-gaudi:1.22", None),
        ("opea/vllm:1.3", None),
        ("lmcache/vllm-openai:2025-05-05-v1", None),
        ("lmcache/vllm-openai:v0.3.7", None),
        ("registry.local/llm/api:1.4.2", None),
        ("registry.local/llm/api:0.9.2", None),
        ("mylocal/vllm:2", None),
        ("rocm/vllm:latest", None),
        ("quay.io/ascend/vllm-ascend:v0.9.1rc1", None),
    ],
)
def test_a_tag_tells_the_release_only_where_its_maker_names_it_so(image: str, release: tuple[int, ...] | None):
    path, _, tag = image.rpartition(":")
    assert image_release(path, tag) == release


def test_the_newest_is_meant_by_latest_and_by_no_tag_of_vllms_own_image():
    assert is_newest_image("vllm/vllm-openai", None)
    assert is_newest_image("docker.io/vllm/vllm-openai", "latest")
    assert not is_newest_image("vllm/vllm-openai", "nightly")
    assert not is_newest_image("vllm/vllm-openai", "v0.32.0")
    assert not is_newest_image("lmcache/vllm-openai", "latest")
    assert not is_newest_image("mylocal/vllm", None)


def test_the_official_image_is_known_by_its_whole_name():
    assert is_official_image("vllm/vllm-openai")
    assert is_official_image("docker.io/vllm/vllm-openai")
    assert not is_official_image("lmcache/vllm-openai")
    assert not is_official_image("vllm/vllm-openai-rocm")
