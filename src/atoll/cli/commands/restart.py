"""`atoll restart`: the same replicas anew, one after the other."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.commands.update import say
from atoll.cli.options import Json
from atoll.cli.show import out, show_json
from atoll.units import parse_seconds


def register(app: typer.Typer) -> None:
    app.command()(restart)


def restart(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR", help="The folder of a deployment that is up.")],
    replica: Annotated[
        list[int] | None, typer.Option("--replica", min=0, metavar="N", help="This one only; may be given again.")
    ] = None,
    drain: Annotated[
        str, typer.Option("--drain", metavar="D", help="How long a replica that leaves may go on with its answers.")
    ] = "30m",
    timeout: Annotated[str, typer.Option("--timeout", metavar="D", help="How long a new replica may take.")] = "30m",
    json: Json = False,
) -> None:
    """Start replicas anew, one after the other, without a lost request.

    Example: atoll restart bundle --replica 0
    """
    from atoll.workflows.render import read_layout
    from atoll.workflows.update import update_deployment

    every = range(len(read_layout(bundle / "layout.yaml").replicas))
    again = frozenset(every if replica is None else replica)
    asyncio.run(
        update_deployment(bundle, again=again, drain_s=parse_seconds(drain), timeout_s=parse_seconds(timeout), say=say)
    )
    if json:
        show_json({"folder": str(bundle), "restarted": sorted(again)})
    else:
        words = ", ".join(map(str, sorted(again)))
        out.print(f"{bundle}: replica{'s' * (len(again) > 1)} {words} restarted.", markup=False, soft_wrap=True)
