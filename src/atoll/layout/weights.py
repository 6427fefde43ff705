"""How much of the traffic each replica gets under weighted round robin: nginx and the simulator read it here."""

from math import gcd, lcm

from atoll.inventory.islands import islands
from atoll.layout.layout import Layout, Policy, Replica


def router_weights(layout: Layout) -> tuple[int, ...]:
    """One weight a replica, in lowest terms: the layout's own; by island for per_island; equal otherwise.

    An island weighs as many GPUs as its replicas hold, and they share that equally. Two NVLink pairs, one with a TP 2
    replica and one with two TP 1 replicas: (2, 1, 1).
    """
    if layout.router.weights is not None:
        return layout.router.weights
    if layout.router.policy is not Policy.PER_ISLAND:
        return (1,) * len(layout.replicas)
    homes = [_home(layout, replica) for replica in layout.replicas]
    gpus = {home: sum(len(r.gpus) for r, h in zip(layout.replicas, homes, strict=True) if h == home) for home in homes}
    common = lcm(*(homes.count(home) for home in homes))
    raw = [gpus[home] * common // homes.count(home) for home in homes]
    return tuple(weight // gcd(*raw) for weight in raw)


def _home(layout: Layout, replica: Replica) -> frozenset[int]:
    """The GPUs of every island that the replica touches."""
    touched = [island for island in islands(layout.box) if set(island) & set(replica.gpus)]
    return frozenset(gpu for island in touched for gpu in island)
