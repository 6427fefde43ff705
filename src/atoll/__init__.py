"""From `nvidia-smi topo -m` to a proven vLLM deployment."""

__version__ = "0.1.0"
