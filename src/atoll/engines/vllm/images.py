"""Which container images carry vLLM, and what their tags say of its release.

A tag names whatever its maker wanted: a release, a month, a version of Ubuntu. So it is read only where it is known how
that maker names; elsewhere the release is not known, and nothing is concluded from it.
"""

import re

from atoll.engines.vllm.versions import tag_version

# `vllm_0.9.1` in rocm6.4.1_vllm_0.9.1_20250715 (rocm/vllm), cu124-vllm0.6.3: said outright, whoever says it.
_SAID = re.compile(r"(?:^|[^a-z0-9])vllm[-_]?v?(\d+\.\d+(?:\.\d+)*(?:\.?post\d+|rc\d+)?)(?![\d.])", re.IGNORECASE)

# v0.8.5.post1, v0.10.1.1-aarch64, 0.10.2-xpu; not 1.4.2-2025 of another maker: vLLM's major number is 0.
_RELEASE = re.compile(r"v?0\.\d{1,2}(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(?=$|[-_+])")

# Images whose tags are vLLM's own numbers: those of the project (and copies of them in a registry of one's own),
# AWS's deep learning containers, Intel's for XPU. Not lmcache/vllm-openai (LMCache's numbers or dates),
# nvcr.io/nvidia/vllm (25.10 has vLLM 0.10.2: its release notes), opea/vllm-gaudi (Gaudi's), vllm-ascend.
_NUMBERED = re.compile(
    r"(^|/)vllm/vllm-openai(-(rocm|cpu|xpu|arm64|aarch64|nonroot))?$"
    r"|(^|/)(?<!lmcache/)vllm-openai(-(rocm|cpu|xpu))?$"
    r"|(^|/)q9t5s3a7/vllm-(cpu|neuron|hpu|xpu|arm64-cpu)?-?release-repo$"
    r"|(^|/)deep-learning-containers/vllm$"
    r"|^\d{12}\.dkr\.ecr\.[\w-]+\.amazonaws\.com(\.cn)?/vllm$"
    r"|(^|/)intel/vllm$"
)
# somebody's own build: three numbers as vLLM has had since 2024; an image's own count seldom starts so high
_OWN_BUILD = re.compile(r"(^|/)vllm$")
_LIKELY = re.compile(r"v?0\.([6-9]|[1-9]\d)\.\d+(\.post\d+)?(?=$|[-_+])")
_COPY = re.compile(r"(^|/)vllm/vllm-openai(-(rocm|cpu|xpu|arm64|aarch64|nonroot))?$")
_OFFICIAL = re.compile(r"^((docker\.io|index\.docker\.io|registry-1\.docker\.io)/)?vllm/vllm-openai$")


def image_release(path: str, tag: str | None) -> tuple[int, ...] | None:
    """The release of the vLLM in an image, as its tag tells it: two or three numbers; None where it does not.

    Args:
        path: registry and name, without the tag.
        tag: what stands behind the colon.
    """
    said = _SAID.search(tag or "")
    if said is not None:
        return tag_version(said[1])
    name = path.lower()
    numbered = _NUMBERED.search(name) and _RELEASE.match(tag or "")
    return tag_version(tag) if numbered or (_OWN_BUILD.search(name) and _LIKELY.match(tag or "")) else None


def is_official_image(path: str) -> bool:
    """Whether it is the image that the project publishes for NVIDIA's cards, under its own name."""
    return _OFFICIAL.match(path.lower()) is not None


def is_copy_of_official(path: str) -> bool:
    """Whether it is the project's image or a registry's copy of it, so that entrypoint and contents are known.

    registry.example:5000/vllm/vllm-openai is one; ghcr.io/somebody/vllm-openai is somebody's own build.
    """
    return _COPY.search(path.lower()) is not None


def is_newest_image(path: str, tag: str | None) -> bool:
    """Whether it is meant to be the newest release: vLLM's own image as `latest`, or without a tag."""
    return _NUMBERED.search(path.lower()) is not None and re.fullmatch(r"latest(-[\w.]+)?", tag or "latest") is not None
