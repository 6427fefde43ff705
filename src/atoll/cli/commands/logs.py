"""`atoll logs`: what the replicas and the router said."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json, OutPath
from atoll.cli.show import out, show_json
from atoll.errors import InputError


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR|LAYOUT", help="What was given to `atoll up`.")],
    replica: Annotated[int | None, typer.Option("--replica", min=0, metavar="N", help="Of this replica only.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Show new lines as they come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, metavar="N", help="Begin with the last N lines.")] = 200,
    request: Annotated[
        str | None, typer.Option("--request", metavar="ID", help="All lines that name this X-Request-Id.")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="FORM", help="process or compose.")] = None,
    folder: OutPath = None,
    json: Json = False,
) -> None:
    """Show the logs of a deployment, running or ended.

    `--request` takes an id that `atoll bench` shows for its slowest requests, or any that a client sent.

    Example: atoll logs layout.yaml --replica 0 -f
    """
    from atoll.workflows.deploy import find_deployable, say_logs, say_request

    target = find_deployable(path, to=to, folder=folder)
    said: list[str] = []

    def say(line: str) -> None:
        if json:
            said.append(line)
        else:
            out.print(line, markup=False, soft_wrap=True)

    if request is not None:
        if follow or replica is not None:
            raise InputError("--request looks through all logs as they are; leave out --follow and --replica.")
        asyncio.run(say_request(target, request, say=say))
    else:
        asyncio.run(say_logs(target, say=say, replica=replica, follow=follow and not json, lines=lines))
    if json:
        show_json({"folder": str(target.folder), "lines": said})
