"""The engine without a GPU: `atoll emulate`, which speaks and paces like vLLM."""

import atoll
from atoll.engines.engine import Launch
from atoll.engines.vllm import (
    cache_dtype,
    caches_prefixes,
    check_version,
    counters,
    explain_sizes,
    fill_flags,
    health_path,
    histograms,
    legal_tensor_parallel,
    memory_facts,
    memory_utilization,
    parse_version,
    pipeline_parallel,
    scheduler_limits,
    step_facts,
    why_not_flags,
    why_not_on,
    why_not_split,
    why_whole_experts,
)
from atoll.layout.layout import Layout, Replica
from atoll.model.card import ModelCard

# What it stands in for decides: settings, splits and counters are vLLM's.
__all__ = [
    "cache_dtype",
    "cache_folder",
    "caches_prefixes",
    "check_version",
    "counters",
    "emulates",
    "explain_sizes",
    "fill_flags",
    "health_command",
    "health_path",
    "histograms",
    "image",
    "keep_alive_s",
    "launch",
    "legal_tensor_parallel",
    "memory_facts",
    "memory_utilization",
    "name",
    "parse_version",
    "pipeline_parallel",
    "program",
    "scheduler_limits",
    "step_facts",
    "why_not_flags",
    "why_not_on",
    "why_not_split",
    "why_whole_experts",
]

name = "emulated"
program: tuple[str, ...] = ("python", "-m", "atoll", "emulate")
emulates = True
cache_folder: str | None = None
LAYOUT_FILE = "layout.yaml"  # in the bundle, which is where a replica is started


def image(version: str) -> str:  # noqa: ARG001 - one image speaks every version's words
    """The control plane's image, which a bundle brings along: it holds all of atoll."""
    return f"atoll-backend:{atoll.__version__}"


def keep_alive_s(version: str) -> float:  # noqa: ARG001
    return 5.0


def health_command(port: int) -> tuple[str, ...]:
    """Python is the one program that the image is sure to have."""
    ask = f"import urllib.request as u; u.urlopen('http://127.0.0.1:{port}{health_path}', timeout=4)"
    return ("python", "-c", ask)


def launch(layout: Layout, replica: Replica, card: ModelCard, *, host: str, port: int) -> Launch:  # noqa: ARG001
    """Everything else a replica needs to know stands in the layout."""
    number = layout.replicas.index(replica)
    where = ("--layout", LAYOUT_FILE, "--replica", str(number), "--host", host, "--port", str(port))
    return Launch(argv=(*program, *where))
