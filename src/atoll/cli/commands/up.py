"""`atoll up`: bring a bundle or a layout up and wait until all of it answers."""

import asyncio
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from atoll.cli.options import Json, OutPath
from atoll.cli.show import out, progress, show_json
from atoll.units import parse_seconds
from atoll.workflows.deploy import Deployable, Deployment


def register(app: typer.Typer) -> None:
    app.command()(up)


def up(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR|LAYOUT", help="A bundle's folder, or a layout.yaml.")],
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORM", help="process (a layout's default) or compose.")
    ] = None,
    engine: Annotated[str | None, typer.Option("--engine", metavar="E", help="emulated or vllm.")] = None,
    folder: OutPath = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="D", help="How long all may take to answer.")] = "30m",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print files and commands, start nothing.")] = False,
    json: Json = False,
) -> None:
    """Start the replicas and nginx, wait until they answer, and leave them running.

    What does not come up is named with the reason from its log, and nothing is left behind.

    Example: atoll up layout.yaml --engine emulated
    """
    from atoll.cli.warn import show_warnings
    from atoll.workflows.deploy import bring_up, find_deployable
    from atoll.workflows.diagnose import diagnose_folder

    target = find_deployable(path, to=to, engine=engine, folder=folder)
    if dry_run:
        _show_plan(target, json=json)
        return
    if target.folder.is_dir():
        show_warnings(diagnose_folder(target.folder), folder=str(target.folder))
    deployment = asyncio.run(bring_up(target, timeout_s=parse_seconds(timeout), say=_say))
    if json:
        show_json(deployment)
    else:
        _show(deployment)


def _say(line: str) -> None:
    progress.print(line, soft_wrap=True, markup=False)


def _show(deployment: Deployment) -> None:
    replicas = len(deployment.replicas)
    out.print(
        f"{deployment.name} is up: {replicas} x {deployment.engine} behind {deployment.url}",
        markup=False,
        soft_wrap=True,
    )
    folder = quote(str(deployment.folder))
    out.print(f"Next: atoll bench {folder}", markup=False, soft_wrap=True)
    out.print(f"      atoll status {folder}; atoll down {folder}", markup=False, soft_wrap=True)


def _show_plan(target: Deployable, *, json: bool) -> None:
    from atoll.workflows.deploy import dry_run

    files, commands = dry_run(target)
    if json:
        show_json({"folder": str(target.folder), "kind": target.runner.name, "files": files, "commands": commands})
        return
    for name, text in files.items():
        out.rule(name, align="left")
        out.print(text, markup=False, soft_wrap=True, end="")
    out.rule("commands", align="left")
    for command in commands:
        out.print(command, markup=False, soft_wrap=True)
