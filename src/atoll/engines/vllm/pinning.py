"""Which CPU cores belong to which GPUs."""

from collections.abc import Sequence

from atoll.inventory.box import Box
from atoll.inventory.islands import crosses_numa


def cores_beside(box: Box, gpus: Sequence[int]) -> str | None:
    """The cores of the GPUs' NUMA node, as `nvidia-smi topo -m` prints them.

    None where there is nothing to gain or to know: a box of one node, GPUs on several nodes, no affinity printed.
    """
    nodes = {gpu.numa_node for gpu in box.gpus}
    affinities = {box.gpu(index).cpu_affinity for index in gpus}
    if len(nodes) < 2 or None in nodes or crosses_numa(box, gpus) or len(affinities) != 1:
        return None
    return affinities.pop()
