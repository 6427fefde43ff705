"""`atoll logs`: what the replicas and the router said."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json, OutPath
from atoll.cli.show import out, show_json


def register(app: typer.Typer) -> None:
    app.command()(logs)


def logs(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR|LAYOUT", help="What was given to `atoll up`.")],
    replica: Annotated[int | None, typer.Option("--replica", min=0, metavar="N", help="Of this replica only.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Show new lines as they come.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", min=0, metavar="N", help="Begin with the last N lines.")] = 200,
    to: Annotated[str | None, typer.Option("--to", metavar="FORM", help="process or compose.")] = None,
    folder: OutPath = None,
    json: Json = False,
) -> None:
    """Show the logs of a deployment, running or ended.

    Example: atoll logs layout.yaml --replica 0 -f
    """
    from atoll.workflows.deploy import find_deployable, say_logs

    target = find_deployable(path, to=to, folder=folder)
    if json:
        said: list[str] = []
        asyncio.run(say_logs(target, say=said.append, replica=replica, lines=lines))
        show_json({"folder": str(target.folder), "lines": said})
        return
    asyncio.run(
        say_logs(
            target,
            say=lambda line: out.print(line, markup=False, soft_wrap=True),
            replica=replica,
            follow=follow,
            lines=lines,
        )
    )
