"""Make data/cost/pairs.json: how far off predictions are of how two layouts compare. Run by tools/make_validation.py.

Two layouts of one model on one kind of card share most of what the model gets wrong, so their ratio is nearer to the
truth than either figure. Compared are closed-loop rows of one source that differ in the split and the users alone, and
that make layouts of one box under one load: N replicas under N x c users are N copies of one engine under c. A row of
TP 2 under 16 users and one of TP 4 under 32 so stand for 2 x TP 2 and 1 x TP 4 under 32.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import combinations
from math import log
from pathlib import Path

import source_bands

from atoll.cost.band import family_of
from atoll.inventory.catalog import find_gpu
from atoll.workflows.measured_rows import Measures
from atoll.workflows.validate import SAME, PredictedRow

TARGET = Path(__file__).parents[1] / "src/atoll/data/cost/pairs.json"
BOX = 8  # GPUs
FEW = 5


Value = Callable[[PredictedRow, Measures], float | None]


def pair_bands(
    verdicts: Sequence[PredictedRow], values: Mapping[str, Value], sure: Callable[[PredictedRow, str], bool]
) -> dict[str, dict[str, float | int | None]]:
    """By family: what four of five ratios stay within, measure by measure, how many pairs there are, of how many sources."""
    return {
        family: {
            **{name: source_bands.stated(of, narrowest=SAME) for name, of in by_name.items()},
            "rows": len(by_name["e2e"]),
            "sources": len({error.source for error in by_name["e2e"]}),
        }
        for family, by_name in sorted(errors_by_family(verdicts, values, sure).items())
        if len(by_name["e2e"]) >= FEW
    }


def errors_by_family(
    verdicts: Sequence[PredictedRow], values: Mapping[str, Value], sure: Callable[[PredictedRow, str], bool]
) -> dict[str, dict[str, list[source_bands.Error]]]:
    """Errors of ratios; two set-ups and their loads make many pairs, which count once."""
    errors: dict[str, dict[str, list[source_bands.Error]]] = defaultdict(lambda: defaultdict(list))
    for one, other in pairs(verdicts):
        family = family_of(find_gpu(one.case.layout.box.gpus[0].name or ""), one.case.card)
        for name, value in values.items():
            error = error_of_ratio(one, other, value)
            if error is not None and sure(one, name) and sure(other, name):
                set_up = tuple(sorted((str(source_bands.set_up_of(one)), str(source_bands.set_up_of(other)))))
                found = source_bands.Error(source=source_bands.source_of(one), set_up=set_up, size=log(1 + error))
                errors[family][name].append(found)
    return errors


def pairs(verdicts: Sequence[PredictedRow]) -> Iterator[tuple[PredictedRow, PredictedRow]]:
    """Rows that make two layouts of a box of 8 under the same load."""
    alike: dict[object, list[PredictedRow]] = defaultdict(list)
    for one in verdicts:
        if one.case.users is not None and not one.case.family.endswith("burst"):
            alike[all_but_layout(one)].append(one)
    for group in alike.values():
        yield from (pair for pair in combinations(group, 2) if share_a_box(*pair))


def all_but_layout(one: PredictedRow) -> object:
    """The source (the id's first word), model, card, flags, version and lengths."""
    case = one.case
    load = case.workload.replace(seed=1, users=1, requests=1).to_yaml()
    flags = case.layout.flags.to_yaml()
    source = case.id.split("-")[0]
    return source, case.card.name, case.layout.box.gpus[0].name, flags, case.layout.engine_version, load


def share_a_box(one: PredictedRow, other: PredictedRow) -> bool:
    """Whether so many copies of each, under the same users together, fit into the box."""
    copies = Fraction(other.case.users or 1, one.case.users or 1)
    layouts = [
        (count, len(row.case.layout.replicas[0].gpus))
        for count, row in ((copies.numerator, one), (copies.denominator, other))
    ]
    return layouts[0] != layouts[1] and all(count * gpus <= BOX for count, gpus in layouts)


def error_of_ratio(one: PredictedRow, other: PredictedRow, value: Value) -> float | None:
    """0.05: the predicted ratio is 1.05 times the measured one, or the other way about."""
    predicted, measured = value(one, one.predicted), value(one, one.case.measured)
    predicted_other, measured_other = value(other, other.predicted), value(other, other.case.measured)
    if not (predicted and measured and predicted_other and measured_other):
        return None
    off = (predicted / predicted_other) / (measured / measured_other)
    return max(off, 1 / off) - 1


def write(
    verdicts: Sequence[PredictedRow], values: Mapping[str, Value], sure: Callable[[PredictedRow, str], bool]
) -> None:
    found = pair_bands(verdicts, values, sure)
    lines = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in found.items())
    source = "Made by tools/make_validation.py: the error that four of five ratios of two layouts stay within"
    TARGET.write_text(f'{{\n"source": {json.dumps(source)},\n"pairs": {{\n{lines}\n}}\n}}\n')
