"""Widths of bands from rows of several sources, and how well they hold on sources that had no part in them.

A source is who measured: its rows share its machines, scripts and habits, so a width is tried on a whole source that it
was not taken from. Rows of one source on one set-up (model, format, cards, split, version) repeat each other, so a set-up
counts once however many rows it has. A width holds four of five of the set-ups, and one more for those that are not
here: of k set-ups 0.8 (k + 1) / k (split conformal prediction, arXiv:2107.07511, section 1). What the next source does
differently is in no row of one source or two, so their widths are stretched: with 1.5 and 1.25, of the set-ups of sources
that were left out, 72 to 83 % lie inside a width that promises 80; without, 69 to 80.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log

from atoll.analyse.band import COVERAGE
from atoll.cost.band import NARROWEST, family_of
from atoll.inventory.catalog import find_gpu
from atoll.workflows.measured_rows import Measures
from atoll.workflows.validate import PredictedRow

FEW = 3  # rows; of fewer nothing is said
STRETCH = {1: 1.5, 2: 1.25}  # times as wide, by the number of sources

Value = Callable[[PredictedRow, Measures], float | None]

# Prefixes of ids that are one author's. The `aic` file holds InferenceX's runs and NVIDIA's own, made with aiperf.
AUTHORS = {"cr": "cloudrift", "gpustack": "gpustack", "infx": "inferencex", "qwen25": "trtllm"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Error:
    """How far off one prediction is: |ln(measured / predicted)|."""

    source: str
    set_up: object
    size: float


def source_of(one: PredictedRow) -> str:
    """Who measured the row."""
    name = one.case.id.split("-")[0]
    if name == "aic":
        return "nvidia" if one.case.workload.distinct_prompts else "inferencex"
    return next((author for prefix, author in AUTHORS.items() if name.startswith(prefix)), name)


def set_up_of(one: PredictedRow) -> object:
    layout = one.case.layout
    replica = layout.replicas[0]
    split = (replica.tensor_parallel, replica.pipeline_parallel, layout.flags.enable_expert_parallel)
    return source_of(one), one.case.model, layout.box.gpus[0].name, len(layout.replicas), split, layout.engine_version


def is_burst(one: PredictedRow) -> bool:
    return one.case.family.endswith("burst")


def by_family(rows: Sequence[PredictedRow]) -> dict[str, list[PredictedRow]]:
    """Loads that come all at once are families of their own where there are others: nobody plans for them.

    Others count whose TPOT was measured, without which there is no band.
    """
    families: dict[str, list[PredictedRow]] = defaultdict(list)
    for one in rows:
        families[family_of(find_gpu(one.case.layout.box.gpus[0].name or ""), one.case.card)].append(one)
    found: dict[str, list[PredictedRow]] = {}
    for family, members in sorted(families.items()):
        steady, bursts = ([one for one in members if is_burst(one) is burst] for burst in (False, True))
        timed = [one for one in steady if one.case.measured.tpot_s]
        if len(timed) >= FEW and len(bursts) >= FEW:
            found[family], found[f"{family}, all at once"] = steady, bursts
        else:
            found[family] = members
    return {family: members for family, members in found.items() if len(members) >= FEW}


def errors_of(rows: Iterable[PredictedRow], value: Value) -> list[Error]:
    """Of the rows that have both."""
    found = []
    for one in rows:
        predicted, measured = value(one, one.predicted), value(one, one.case.measured)
        if predicted and measured:
            found.append(Error(source=source_of(one), set_up=set_up_of(one), size=abs(log(measured / predicted))))
    return found


def width(errors: Sequence[Error], coverage: float = COVERAGE) -> float | None:
    """0.25: measurements lie between 1 / 1.25 and 1.25 of the prediction; None for too few."""
    if len(errors) < FEW:
        return None
    rows: dict[object, int] = defaultdict(int)
    for error in errors:
        rows[error.set_up] += 1
    count, held = len(rows), 0.0
    wanted = min(1.0, coverage * (count + 1) / count) * count - 1e-9
    for error in sorted(errors, key=lambda error: error.size):
        held += 1 / rows[error.set_up]
        if held >= wanted:
            return float(exp(error.size) - 1)
    return float(exp(max(error.size for error in errors)) - 1)


def stated(errors: Sequence[Error], *, coverage: float = COVERAGE, narrowest: float = NARROWEST) -> float | None:
    """The width that is shipped."""
    found = width(errors, coverage)
    if found is None:
        return None
    sources = len({error.source for error in errors})
    return round(max(narrowest, found) * STRETCH.get(sources, 1.0), 3)


def left_out(errors: Sequence[Error], coverage: float = COVERAGE) -> list[tuple[str, float, bool]]:
    """For each error: its source, its set-up's weight, and whether it lies inside a width from the other sources."""
    rows: dict[object, int] = defaultdict(int)
    for error in errors:
        rows[error.set_up] += 1
    found = []
    for source in sorted({error.source for error in errors}):
        limit = stated([error for error in errors if error.source != source], coverage=coverage)
        if limit is None:
            continue
        mine = [error for error in errors if error.source == source]
        found += [(source, 1 / rows[one.set_up], one.size <= log(1 + limit)) for one in mine]
    return found


def share(held: Sequence[tuple[str, float, bool]]) -> float | None:
    """Of the set-ups that were inside."""
    whole = sum(weight for _, weight, _ in held)
    return sum(weight for _, weight, inside in held if inside) / whole if whole else None


def bands(
    rows: Sequence[PredictedRow], measures: Mapping[str, Value], sure: Callable[[PredictedRow, str], bool]
) -> dict[str, dict[str, float | int | None]]:
    """By family, what goes into data/cost/bands.json."""
    found: dict[str, dict[str, float | int | None]] = {}
    for family, members in by_family(rows).items():
        errors = {name: errors_of([r for r in members if sure(r, name)], value) for name, value in measures.items()}
        widths: dict[str, float | int | None] = {name: stated(of) for name, of in errors.items()}
        if widths["tpot"] is None:  # the time to the first token alone is no band
            continue
        sources = {error.source for of in errors.values() for error in of}
        found[family] = {**widths, "rows": len(members), "sources": len(sources)}
    return found
