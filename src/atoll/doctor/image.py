"""Container images: the parts of a name, and what it says of the program inside."""

import re
from dataclasses import dataclass

from atoll.doctor.vllm import Version
from atoll.engines.vllm.images import image_release, is_copy_of_official, is_newest_image
from atoll.engines.vllm.versions import tag_version


@dataclass(frozen=True, kw_only=True)
class Image:
    """`registry/path/name:tag@digest` in its parts."""

    text: str
    path: str
    tag: str | None  # `${NAME}` of a variable without a value stays in it
    digest: str | None
    by_default: bool = False  # the tag is the default of a variable, which another value may replace
    open_tag: bool = False  # without a tag it is not `latest`: kustomize or a chart may set one

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def version(self) -> Version | None:
        """Of the tag, for images whose tags are their program's version (nginx, MongoDB); for vLLM's see below."""
        return tag_version(self.tag)

    @property
    def engine_version(self) -> Version | None:
        """The release of the vLLM inside; None where the tag does not tell it."""
        return image_release(self.path, self.tag)

    @property
    def newest_engine(self) -> bool:
        """Whether it is meant to be vLLM's newest release: `latest`, or no tag where that is the same."""
        told = self.digest is None and not (self.tag is None and self.open_tag)
        return told and is_newest_image(self.path, self.tag)

    @property
    def is_vllms_own(self) -> bool:
        """Whether it is vLLM's image or a registry's copy, so that entrypoint and contents are known."""
        return is_copy_of_official(self.path)

    @property
    def kind(self) -> str | None:
        """What runs inside, by its name: vllm, mongo, nginx, ...; None when the name does not say."""
        path = self.path.lower()
        return next((kind for kind, pattern in _KINDS if pattern.search(path)), None)


def parse_image(text: str, *, by_default: bool = False, open_tag: bool = False) -> Image:
    """The parts of a name; `${TAG:?message}` of a variable without a value is `${TAG}`.

    Args:
        text: the name.
        by_default: a part of it is a variable's default.
        open_tag: a tag that is missing may be set elsewhere.
    """
    path, _, digest = re.sub(r"\$\{(\w+)[^{}]*\}", r"${\1}", text).partition("@")
    head, colon, tag = path.rpartition(":")
    if not colon or "/" in tag:  # the colon belongs to a registry's port
        head, tag = path, ""
    return Image(
        text=text, path=head, tag=tag or None, digest=digest or None, by_default=by_default, open_tag=open_tag
    )  # fmt: skip


# What an image's name says about what it runs; the first that matches counts.
_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("vllm-router", r"vllm[-_]?router|production-stack.*router|lmcache/lmstack-router"),
        ("sglang-router", r"sglang[-_]?router|sgl[-_]router|sgl-model-gateway"),
        ("litellm", r"litellm"),
        ("nim", r"(^|/)nim/"),
        ("tei", r"text-embeddings-inference|(^|/)infinity$"),
        ("vllm", r"vllm(?!.*(exporter|bench|playground|proxy|dashboard|monitor|client|webui))"),
        ("tgi", r"text-generation-inference"),
        ("sglang", r"sglang"),
        ("llama.cpp", r"llama[.-]?cpp|llama-server"),
        ("ollama", r"(^|/)ollama(/ollama)?$"),
        ("lmdeploy", r"lmdeploy"),
        ("meter", r"(^|/)(dcgm-exporter|nvidia[-_]gpu[-_]exporter|nvidia_smi_exporter|gpu-operator.*exporter)$"),
        ("mongo-tools", r"mongo[-_]express|mongodb?[-_]?exporter|mongosh"),
        ("mongo", r"(^|/)mongo(db)?(-community-server|-enterprise-server|-atlas-local)?$"),
        ("nginx-proxy", r"nginx-proxy|ingress-nginx|proxy-manager|docker-gen"),
        ("nginx", r"(^|/)(nginx|openresty|nginx-unprivileged)(/openresty|/nginx-unprivileged)?$"),
        ("haproxy", r"haproxy"),
        ("envoy", r"(^|/)envoy"),
    )
)
LLM_KINDS = {
    "vllm",
    "nim",
    "tgi",
    "sglang",
    "llama.cpp",
    "ollama",
    "lmdeploy",
    "litellm",
    "vllm-router",
    "sglang-router",
}
DEFAULT_PORTS = {
    "vllm": 8000,
    "nim": 8000,
    "tei": 80,
    "tgi": 80,
    "sglang": 30000,
    "llama.cpp": 8080,
    "ollama": 11434,
    "litellm": 4000,
}
ROUTERS = frozenset({"vllm-router", "sglang-router", "litellm"})
