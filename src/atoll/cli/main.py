"""The command table. An error of ours becomes its sentence and its exit code, here and nowhere else."""

import errno
import io
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import typer

import atoll
from atoll.errors import AtollError

# Every module of cli/commands has register(app); the order is the order of `atoll --help`.
COMMANDS: tuple[str, ...] = (
    "inspect",
    "model",
    "models",
    "gpus",
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
    "serve",
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
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8, nor the terminal
    asked = sys.argv[1:2]
    names = asked if asked and asked[0] in COMMANDS else COMMANDS
    code = guarded(lambda: make_app(names)(standalone_mode=False))
    sys.exit(code if isinstance(code, int) else 0)


# typer brings its own click along or uses the installed one, release by release; this is UsageError's base of either.
_CommandLineError: type[Exception] = typer.BadParameter.__mro__[2]


def guarded(call: Callable[[], object]) -> object:
    """Call it; the only place that turns an error of ours into its sentence and its exit code."""
    try:
        return call()
    except AtollError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except _CommandLineError as error:
        _say(_usage_sentence(error))
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        if error.errno not in _OF_THE_PLACE:
            _say(_own_fault(error))
            sys.exit(OWN_FAULT)
        _say(f"{error.filename or 'A file'} cannot be used: {error.strerror}.")
        sys.exit(2)
    except Exception as error:  # noqa: BLE001 - a fault of atoll's own, of which there is no list
        _say(_own_fault(error))
        sys.exit(OWN_FAULT)


# What a name or a machine may be in the way of any file of any command, and no fault of atoll's.
_OF_THE_PLACE = {
    errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE,
}  # fmt: skip
LONGEST_SENTENCE = 2000  # characters
OWN_FAULT = 70  # EX_SOFTWARE of sysexits.h
_SECRET = re.compile(
    r"(?i)(bearer\s+|(?:api[-_ ]?key|password|token|secret)['\"]?\s*[=: ]\s*['\"]?|://[^/\s:@]*:)([^\s'\",@]+)"
)


def without_secrets(text: str) -> str:
    """The text with keys, passwords and what a URL carries before its host taken out."""
    return _SECRET.sub(r"\1***", text)


def _own_fault(error: BaseException) -> str:
    """A sentence that names a file to send, which has the whole story and no secrets."""
    from atoll.outside.files import lasting_folder, write_whole

    what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    story = "".join(traceback.format_exception(error))
    words = [*sys.argv[1:2], *("..." for _ in sys.argv[2:3])]
    about = f"atoll {atoll.__version__}, Python {sys.version.split()[0]}, {sys.platform}: atoll {' '.join(words)}\n\n"
    try:
        path = lasting_folder() / "fault.txt"
        write_whole(path, without_secrets(about + story), mode=0o600)
    except AtollError:
        return f"A fault of atoll's own, {without_secrets(what)}; what was measured until then is kept."
    return f"A fault of atoll's own, {without_secrets(what)}; please send {path}. What was measured until then is kept."


def _say(sentence: str) -> None:
    """In one line, whatever a name in it holds."""
    if sentence:
        from atoll.cli.show import progress  # it brings in what only those who print need

        line = " ".join(sentence.splitlines())
        if len(line) > LONGEST_SENTENCE:  # a figure of 5,000 digits; what it is about stands in front, why at the end
            line = f"{line[: LONGEST_SENTENCE // 2]} ... {line[-LONGEST_SENTENCE // 2 :]}"
        progress.print(f"atoll: {line}", soft_wrap=True)


def _usage_sentence(error: Any) -> str:
    """What was wrong with the words of the command line; nothing when it was empty and the help has been shown."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError" or not message:
        return ""
    context = getattr(error, "ctx", None)
    return f"{message}; see `{context.command_path if context else 'atoll'} --help`."
