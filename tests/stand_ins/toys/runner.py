"""A way of starting bundles that nobody has: it says that it did."""

from pathlib import Path

from atoll.layout.layout import Layout
from atoll.run.deployment import Deployment, DeploymentStatus, ReplicaAddress, ServiceState

name = "toy"
bundle_file = "toy.txt"
PORT_ABOVE = 20_000


def settle(layout, *, folder):
    return layout.replace(router=layout.router.replace(port=PORT_ABOVE))


def door_url(folder):
    return f"http://127.0.0.1:{PORT_ABOVE}"


async def door_lines(folder, *, shell, naming=None):
    return ()


def is_down(folder, *, shell):
    return True


def metrics_urls(folder):
    return None


async def up(folder, *, shell, clock, timeout_s, say):
    say("toys run")
    layout = Layout.parse((folder / "layout.yaml").read_text(), origin="layout.yaml")
    return Deployment(
        name=layout.name,
        kind=name,
        folder=folder,
        engine=layout.engine,
        model=layout.model,
        url=door_url(folder),
        replicas=tuple(ReplicaAddress(number=n, gpus=r.gpus) for n, r in enumerate(layout.replicas)),
    )


async def down(folder, *, shell, clock, say):
    return ("toy-0",)


async def status(folder, *, shell, clock):
    service = ServiceState(name="toy-0", state="healthy", healthy=True)
    return DeploymentStatus(
        name="t", kind=name, folder=Path(folder), engine="toy", model="m", url="u", state="up", services=(service,)
    )


async def logs(folder, *, shell, clock, say, replica, follow, lines):
    say("a toy is quiet")


def dry_run(folder, files):
    return files["toy.txt"].splitlines()
