"""atoll models: what atoll knows by name."""

from typing import Annotated

import typer

from atoll.cli import options
from atoll.cli.show import out, show_json, show_table
from atoll.units import show_bytes, show_count
from atoll.workflows.known import list_models


def register(app: typer.Typer) -> None:
    app.command("models", epilog="Example: `atoll models qwen3`")(models)


def models(
    word: Annotated[str | None, typer.Argument(metavar="[WORD]", help="Only names with this in them.")] = None,
    json: options.Json = False,
) -> None:
    """The models that atoll knows by name, with their size; a folder or a config.json does for any other."""
    found = list_models(word)
    if json:
        show_json({"models": found})
        return
    show_table(
        None,
        ("model", "parameters", "a token", "weights", "KV a token", "context", "format"),
        [
            (
                one.name,
                show_count(one.parameters),
                show_count(one.active_parameters) if one.active_parameters < one.parameters else "",
                show_bytes(one.weight_bytes),
                show_bytes(one.kv_bytes_per_token),
                f"{one.max_context:,}",
                one.format,
            )
            for one in found
        ],
        numbers=range(1, 6),
        wrap=(0,),
    )
    out.print(f"{len(found)} models, and their AWQ, GPTQ, FP8 and other variants by suffix.")
