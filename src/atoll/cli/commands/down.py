"""`atoll down`: end what `atoll up` started, and only that."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json, OutPath
from atoll.cli.show import out, progress, show_json


def register(app: typer.Typer) -> None:
    app.command()(down)


def down(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR|LAYOUT", help="What was given to `atoll up`.")],
    to: Annotated[str | None, typer.Option("--to", metavar="FORM", help="process or compose.")] = None,
    folder: OutPath = None,
    json: Json = False,
) -> None:
    """End every process of a deployment. A second time there is nothing to do.

    Example: atoll down layout.yaml
    """
    from atoll.workflows.deploy import find_deployable, take_down

    target = find_deployable(path, to=to, folder=folder)
    ended = asyncio.run(take_down(target, say=lambda line: progress.print(line, markup=False, soft_wrap=True)))
    if json:
        show_json({"folder": str(target.folder), "ended": list(ended)})
    elif not ended:
        out.print(f"{target.folder}: nothing was running.", markup=False, soft_wrap=True)
