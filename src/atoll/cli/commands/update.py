"""`atoll update`: something new in the place of what runs, one replica after the other."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json, PolicyName
from atoll.cli.show import out, progress, show_json
from atoll.units import parse_seconds


def register(app: typer.Typer) -> None:
    app.command()(update)


def update(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR", help="The folder of a deployment that is up.")],
    layout: Annotated[
        Path | None, typer.Argument(metavar="[LAYOUT]", help="What shall run; without, what the folder says.")
    ] = None,
    policy: PolicyName = None,
    engine: Annotated[str | None, typer.Option("--engine", metavar="E", help="emulated or vllm.")] = None,
    image: Annotated[str | None, typer.Option("--image", metavar="REF", help="The engine's container image.")] = None,
    drain: Annotated[
        str, typer.Option("--drain", metavar="D", help="How long a replica that leaves may go on with its answers.")
    ] = "30m",
    timeout: Annotated[str, typer.Option("--timeout", metavar="D", help="How long a new replica may take.")] = "30m",
    json: Json = False,
) -> None:
    """Put a new layout in the place of a running one, one replica after the other, without a lost request.

    A replica is taken out of nginx, ends its answers and goes; the new one starts on its cards, and serves when it
    answers. Where cards are free the new one comes first. What does not change stays: another policy, or certificates
    and keys (no LAYOUT at all), only make nginx read its files. When a new replica does not come up, what ran before
    serves again.

    Example: atoll update bundle layout.yaml
    """
    from atoll.workflows.render import read_layout
    from atoll.workflows.update import change_policy, update_deployment

    wanted = read_layout(layout or bundle / "layout.yaml") if layout or policy or engine else None
    if wanted is not None and engine is not None:
        wanted = wanted.replace(engine=engine)
    if wanted is not None and policy is not None:
        wanted = change_policy(wanted, policy)
    done = asyncio.run(
        update_deployment(
            bundle, wanted, image=image, drain_s=parse_seconds(drain), timeout_s=parse_seconds(timeout), say=say
        )
    )
    if json:
        show_json({"folder": str(bundle), "layout": done.to_plain()})
    else:
        out.print(f"{bundle} runs {done.name}: {len(done.replicas)} replicas.", markup=False, soft_wrap=True)


def say(line: str) -> None:
    progress.print(line, soft_wrap=True, markup=False)
