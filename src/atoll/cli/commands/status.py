"""`atoll status`: how every replica of a deployment is."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json, OutPath
from atoll.cli.show import out, show_json, show_table
from atoll.workflows.deploy import ServiceState

_WITH_PID = 72  # columns that the table needs with it


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
    from atoll.workflows.deploy import deployment_status, find_deployable

    found = asyncio.run(deployment_status(find_deployable(path, to=to, folder=folder)))
    if json:
        show_json(found)
        return
    out.print(
        f"{found.name} is {found.state}: {found.engine}, {found.model}, {found.url}", markup=False, soft_wrap=True
    )
    _show_services(found.services)
    if found.note is not None:
        out.print(found.note, markup=False, soft_wrap=True)
    for service in found.services:
        if service.why is not None:
            out.print(f"{service.name}: {service.why}", markup=False, soft_wrap=True)


def _show_services(services: Sequence[ServiceState]) -> None:
    """A container's name may be long, so it is folded; a process id is left out where the terminal is narrow."""
    in_containers = any(service.container for service in services)
    columns = (
        "",
        "GPUs",
        "state",
        "running",
        "waiting",
        "KV used",
        "tokens/s",
        "container" if in_containers else "pid",
    )
    shown = len(columns) if in_containers or out.width >= _WITH_PID else len(columns) - 1
    rows = [_cells(service)[:shown] for service in services]
    show_table(None, columns[:shown], rows, numbers=range(3, 7), wrap=(2, 7) if in_containers else ())


def _cells(service: ServiceState) -> tuple[str, ...]:
    return (
        service.name,
        ", ".join(map(str, service.gpus)),
        service.state,
        _count(service.requests_running),
        _count(service.requests_waiting),
        "-" if service.kv_usage is None else f"{100 * service.kv_usage:.1f} %",
        _count(service.output_tokens_per_s),
        str(service.container or service.pid or "-"),
    )


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
