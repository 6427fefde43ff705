"""atoll inspect: the cards of a box, what joins them, and how it is best split."""

from collections import Counter
from typing import Annotated

import typer
from rich.text import Text

from atoll.cli import options
from atoll.cli.fleet_picture import tell_fleet
from atoll.cli.picture import draw_box, draw_matrix, show_group, tell_paths, tell_split
from atoll.cli.show import out, show_json
from atoll.outside.shell import RealShell
from atoll.units import GIB
from atoll.workflows.fleet import KnownFleet, fleet_document, is_fleet, read_fleet
from atoll.workflows.inspect import Inspection, inspect_named


def register(app: typer.Typer) -> None:
    app.command("inspect", epilog="Example: `nvidia-smi topo -m | atoll inspect - --gpu H100-NVL-94GB`")(inspect)


def inspect(
    capture: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|-]", help="A capture of `nvidia-smi topo -m`, or fleet.yaml; without one, this machine."
        ),
    ] = None,
    gpu: options.GpuName = None,
    gpus: options.GpuCount = None,
    json: options.Json = False,
) -> None:
    """Cards, NVLink islands and best split of a box or fleet: from a capture, this machine or the catalogue."""
    if capture is not None and is_fleet(capture):
        _show_fleet(read_fleet(capture), json=json)
        return
    inspection = inspect_named(capture=capture, gpu=gpu, gpus=gpus, shell=RealShell())
    if json:
        show_json(inspection)
        return
    _show(inspection)


def _show(inspection: Inspection) -> None:
    box = inspection.box
    out.print(_title(inspection), style="bold")
    out.print()
    for line in draw_box(box, width=out.width):
        out.print(line, no_wrap=True, crop=True)
    if box.links:
        out.print()
        _show_paths(inspection)
        out.print()
        _show_splits(inspection)
    for note in inspection.notes:
        out.print(f"Note: {note}", style="yellow")


def _show_fleet(known: KnownFleet, *, json: bool) -> None:
    if json:
        show_json(fleet_document(known))
        return
    for line in tell_fleet(known, width=out.width):
        out.print(line, no_wrap=True, crop=True)


def _title(inspection: Inspection) -> str:
    cards = Counter(
        f"{gpu.name or 'GPU of unknown kind'}{f', {gpu.memory_bytes / GIB:.1f} GiB each' if gpu.memory_bytes else ''}"
        for gpu in inspection.gpus
    )
    return "; ".join(f"{count} x {name}" for name, count in cards.items())


def _show_paths(inspection: Inspection) -> None:
    box = inspection.box
    if len({(link.kind, link.nvlinks) for link in box.links}) > 1:
        for line in draw_matrix(box):
            out.print(line, no_wrap=True)
        out.print()
    for path, pairs in tell_paths(box):
        out.print(f"{path}: {pairs}")
    joined = [show_group(island) for island in inspection.islands if len(island) > 1]
    alone = sum(len(island) == 1 for island in inspection.islands)
    if joined:
        rest = f", and {alone} without NVLink" if alone else ""
        out.print(f"Islands {' '.join(joined)}{rest}")
    elif not box.pcie_only:
        out.print("No NVLink: every card is on its own.")


def _show_splits(inspection: Inspection) -> None:
    out.print("Best split into groups of", style="bold")
    for k, groups in inspection.groups.items():
        if len(groups) == len(inspection.gpus):
            continue
        shown = "  ".join(map(show_group, groups))
        told = tell_split(inspection.box, groups)
        gap = "   " if len(shown) + len(told) + 8 <= out.width else "\n     "
        out.print(Text.assemble((f"{k:>3}  ", "bold"), shown, gap, (told, "dim")))
