"""The command table. An error of ours becomes its sentence and its exit code, here and nowhere else."""

import errno
import io
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

import atoll
from atoll.errors import AtollError, InputError
from atoll.outside.shell import environment

# Every module of cli/commands has register(app); the order is the order of `atoll --help`, which is shown from here,
# since bringing in every stage takes five times as long. A test holds each sentence to what the command itself says.
COMMANDS: Mapping[str, str] = {
    "inspect": "Cards, NVLink islands and best split of a box or fleet: from a capture, this machine or the catalogue.",
    "model": "Weights, KV cache per token, legal tensor-parallel sizes and the users that fit on each kind of GPU.",
    "models": "The models that atoll knows by name, with their size; a folder or a config.json does for any other.",
    "gpus": "The kinds of GPU that atoll knows, with what their makers say of them.",
    "plan": "Which layout serves a model fastest on a box: every one worth looking at, ranked, with the reasons.",
    "simulate": "Say what the users of a layout would see, without a GPU and in a moment.",
    "render": "Write the files that deploy a layout (Compose, processes, Kubernetes), with nginx before the replicas.",
    "doctor": "What is wrong with these compose, nginx and layout files, what follows from it, and the fix.",
    "up": "Start the replicas and nginx, wait until they answer, and leave them running.",
    "down": "End every process of a deployment. A second time there is nothing to do.",
    "update": "Put a new layout in the place of a running one, one replica after the other, without a lost request.",
    "restart": "Start replicas anew, one after the other, without a lost request.",
    "status": "Show each replica's GPUs, health, running and waiting requests, KV use and throughput, over one second.",
    "logs": "Show the logs of a deployment, running or ended.",
    "emulate": "Serve a model without a GPU, as fast as the cost model says that it would be.",
    "bench": "Load-test an OpenAI-compatible server; every request is kept in a run folder.",
    "exchange": "Runs of other load generators in, runs of ours out.",
    "study": "Run the variants of a study, compare them, write the report.",
    "compare": "Compare runs with the first: TTFT, TPOT and E2E with 95 % intervals.",
    "validate": "Predict every row of a table of measurements or of start-up logs, and say how far off that is.",
    "calibrate": "Measure a live engine (or, with --links, this box's all-reduce) and fit the cost model to it.",
    "verify": "Whether every replica answers greedy prompts alike, and as before a change: how many differ, and where.",
    "report": "Write one self-contained HTML page of a run or a study, and its charts as SVG and PNG beside it.",
    "runs": "The catalogue of runs: list, tag, forget, reindex.",
    "serve": "A page for what the terminal does, over one workspace; prints the link that lets you in.",
}


_COMPLETION = "_ATOLL_COMPLETE"  # the shell asks what may follow: all commands with their options


def _show_version(value: bool) -> None:
    if value:
        print(f"atoll {atoll.__version__}")  # noqa: T201
        raise typer.Exit


def _atoll(
    version: bool = typer.Option(
        False, "--version", "-V", callback=_show_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """Options of atoll itself."""


class _Command(TyperCommand):
    """A command whose values are text, or the name of a file: such a name may hold any byte, nothing else may."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        rest = super().parse_args(ctx, args)
        for name, value in ctx.params.items():
            for text in value if isinstance(value, list | tuple) else [value]:
                if isinstance(text, str) and _NO_TEXT.search(text) and not Path(text).exists():
                    given = f"{text[:60]!r}, given for {name.replace('_', '-')},"
                    raise InputError(f"{given} is not UTF-8 text, and no file has that name.")
        return rest


_NO_TEXT = re.compile("[\ud800-\udfff]")  # what stands in a str for bytes of the command line that are not UTF-8


def _checked(app: typer.Typer) -> typer.Typer:
    for command in app.registered_commands:
        command.cls = _Command
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _checked(group.typer_instance)
    return app


def make_app(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """The command line with these commands; importing one brings in its stage, which takes time."""
    app = _bare_app()
    for name in names:
        import_module(f"atoll.cli.commands.{name}").register(app)
    return _checked(app)


def _table_of_contents() -> typer.Typer:
    """The command line as `atoll --help` shows it, without any of its commands."""
    app = _bare_app()
    for name, sentence in COMMANDS.items():
        app.command(name, help=sentence)(lambda: None)
    return app


def _bare_app() -> typer.Typer:
    app = typer.Typer(
        name="atoll",
        help="From `nvidia-smi topo -m` to a proven vLLM deployment.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_atoll)
    return app


def main() -> None:
    """Run the command line, with only the command that is asked for."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8, nor the terminal
    words = sys.argv[1:]
    if words[:1] == ["help"]:  # `atoll help plan`, as git and docker have it
        words = [*words[1:], "--help"]
    code = guarded(lambda: _app_for(words)(words, prog_name="atoll", standalone_mode=False))
    sys.exit(code if isinstance(code, int) else 0)


def _app_for(words: list[str]) -> typer.Typer:
    if words and words[0] in COMMANDS:
        return make_app(words[:1])
    return make_app() if _COMPLETION in environment() else _table_of_contents()


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
    line = " ".join(sentence.splitlines())
    if len(line) > LONGEST_SENTENCE:  # a figure of 5,000 digits; what it is about stands in front, why at the end
        line = f"{line[: LONGEST_SENTENCE // 2]} ... {line[-LONGEST_SENTENCE // 2 :]}"
    try:
        if line:
            from atoll.cli.show import progress  # it brings in what only those who print need

            progress.print(f"atoll: {line}", soft_wrap=True)
    except OSError:  # for want of file handles not even what prints can be read
        sys.stderr.write(f"atoll: {line.encode('unicode_escape').decode()}\n")


# Options of vLLM's, SGLang's, AIPerf's, GuideLLM's, EvalScope's and inference-perf's load generators, and ours.
_WORDS_OF_PEERS = {
    **dict.fromkeys(("--concurrency", "--max-concurrency", "--parallel", "--num-concurrency"), "--users"),
    **dict.fromkeys(("--num-prompts", "--num-requests", "--request-count", "--number", "--max-requests"), "--requests"),
    **dict.fromkeys(("--input-len", "--random-input-len", "--isl", "--prompt-tokens", "--input-tokens"), "--prompt"),
    **dict.fromkeys(("--output-len", "--random-output-len", "--osl", "--output-tokens", "--max-tokens"), "--output"),
    **dict.fromkeys(("--request-rate", "--rps", "--qps"), "--rate"),
    **dict.fromkeys(("--dataset-path", "--dataset", "--input-file"), "--prompts"),
    **dict.fromkeys(("--max-seconds", "--benchmark-duration", "--test-duration"), "--duration"),
    **dict.fromkeys(("--goodput",), "--slo-ttft"),
    **dict.fromkeys(("--random-prefix-len", "--prefix-len"), "--shared-prefix"),
    **dict.fromkeys(("--request-id-prefix",), "--request-ids"),
    **dict.fromkeys(("--metric-percentiles",), "--percentiles"),
    **dict.fromkeys(("--endpoint-type", "--backend"), "--endpoint"),
}


def _usage_sentence(error: Any) -> str:
    """What was wrong with the words of the command line; nothing when it was empty and the help has been shown."""
    message = " ".join(error.format_message().split()).rstrip(".")
    if type(error).__name__ == "NoArgsIsHelpError" or not message:
        return ""
    context = getattr(error, "ctx", None)
    ours = _WORDS_OF_PEERS.get(str(getattr(error, "option_name", "")))
    if ours is not None and context is not None and any(ours in one.opts for one in context.command.params):
        said = re.split(r" Did you mean| \(Possible", message)[0].rstrip(".")
        return f"{said}; here that is {ours}."
    return f"{message}; see `{context.command_path if context else 'atoll'} --help`."
