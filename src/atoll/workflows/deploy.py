"""Bring a layout or a bundle up, take it down, say how it is, show its logs: as processes or through Docker Compose."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.cost.profile import MachineProfile
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.layout.stack import Stack
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.files import read_text
from atoll.outside.shell import RealShell, Shell
from atoll.run import process
from atoll.run.deployment import Deployment, DeploymentStatus, ServiceState, starting
from atoll.run.runner import Runner, Say, find_runner, runner_of
from atoll.workflows.render import read_layout, render_layout
from atoll.workflows.stack import is_stack, read_changed_stack, render_stack_files

__all__ = [
    "Deployable",
    "Deployment",
    "DeploymentStatus",
    "ServiceState",
    "bring_up",
    "deployed",
    "deployment_status",
    "dry_run",
    "find_deployable",
    "say_logs",
    "say_request",
    "take_down",
]

REQUEST_LINES = 1_000_000  # of each log that are looked through for one request
DEFAULT_RUNNER = process.name  # of a layout: it needs nothing that this machine may lack


@dataclass(frozen=True, kw_only=True)
class Deployable:
    """What a person named: a bundle's folder, or a layout that becomes one."""

    folder: Path
    runner: Runner
    layout: Layout | None = None
    stack: Stack | None = None  # of several models, in the layout's place


def find_deployable(
    path: Path, *, to: str | None = None, engine: str | None = None, folder: Path | None = None
) -> Deployable:
    """Understand BUNDLE_DIR or LAYOUT.

    Args:
        path: a folder with a bundle, or a layout file.
        to: the runner's name; for a folder that holds bundles of several kinds, and for a layout.
        engine: emulated or vllm, instead of the layout's.
        folder: where a layout's bundle goes; `NAME-process` or `NAME-compose` without.

    Raises:
        InputError: neither of them, or options that do not go with a folder.
    """
    if path.is_dir():
        if engine is not None:
            raise InputError(f"{path} is rendered already; render its layout again to change the engine.")
        return Deployable(folder=path, runner=runner_of(path, to))
    if is_stack(path):
        runner = find_runner(to or DEFAULT_RUNNER)
        stack = read_changed_stack(path, engine=engine)
        return Deployable(folder=folder or Path(f"{stack.name}-{runner.name}"), runner=runner, stack=stack)
    layout = read_layout(path)
    if engine is not None:
        layout = layout.replace(engine=engine)
    runner = find_runner(to or DEFAULT_RUNNER)
    return Deployable(folder=folder or Path(f"{layout.name}-{runner.name}"), runner=runner, layout=layout)


async def bring_up(
    target: Deployable,
    *,
    timeout_s: float = process.START_TIMEOUT_S,
    say: Say = lambda _: None,
    shell: Shell | None = None,
    clock: Clock | None = None,
) -> Deployment:
    """Write the bundle where the target is a layout, start it, wait until all of it answers.

    Raises:
        InputError: what is given cannot be started, or is up already.
        MissingProgram: vLLM, nginx or docker is not installed.
        StartFailed: something did not come up; nothing of it is left running.
    """
    with starting(target.folder):
        write_files(target, say=say)
        return await target.runner.up(
            target.folder, shell=shell or RealShell(), clock=clock or SystemClock(), timeout_s=timeout_s, say=say
        )


def write_files(target: Deployable, *, say: Say = lambda _: None) -> None:
    """Write the bundle of a layout into its folder; a folder is left as it is."""
    if target.stack is not None:
        render_stack_files(_settled(target.stack, target), to=target.runner.name, folder=target.folder)
        say(f"wrote {target.folder}")
    if target.layout is None:
        return
    layout = target.runner.settle(target.layout, folder=target.folder)
    render_layout(layout, to=target.runner.name, folder=target.folder)
    say(f"wrote {target.folder}")


def dry_run(target: Deployable) -> tuple[dict[str, str], list[str]]:
    """The files that `bring_up` would write and the commands that it would run. Nothing is written or started."""
    if target.layout is not None:
        files = render_layout(target.layout, to=target.runner.name).bundle.files
    elif target.stack is not None:
        files = render_stack_files(target.stack, to=target.runner.name).files
    else:
        files = {path.name: read_text(path) for path in target.folder.iterdir() if path.suffix in {".yaml", ".conf"}}
    commands = target.runner.dry_run(target.folder, files)
    return ({} if target.layout is None and target.stack is None else files), commands


def _settled(stack: Stack, target: Deployable) -> Stack:
    """With ports that are free now, where that is the runner's to say."""
    layouts: list[Layout] = []
    for layout in stack.layouts:
        taken = {replica.port for one in layouts for replica in one.replicas}
        found = target.runner.settle(layout, folder=target.folder)
        while taken & {replica.port for replica in found.replicas} - {None}:
            found = target.runner.settle(layout, folder=target.folder)
        layouts.append(found)
    return stack.with_layouts(layouts)


async def take_down(target: Deployable, *, say: Say = lambda _: None, shell: Shell | None = None) -> tuple[str, ...]:
    """End what was started; gives the names of what was running. A second time there is nothing to do."""
    return await target.runner.down(target.folder, shell=shell or RealShell(), clock=SystemClock(), say=say)


async def deployment_status(target: Deployable, *, shell: Shell | None = None) -> DeploymentStatus:
    """How every service is right now."""
    return await target.runner.status(target.folder, shell=shell or RealShell(), clock=SystemClock())


async def say_logs(
    target: Deployable, *, say: Say, replica: int | None = None, follow: bool = False, lines: int = 200
) -> None:
    """Say the logs' lines, with `follow` as they come."""
    await target.runner.logs(
        target.folder,
        shell=RealShell(),
        clock=SystemClock(),
        say=say,
        replica=replica,
        follow=follow,
        lines=lines,
    )


async def say_request(target: Deployable, request: str, *, say: Say) -> None:
    """Say every line that names a request by its id: the door's, and those of engines that log ids.

    Raises:
        InputError: no line does.
    """
    # r-1 is neither r-10 nor r-1-2, but vLLM writes a completion's prompts as cmpl-r-1-0: and so on
    whole = re.compile(rf"(?<![A-Za-z0-9]){re.escape(request)}(?![A-Za-z0-9]|-(?!\d+[: ]))")
    noted = await target.runner.door_lines(target.folder, shell=RealShell(), naming=request)
    found = [f"door | {line}" for line in noted if whole.search(line)]

    def keep(line: str) -> None:
        if whole.search(line) and not line.endswith(noted):  # in containers the door's log is that of its service
            found.append(line)

    await say_logs(target, say=keep, lines=REQUEST_LINES)
    if not found:
        words = "The door writes down what it passed on; requests that went to an engine's own port are not among them."
        raise InputError(f"No line of {target.folder}'s logs names {request!r}. {words}")
    for line in found:
        say(line)


@asynccontextmanager
async def deployed(
    layout: Layout,
    *,
    folder: Path,
    card: ModelCard | None = None,
    timeout_s: float = process.START_TIMEOUT_S,
    profile: MachineProfile | None = None,
    say: Say = lambda _: None,
) -> AsyncIterator[Deployment]:
    """A layout as plain processes, on free ports, for as long as the block runs and not longer than this process.

    Raises what `bring_up` raises.
    """
    async with process.deployed(
        layout,
        card or read_model(layout.model),
        folder=folder,
        shell=RealShell(),
        clock=SystemClock(),
        timeout_s=timeout_s,
        profile=profile,
        say=say,
    ) as deployment:
        yield deployment
