"""vLLM: its versions, options, splits, defaults, and how one replica of it is started."""

from atoll.engines.vllm.counters import counters
from atoll.engines.vllm.launch import health_command, health_path, image, keep_alive_s, launch, name, program
from atoll.engines.vllm.splits import legal_tensor_parallel

__all__ = [
    "counters",
    "health_command",
    "health_path",
    "image",
    "keep_alive_s",
    "launch",
    "legal_tensor_parallel",
    "name",
    "program",
]
