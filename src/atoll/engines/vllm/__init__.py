"""vLLM: its versions, options, splits, defaults, memory, scheduler, and how one replica of it is started and read."""

from atoll.engines.vllm.counters import counters, histograms
from atoll.engines.vllm.defaults import cache_dtype, fill_flags, memory_utilization
from atoll.engines.vllm.launch import (
    cache_folder,
    emulates,
    health_command,
    health_path,
    image,
    keep_alive_s,
    launch,
    name,
    program,
)
from atoll.engines.vllm.memory import memory_facts
from atoll.engines.vllm.options import check_version, why_not_flags
from atoll.engines.vllm.scheduler import caches_prefixes, scheduler_limits, step_facts
from atoll.engines.vllm.splits import (
    explain_sizes,
    legal_tensor_parallel,
    pipeline_parallel,
    why_not_on,
    why_not_split,
    why_whole_experts,
)
from atoll.engines.vllm.versions import parse_version

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
