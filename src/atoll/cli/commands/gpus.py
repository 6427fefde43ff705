"""atoll gpus: the cards that atoll knows."""

from typing import Annotated

import typer

from atoll.cli import options
from atoll.cli.show import out, show_json, show_table
from atoll.units import GIB
from atoll.workflows.known import list_gpus


def register(app: typer.Typer) -> None:
    app.command("gpus", epilog="Example: `atoll gpus 4090`")(gpus)


def gpus(
    word: Annotated[str | None, typer.Argument(metavar="[WORD]", help="Only names with this in them.")] = None,
    json: options.Json = False,
) -> None:
    """The kinds of GPU that atoll knows, with what their makers say of them."""
    found = list_gpus(word)
    if json:
        show_json({"gpus": found})
        return
    show_table(
        None,
        ("GPU", "memory GiB", "GB/s", "BF16 TFLOPS", "FP8", "NVLink GB/s", "step times"),
        [
            (
                kind.name,
                f"{kind.memory_bytes / GIB:.1f}",
                f"{kind.memory_bytes_per_s / 1e9:,.0f}",
                f"{kind.bf16_flops / 1e12:,.0f}",
                f"{kind.fp8_flops / 1e12:,.0f}" if kind.fp8_flops else "-",
                f"{kind.nvlinks * kind.nvlink_bytes_per_s / 1e9:.0f}" if kind.nvlinks else "-",
                "yes" if kind.timed else "memory only",
            )
            for kind in found
        ],
        numbers=range(1, 6),
        wrap=(0,),
    )
    out.print(f"{len(found)} kinds. A MIG slice goes by its card's name and profile: 'H100 MIG 3g.40gb'.")
