"""How much a load test sends and who sends it, out of a person's words: seed, steps, levels, prompts, workers."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from atoll.analyse.gate import Gate
from atoll.errors import InputError, MissingProgram
from atoll.load.pace import LoadStep, parse_steps
from atoll.load.run import Workers
from atoll.load.scripts import words_of_script
from atoll.load.tokens import Counter, Vocabulary, find_tokenizer, read_vocabulary
from atoll.outside.files import read_text
from atoll.outside.shell import environment
from atoll.traffic.seed import fresh_seed
from atoll.traffic.slo import SLO
from atoll.traffic.trace import TraceRow, parse_trace
from atoll.traffic.workload import Workload
from atoll.units import parse_seconds
from atoll.workflows.load import slo_of

if TYPE_CHECKING:
    from atoll.load.datasets import DatasetPrompts


def one_duration(duration: str | None, run_time: str | None) -> str | None:
    """--duration, or --run-time, which is Locust's word for it; raises InputError when both are given and differ."""
    if duration is not None and run_time is not None and parse_seconds(duration) != parse_seconds(run_time):
        raise InputError(f"--duration {duration} and --run-time {run_time} are two words for one thing. Give one.")
    return duration or run_time


def with_own_seed(workload: Workload, *, said: bool) -> Workload:
    """The load with a seed that no run had before, unless the user or the document says one.

    The same prompts twice would be answered from the engine's prefix cache.
    """
    if said or workload.seed != Workload().seed:
        return workload
    return workload.replace(seed=fresh_seed(np.random.default_rng()))


def percentiles_of(text: str | None, gates: Sequence[Gate] = ()) -> tuple[float, ...]:
    """`99.9,75`, and those that gates ask for, without the usual ones; raises InputError."""
    try:
        given = [float(piece) for piece in text.split(",")] if text else []
    except ValueError:
        given = [0.0]
    if any(not 0 < percent < 100 for percent in given):
        raise InputError(f"--percentiles {text} are none. Write them like 99.9,75.")
    asked = {*given, *(gate.percentile for gate in gates if gate.percentile is not None)}
    return tuple(sorted(asked - {50.0, 90.0, 95.0, 99.0}))


def refuse_no_users(control: Path | None, workload: Workload, steps: Sequence[LoadStep]) -> None:
    """Raises InputError where a file is to say the number of users, and there are none, or steps say it already."""
    if control is not None and not workload.is_closed:
        raise InputError("--control changes the number of users; it does not go with --rate or a trace's own times.")
    if control is not None and steps:
        raise InputError("--control and --steps both say how many users there are. Give one of them.")


def workers_of(workers: str, *, ray: bool = False) -> Workers | None:
    """Who sends: `1` is this process, `4` four of this machine, `ray://HOST:PORT` or `ray` a worker on every node.

    Raises:
        InputError: neither a number nor a Ray address.
        MissingProgram: Ray is not installed.
    """
    if workers == "1" and not ray:
        return None
    from atoll.load.ray_workers import RayActors
    from atoll.load.workers import Processes

    if ray or workers == "ray" or workers.startswith("ray://"):
        return RayActors(workers if workers.startswith("ray://") else None)
    if not workers.isdigit() or int(workers) < 1:
        raise InputError(f"--workers {workers} is no number of processes. Write 4, or ray://HOST:10001.")
    return Processes(int(workers)) if int(workers) > 1 else None


def steps_of(text: str | None) -> tuple[LoadStep, ...]:
    return () if text is None else parse_steps(text)


def trace_of(path: Path | None, *, speed: float = 1.0) -> tuple[TraceRow, ...]:
    """Rows of a trace, its times divided by `speed`; raises BadTraffic when it is none."""
    if path is None:
        return ()
    if speed <= 0:
        raise InputError(f"--trace-speed {speed:g} goes nowhere. Write 2 for twice as fast.")
    rows = parse_trace(read_text(path), origin=str(path))
    return tuple(replace(row, due_s=row.due_s / speed) for row in rows)


def loads_of(text: str) -> tuple[float, ...]:
    """`1,2,4,8`; raises InputError."""
    try:
        loads = tuple(float(piece) for piece in text.split(","))
    except ValueError:
        loads = ()
    if not loads or min(loads) <= 0:
        raise InputError(f"{text!r} are no levels of load. Write them like 1,2,4,8.")
    return loads


def words_of(
    model: str | None, tokenizer: str | None, *, chat: bool, script: str = "english"
) -> tuple[Vocabulary | None, Counter | None]:
    """The words and the counter of the model's tokenizer, when it is on this disk; None, None when it is not.

    Raises:
        InputError: the tokenizer that was named is none, or the script.
        MissingProgram: one was named and the tokenizers package is not installed.
    """
    words_of_script(script)
    variables = environment()
    home = variables.get("HF_HOME") or str(Path(variables.get("HOME", "/root")) / ".cache" / "huggingface")
    path = find_tokenizer(model, given=tokenizer, home=home)
    if path is None:
        return None, None
    try:
        return read_vocabulary(path, chat=chat, script=script)
    except MissingProgram:
        if tokenizer is not None:
            raise
        return None, None


def prompts_of(
    path: Path | None, *, seed: int, count: Counter | None, own_output: bool = False
) -> "DatasetPrompts | None":
    """Prompts of a file or folder; None without one."""
    if path is None:
        return None
    from atoll.load.conversations import read_conversations
    from atoll.load.datasets import DatasetPrompts

    found = read_conversations(path)
    return DatasetPrompts(found, origin=str(path), seed=seed, count=count, own_output=own_output)


def targets_of(
    written: SLO | None, ttft: str | None, tpot: str | None, models: Sequence[str]
) -> tuple[SLO | None, dict[str, SLO]]:
    """The targets of all requests, and those of single models: `1s`, or `1s,small=200ms` where several are asked.

    Raises:
        InputError: no duration, or a model that is not asked.
    """
    general: dict[str, str | None] = {}
    own: dict[str, dict[str, str]] = {}
    for kind, text in (("ttft", ttft), ("tpot", tpot)):
        general[kind] = None
        for part in (text or "").split(",") if text is not None else ():
            name, is_of, value = part.strip().rpartition("=")
            if not is_of:
                general[kind] = value
            elif name not in models:
                known = ", ".join(models) or "none by --model"
                raise InputError(f"--slo-{kind} {part.strip()} is of a model that is not asked; asked are {known}.")
            else:
                own.setdefault(name, {})[kind] = value
    slo = slo_of(written, general["ttft"], general["tpot"])
    return slo, {name: slo_of(slo, told.get("ttft"), told.get("tpot")) or SLO() for name, told in own.items()}
