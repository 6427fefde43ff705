"""Bring a layout or a bundle up, take it down, say how it is, show its logs: as processes or through Docker Compose."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.cost.profile import MachineProfile
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.files import read_text
from atoll.outside.shell import RealShell, Shell
from atoll.render.process import PROCESS_FILE
from atoll.run import compose, process
from atoll.run.deployment import Deployment, DeploymentStatus, ServiceState
from atoll.workflows.render import read_layout, render_layout

__all__ = [
    "Deployment",
    "DeploymentStatus",
    "ServiceState",
    "Target",
    "bring_up",
    "deployed",
    "deployment_status",
    "dry_run",
    "find_target",
    "say_logs",
    "take_down",
]

# Modules of one shape: up, down, status, logs, dry_run. The file tells which of them a folder is for.
RUNNERS: dict[str, Any] = {"process": process, "compose": compose}
MARKS = {"process": PROCESS_FILE, "compose": "compose.yaml"}

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Target:
    """What a person named: a bundle's folder, or a layout that becomes one."""

    folder: Path
    kind: str
    layout: Layout | None = None


def find_target(path: Path, *, to: str | None = None, engine: str | None = None, folder: Path | None = None) -> Target:
    """Understand BUNDLE_DIR or LAYOUT.

    Args:
        path: a folder with a bundle, or a layout file.
        to: compose or process; for a folder that holds both kinds, and for a layout (default: process).
        engine: emulated or vllm, instead of the layout's.
        folder: where a layout's bundle goes; `NAME-process` or `NAME-compose` without.

    Raises:
        InputError: neither of them, or options that do not go with a folder.
    """
    if path.is_dir():
        if engine is not None:
            raise InputError(f"{path} is rendered already; render its layout again to change the engine.")
        return Target(folder=path, kind=_kind_of(path, to))
    layout = read_layout(path)
    if engine is not None:
        layout = layout.replace(engine=engine)
    kind = to or "process"
    if kind not in MARKS:
        raise InputError(f"{kind!r} is no form of a bundle; there are {' and '.join(MARKS)}.")
    return Target(folder=folder or Path(f"{layout.name}-{kind}"), kind=kind, layout=layout)


def _kind_of(folder: Path, to: str | None) -> str:
    kinds = [kind for kind, mark in MARKS.items() if (folder / mark).exists()]
    if to is not None and to not in kinds:
        raise InputError(f"{folder} holds no bundle for {to}; write one with `atoll render LAYOUT --to {to}`.")
    if not kinds:
        raise InputError(f"{folder} holds no bundle; write one with `atoll render LAYOUT -o {folder}`.")
    return to or kinds[0]


async def bring_up(
    target: Target,
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
    prepare_target(target, say=say)
    runner = RUNNERS[target.kind]
    deployment: Deployment = await runner.up(
        target.folder, shell=shell or RealShell(), clock=clock or SystemClock(), timeout_s=timeout_s, say=say
    )
    return deployment


def prepare_target(target: Target, *, say: Say = lambda _: None) -> None:
    """Write the bundle of a layout into its folder; a folder is left as it is."""
    if target.layout is None:
        return
    card = read_model(target.layout.model)
    if target.kind == "process":
        process.prepare(target.layout, card, folder=target.folder)
    else:
        render_layout(target.layout, to=target.kind, folder=target.folder, card=card)
    say(f"wrote {target.folder}")


def dry_run(target: Target) -> tuple[dict[str, str], list[str]]:
    """The files that `bring_up` would write and the commands that it would run. Nothing is written or started."""
    if target.layout is not None:
        files = render_layout(target.layout, to=target.kind).bundle.files
    else:
        files = {path.name: read_text(path) for path in target.folder.iterdir() if path.suffix in {".yaml", ".conf"}}
    commands: list[str] = RUNNERS[target.kind].dry_run(target.folder, files)
    return (files if target.layout is not None else {}), commands


async def take_down(target: Target, *, say: Say = lambda _: None, shell: Shell | None = None) -> tuple[str, ...]:
    """End what was started; gives the names of what was running. A second time there is nothing to do."""
    runner = RUNNERS[target.kind]
    ended: tuple[str, ...] = await runner.down(target.folder, shell=shell or RealShell(), clock=SystemClock(), say=say)
    return ended


async def deployment_status(target: Target, *, shell: Shell | None = None) -> DeploymentStatus:
    """How every service is right now."""
    runner = RUNNERS[target.kind]
    status: DeploymentStatus = await runner.status(target.folder, shell=shell or RealShell(), clock=SystemClock())
    return status


async def say_logs(
    target: Target, *, say: Say, replica: int | None = None, follow: bool = False, lines: int = 200
) -> None:
    """Say the logs' lines, with `follow` as they come."""
    await RUNNERS[target.kind].logs(
        target.folder,
        shell=RealShell(),
        clock=SystemClock(),
        say=say,
        replica=replica,
        follow=follow,
        lines=lines,
    )


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
