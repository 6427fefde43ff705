"""`atoll status`: how every replica of a deployment is."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json, OutPath
from atoll.cli.show import out, show_json, show_table
from atoll.workflows.deploy import ServiceState


def register(app: typer.Typer) -> None:
    app.command()(status)


def status(
    path: Annotated[Path, typer.Argument(metavar="BUNDLE_DIR|LAYOUT", help="What was given to `atoll up`.")],
    to: Annotated[str | None, typer.Option("--to", metavar="FORM", help="process or compose.")] = None,
    folder: OutPath = None,
    json: Json = False,
) -> None:
    """Show each replica's GPUs, health, running and waiting requests, KV use and throughput, over one second.

    Example: atoll status layout.yaml
    """
    from atoll.workflows.deploy import deployment_status, find_target

    found = asyncio.run(deployment_status(find_target(path, to=to, folder=folder)))
    if json:
        show_json(found)
        return
    out.print(
        f"{found.name} is {found.state}: {found.engine}, {found.model}, {found.url}", markup=False, soft_wrap=True
    )
    columns = ("", "GPUs", "state", "pid", "running", "waiting", "KV used", "tokens/s")
    show_table(None, columns, [_cells(service) for service in found.services], numbers=range(3, 8))
    for service in found.services:
        if service.why is not None:
            out.print(f"{service.name}: {service.why}", markup=False, soft_wrap=True)


def _cells(service: ServiceState) -> tuple[str, ...]:
    return (
        service.name,
        ", ".join(map(str, service.gpus)),
        service.state,
        str(service.pid or service.container or "-"),
        _count(service.requests_running),
        _count(service.requests_waiting),
        "-" if service.kv_usage is None else f"{100 * service.kv_usage:.1f} %",
        _count(service.output_tokens_per_s),
    )


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
