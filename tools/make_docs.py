"""Write the generated pages of docs/reference, or check that they are up to date.

python tools/make_docs.py            write
python tools/make_docs.py --check    exit 1 and name the pages that would change
"""

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import typer

from atoll import errors
from atoll.cli.main import make_app

REFERENCE = Path(__file__).parents[1] / "docs" / "reference"
NOTE = "<!-- Written by tools/make_docs.py; change the code and run `make docs`. -->\n\n"


def main() -> int:
    pages = {
        "commands.md": commands_page(),
        "errors.md": errors_page(),
        "gpus.md": gpus_page(),
        "models.md": models_page(),
    }
    stale = [name for name, text in pages.items() if _read(REFERENCE / name) != text]
    if "--check" in sys.argv[1:]:
        for name in stale:
            print(f"docs/reference/{name} is out of date: run `make docs`")
        return 1 if stale else 0
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name in stale:
        (REFERENCE / name).write_text(pages[name])
        print(f"wrote docs/reference/{name}")
    return 0


def commands_page() -> str:
    """Every command with its options, from the command table itself."""
    root: Any = typer.main.get_command(make_app())
    parts = [NOTE, "# Commands\n"]
    for name, command in root.commands.items():
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            parts.append(_command(f"atoll {name}", command))
        else:
            parts.extend(_command(f"atoll {name} {sub}", one) for sub, one in subcommands.items())
    return "\n".join(parts)


def _command(name: str, command: Any) -> str:
    lines = [
        f"## `{name}`\n",
        inspect.cleandoc(command.help or ""),
        "",
        "| option | meaning | default |",
        "|---|---|---|",
    ]
    for parameter in command.params:
        if parameter.name == "help":
            continue
        lines.append(
            f"| {_option(parameter)} | {_cell(getattr(parameter, 'help', '') or '')} | {_default(parameter)} |"
        )
    return "\n".join(lines) + "\n"


def _option(parameter: Any) -> str:
    metavar = parameter.metavar or ""
    if parameter.param_type_name == "argument":
        return f"`{metavar or parameter.name.upper()}`"
    names = ", ".join((*parameter.opts, *parameter.secondary_opts))
    return f"`{names} {metavar}`".replace(" `", "`")


def _default(parameter: Any) -> str:
    default = parameter.default
    if parameter.required:
        return "required"
    return "" if default in (None, False, (), [], "") or callable(default) else f"`{default}`"


def errors_page() -> str:
    """Every error class with its exit code, in the order of errors.py."""
    rows = [
        f"| {name} | {kind.exit_code} | {_cell(inspect.cleandoc(kind.__doc__ or ''))} |"
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.AtollError)
    ]
    return NOTE + "# Errors and exit codes\n\n| error | exit code | when |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def gpus_page() -> str:
    """The GPU catalogue."""
    from atoll.inventory.catalog import all_gpus

    rows = [
        f"| {k.name} | {k.memory_bytes / 2**30:.1f} GiB | {k.memory_bytes_per_s / 1e9:,.0f} | {k.bf16_flops / 1e12:,.0f}"
        f" | {f'{k.fp8_flops / 1e12:,.0f}' if k.fp8_flops else '-'} | {k.nvlinks or '-'} | {k.pcie_generation} | {_cell(k.source)} |"
        for k in all_gpus()
    ]
    head = "| GPU | memory | GB/s | bf16 TFLOPS | fp8 TFLOPS | NVLinks | PCIe | source |\n|---|---|---|---|---|---|---|---|\n"
    return NOTE + "# GPUs that atoll knows\n\nDense rates.\n\n" + head + "\n".join(rows) + "\n"


def models_page() -> str:
    """The model catalogue."""
    from atoll.model.read import known_models, read_model

    cards = [read_model(name) for name in known_models()]
    rows = [
        f"| {c.name} | {c.parameters / 1e9:.2f} B | {c.weight_bytes / 1e9:.1f} GB | {c.layers} | {c.attention_heads}/{c.kv_heads}"
        f" | {c.max_context:,} |"
        for c in cards
    ]
    head = "| model | parameters | weights | layers | heads/KV heads | context |\n|---|---|---|---|---|---|\n"
    return NOTE + "# Models that atoll knows without a hub\n\n" + head + "\n".join(rows) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main())
