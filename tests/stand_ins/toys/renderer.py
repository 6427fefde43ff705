"""A form of bundle that nobody has: one line a replica."""

from atoll.engines import find_engine
from atoll.render import Bundle

name = "toy"


def render(layout, card, settings):
    engine = find_engine(layout.engine)
    launches = [engine.launch(layout, replica, card, host="0.0.0.0", port=replica.port) for replica in layout.replicas]
    lines = [" ".join(launch.argv) for launch in launches]
    return Bundle(name=layout.name, files={"toy.txt": "\n".join(lines) + "\n", "layout.yaml": layout.to_yaml()})
