"""Layouts to start: two emulated replicas of a 32B model on four bridged H100s."""

from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Replica

MODEL = "Qwen/Qwen2.5-32B-Instruct"


def two_pairs(**changes: object) -> Layout:
    layout = Layout(
        name="two-pairs",
        model=MODEL,
        box=make_box("H100-NVL-94GB", 4),
        replicas=(Replica(gpus=(0, 1), tensor_parallel=2), Replica(gpus=(2, 3), tensor_parallel=2)),
        engine="emulated",
        flags=EngineFlags(max_num_seqs=32, max_num_batched_tokens=32768),
    )
    return layout.replace(**changes)
