"""The port of every replica: what the layout says, else the next free one."""

from atoll.layout.layout import Layout

FIRST_PORT = 8000  # replica 0's, unless the layout says otherwise


def give_ports(layout: Layout) -> Layout:
    """The same layout with a port for every replica, none twice and none the router's."""
    taken = {replica.port for replica in layout.replicas} | {layout.router.port}
    free = (port for port in range(FIRST_PORT, 65536) if port not in taken)
    replicas = tuple(r if r.port is not None else r.replace(port=next(free)) for r in layout.replicas)
    return layout.replace(replicas=replicas)
