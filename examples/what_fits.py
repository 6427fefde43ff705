"""How much KV cache is left beside the weights, on one card and on a pair?"""

from atoll.cost.memory import fit_memory
from atoll.engines.spec import EngineSpec
from atoll.inventory.catalog import find_gpu
from atoll.model.read import read_model

card = read_model("Qwen/Qwen2.5-32B-Instruct")
kind = find_gpu("NVIDIA H100 NVL")
for tensor_parallel in (1, 2, 4):
    fit = fit_memory(EngineSpec.on(card, kind, tensor_parallel=tensor_parallel))
    print(f"TP {tensor_parallel}: {fit.weight_bytes / 1e9:.1f} GB of weights a card, room for {fit.kv_tokens:,} tokens")
