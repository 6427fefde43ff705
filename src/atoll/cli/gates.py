"""Gates on the command line: read, shown, written for a build server, and the exit code."""

from collections.abc import Sequence
from pathlib import Path

from atoll.analyse.gate import Gate, Judgement, judge, parse_gate, refuse_without_target
from atoll.analyse.junit import junit_text
from atoll.analyse.summary import Summary
from atoll.cli.show import out
from atoll.errors import GateFailed
from atoll.outside.files import write_whole


def gates_of(given: Sequence[str], *, has_target: bool = True, of_two: bool = False) -> tuple[Gate, ...]:
    """The gates of a command line; raises InputError for what is none, before anything is measured."""
    gates = tuple(parse_gate(text, of_two=of_two) for text in given)
    refuse_without_target(gates, has_target=has_target)
    return gates


def judge_run(summary: Summary, gates: Sequence[Gate], *, name: str | None = None) -> list[Judgement]:
    """What became of each gate, with the run's name in front where there are several runs."""
    found = [judge(summary, gate) for gate in gates]
    if name is None:
        return found
    return [one.replace(gate=f"{name}: {one.gate}", sentence=f"{name}: {one.sentence}") for one in found]


def show_gates(judged: Sequence[Judgement]) -> None:
    for one in judged:
        mark, style = ("gate", "red") if one.holds else ("kept", "green")
        out.print(f"{mark}  {one.gate}: {one.sentence}", style=style, markup=False, soft_wrap=True)


def write_junit(judged: Sequence[Judgement], path: Path | None, *, suite: str, seconds: float = 0.0) -> None:
    """Raises InputError where it cannot be written."""
    if path is not None:
        write_whole(path, junit_text(judged, suite=suite, seconds=seconds))


def close_gates(judged: Sequence[Judgement]) -> None:
    """Raises GateFailed, with one sentence, where a gate holds."""
    beyond = [one.sentence.rstrip(".") for one in judged if one.holds]
    if beyond:
        raise GateFailed(f"{'; '.join(beyond)}.")
