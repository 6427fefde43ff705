"""Something new in the place of what runs, without a lost request: a layout, a policy, one replica, nginx's files."""

from pathlib import Path

from atoll.errors import InputError
from atoll.layout.layout import Layout, Policy
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.shell import RealShell, Shell
from atoll.render.bundle import RenderSettings
from atoll.render.monitoring import MONITORING
from atoll.render.stack import STACK_FILE
from atoll.render.tls import CERTIFICATE, KEY
from atoll.run.deployment import starting
from atoll.run.door_tls import door_tls
from atoll.run.process import START_TIMEOUT_S
from atoll.run.roll import DRAIN_S, Say
from atoll.run.runner import runner_of
from atoll.run.updater import updater_of
from atoll.workflows.render import read_layout, render_layout


async def update_deployment(
    folder: Path,
    layout: Layout | None = None,
    *,
    again: frozenset[int] = frozenset(),
    image: str | None = None,
    drain_s: float = DRAIN_S,
    timeout_s: float = START_TIMEOUT_S,
    say: Say = lambda _: None,
    shell: Shell | None = None,
    clock: Clock | None = None,
) -> Layout:
    """Replace what runs by what the layout says, one replica after the other; gives the layout as it was written.

    Args:
        folder: a bundle's, which is up.
        layout: what shall run; the bundle's own without, which also ends an update that was cut short.
        again: numbers of replicas that come anew though nothing changes.
        image: of the engine, where it runs in containers; without, the bundle's own while the release stays.
        drain_s: how long a replica that leaves may go on with its answers.
        timeout_s: how long a new one may take to answer.
        say: told about each step.
        shell: runs nginx and Docker.
        clock: time and sleep.

    Raises:
        InputError: nothing runs, or nobody would serve meanwhile; nothing has changed.
        StartFailed: a new replica did not come up, and what ran before serves again.
    """
    runner = runner_of(folder)
    if (folder / STACK_FILE).exists():
        raise InputError(f"{folder} serves several models; these are updated by `atoll down` and `atoll up` only.")
    updater = updater_of(runner)
    wanted = layout or read_layout(folder / "layout.yaml")
    unknown = sorted(again - set(range(len(wanted.replicas))))
    if unknown:
        raise InputError(f"{folder} has replicas 0-{len(wanted.replicas) - 1}; there is no replica {unknown[0]}.")
    with starting(folder):
        settled = updater.settle_beside(wanted, folder)
        settings = RenderSettings(
            engine_image=image or updater.kept_image(settled, folder),
            extras=(MONITORING,) if (folder / MONITORING).is_dir() else (),
            tls=door_tls(folder),
        )
        made = render_layout(settled, to=runner.name, settings=settings).bundle.files
        files = {path: text for path, text in made.items() if path not in {CERTIFICATE, KEY}}  # they lie there
        await updater.update(
            folder,
            files,
            shell=shell or RealShell(),
            clock=clock or SystemClock(),
            say=say,
            drain_s=drain_s,
            timeout_s=timeout_s,
            again=again,
        )
    return settled


def change_policy(layout: Layout, policy: str) -> Layout:
    """Raises InputError for one that nginx does not have."""
    known = [one.value for one in Policy if one.renders]
    if policy not in known:
        raise InputError(f"--policy {policy!r} is none that nginx has; there are {', '.join(known)}.")
    return layout.replace(router=layout.router.replace(policy=Policy(policy)))
