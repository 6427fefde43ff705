"""The command table. An error of ours becomes its sentence and its exit code, here and nowhere else."""

import sys
from collections.abc import Callable, Sequence
from importlib import import_module

import typer
from rich.console import Console

import atoll
from atoll.errors import AtollError

# Every module of cli/commands has register(app); the order is the order of `atoll --help`.
COMMANDS: tuple[str, ...] = (
    "inspect",
    "model",
    "plan",
    "simulate",
    "render",
    "doctor",
    "up",
    "down",
    "status",
    "logs",
    "emulate",
    "bench",
    "exchange",
    "study",
    "compare",
    "validate",
    "calibrate",
    "report",
    "runs",
)


def _show_version(value: bool) -> None:
    if value:
        print(f"atoll {atoll.__version__}")  # noqa: T201
        raise typer.Exit


def _atoll(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Show the version."),
) -> None:
    """Options of atoll itself."""


def make_app(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands; importing one brings in its stage, which takes time."""
    app = typer.Typer(
        name="atoll",
        help="From `nvidia-smi topo -m` to a proven vLLM deployment.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_atoll)
    for name in names:
        import_module(f"atoll.cli.commands.{name}").register(app)
    return app


def main() -> None:
    """Run the command line, with only the command that is asked for."""
    asked = sys.argv[1:2]
    guarded(make_app(asked if asked and asked[0] in COMMANDS else COMMANDS))


def guarded(call: Callable[[], object]) -> None:
    """Call it; the only place that turns an error of ours into its sentence and its exit code."""
    try:
        call()
    except AtollError as error:
        Console(stderr=True, highlight=False, markup=False).print(f"atoll: {error}", soft_wrap=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
