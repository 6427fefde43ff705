"""Hold the predictions against a table of measurements: simulate every row, say how far off we are, by family."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import ceil
from pathlib import Path
from statistics import fmean, median

import numpy as np
from numpy.typing import NDArray

from atoll.analyse.band import Band
from atoll.analyse.summary import latencies
from atoll.cost.band import relative_band
from atoll.cost.links import ReducePath, group_reduce, tensor_groups
from atoll.cost.profile import MachineProfile, MeasuredReduce
from atoll.documents import Document
from atoll.engines.spec import EngineSpec
from atoll.errors import AtollError, NothingFits
from atoll.outside.files import read_text
from atoll.simulate.equip import Equipment
from atoll.simulate.run import Conditions, simulate_layout
from atoll.traffic.lengths import draw_lengths
from atoll.traffic.record import Outcome, RecordTable
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Arrivals, Lengths
from atoll.workflows.engine_options import NOTHING, EngineOptions, fill_rows
from atoll.workflows.measured_rows import Case, Measures, cases_or_reasons, read_rows
from atoll.workflows.memory_rows import is_of_starts
from atoll.workflows.simulate import equipment_for
from atoll.workflows.validate_memory import MemoryValidation, validate_starts

ENOUGH_REQUESTS = 1500  # a row of fewer is simulated several times, with other draws
MOST_DRAWS = 5


class Values(Document):
    """Seconds, tokens per second; null where it was not measured."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None  # TTFT + TPOT (output tokens - 1)
    output_tokens_per_s: float | None = None


class RowResult(Document):
    """One row: measured beside predicted, or why there is no prediction."""

    id: str
    family: str | None = None
    measured: Values | None = None
    predicted: Values | None = None
    band: Band | None = None  # around what was predicted; None: nothing like it was measured
    skipped: str | None = None


class ErrorOf(Document):
    """Relative errors (predicted - measured) / measured of one measure over a family."""

    n: int
    median_abs: float
    mean_abs: float
    bias: float  # mean of the signed errors


class Order(Document):
    """Rows that differ in the split alone: how often two of them come out in the measured order."""

    cases: int  # groups of at least two such rows
    right: int  # groups in which every two are in the right order (or are within 2 % of each other as measured)


class GroupResult(Document):
    """A family of rows."""

    family: str
    n: int
    ttft: ErrorOf | None = None
    tpot: ErrorOf | None = None
    e2e: ErrorOf | None = None  # TTFT + TPOT (output - 1), where both were measured
    throughput: ErrorOf | None = None
    order_by_latency: Order | None = None
    order_by_gpu_throughput: Order | None = None


class Validation(Document):
    """All rows, and the families that have predictions."""

    rows: tuple[RowResult, ...]
    groups: tuple[GroupResult, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedRow:
    """A row that can be expressed, and what was predicted for it."""

    case: Case
    predicted: Measures


def validate_file(
    path: Path,
    *,
    profile: MachineProfile | None = None,
    options: EngineOptions = NOTHING,
    on_row: Callable[[int, int], None] = lambda _done, _all: None,
) -> Validation | MemoryValidation:
    """Predict every row of a CSV file.

    Args:
        path: the table, of serving benchmarks or of start-up logs; its columns are listed in docs/validation.md.
        profile: what calibration found on the machine that all rows were measured on; None: the catalogue.
        options: the engine's, for the rows that leave them open.
        on_row: told after each row how many are done and how many there are.

    Raises:
        InputError: no such file, no CSV, or one that lacks a needed column; an option with which vLLM would not start.
    """
    options.flags()
    rows = fill_rows(read_rows(read_text(path), origin=str(path), folder=path.parent), options)
    if is_of_starts(rows):
        return validate_starts(rows, on_row=on_row)
    return validate_rows(rows, profile=profile, on_row=on_row)


def validate_rows(
    rows: Sequence[Mapping[str, str]],
    *,
    profile: MachineProfile | None = None,
    on_row: Callable[[int, int], None] = lambda _done, _all: None,
) -> Validation:
    """Predict rows that were read already."""
    results: list[RowResult] = []
    verdicts: list[PredictedRow] = []
    for row, case in cases_or_reasons(rows):
        predicted = case if isinstance(case, str) else predict_or_reason(case, profile=profile)
        if isinstance(case, str) or isinstance(predicted, str):
            results.append(RowResult(id=row.get("id", ""), skipped=str(predicted)))
        else:
            verdicts.append(PredictedRow(case=case, predicted=predicted))
            results.append(_row_result(case, predicted))
        on_row(len(results), len(rows))
    return Validation(rows=tuple(results), groups=tuple(group_errors(verdicts)))


def _row_result(case: Case, predicted: Measures) -> RowResult:
    said = _values(case, predicted)
    relative = relative_band(case.layout, case.card, at_once=case.family.endswith("burst"))
    return RowResult(
        id=case.id,
        family=case.family,
        measured=_values(case, case.measured),
        predicted=said,
        band=None if relative is None else relative.around(said.model_dump()),
    )


def _values(case: Case, measures: Measures) -> Values:
    return Values(
        ttft_s=measures.ttft_s,
        tpot_s=measures.tpot_s,
        e2e_s=answer_s(case, measures),
        output_tokens_per_s=measures.output_tokens_per_s,
    )


def predict_or_reason(case: Case, *, profile: MachineProfile | None = None) -> Measures | str:
    """What the simulator says of a row; the reason where the layout cannot run.

    A row that ran did fit, so where our reckoning says otherwise its operator is taken to have left less room for
    the largest batch: 256 sequences, then 0.95 of the memory as well.
    """
    reason = "no request of this row could be served"
    for flags in ({}, {"max_num_seqs": 256}, {"max_num_seqs": 64, "gpu_memory_utilization": 0.95}):
        layout = case.layout.replace(flags=case.layout.flags.replace(**flags))
        try:
            predicted = predict_case(replace(case, layout=layout), profile=profile)
        except NothingFits as error:
            reason = str(error)
        except AtollError as error:
            return str(error)
        else:
            if predicted.ttft_s is not None:
                return predicted
    return reason


def predict_case(case: Case, *, profile: MachineProfile | None = None) -> Measures:
    """TTFT and TPOT as means over requests (TTFT as a median where the row gives one), throughput over the whole run.

    Raises:
        AtollError: the model does not fit, or the load makes no sense.
    """
    equipment = _equipment(case, profile)
    draws = min(MOST_DRAWS, ceil(ENOUGH_REQUESTS / (case.workload.requests or ENOUGH_REQUESTS)))
    tables = [_simulate(case, equipment, seed) for seed in range(1, draws + 1)]
    found = [_measure(table, case) for table in tables]
    return Measures(
        ttft_s=_mean(one.ttft_s for one in found),
        tpot_s=_mean(one.tpot_s for one in found),
        output_tokens_per_s=_mean(one.output_tokens_per_s for one in found),
    )


def _equipment(case: Case, profile: MachineProfile | None) -> Equipment:
    equipment = equipment_for(case.layout, case.card, profile or (_host_links(case) if case.through_host else None))
    if case.kv_blocks is None:
        return equipment
    return replace(equipment, kv_blocks=(case.kv_blocks,) * len(equipment.kv_blocks))


_REDUCED_BYTES = tuple(2.0**power for power in range(12, 28))


def _host_links(case: Case) -> MachineProfile | None:
    """The machine's links as a profile: all-reduce through the host's memory for every group of the layout."""
    reduces = [
        MeasuredReduce(gpus=gpus, points=tuple((size, reduce.seconds(size)) for size in _REDUCED_BYTES))
        for replica in case.layout.replicas
        if replica.tensor_parallel > 1
        for spec in (EngineSpec.of(case.layout, replica, case.card),)
        for gpus in tensor_groups(spec)
        for reduce in (group_reduce(spec, gpus, override=ReducePath.HOST),)
    ]
    return MachineProfile(name="no peer access", reduces=tuple(reduces))


def _simulate(case: Case, equipment: Equipment, seed: int) -> RecordTable:
    """Records of the case's requests; the last `workload.requests` of them where runs or a warm-up went before."""
    workload, trace = case.workload.replace(seed=seed), _trace(case, seed)
    if case.warm_up_rounds:
        rounds_before = case.warm_up_rounds * (workload.users or 0)
        workload = workload.replace(requests=(workload.requests or 0) + rounds_before)
    if trace:
        count = workload.requests
        workload = workload.replace(arrivals=Arrivals.TRACE, rate=None, requests=len(trace), distinct_prompts=count)
    return simulate_layout(
        case.layout,
        case.card,
        workload,
        timers=equipment.timers,
        kv_blocks=equipment.kv_blocks,
        limits=equipment.limits,
        trace=trace,
        conditions=Conditions(warm_up_rounds=case.warm_up_rounds),
    )


DRAINED_S = 1800.0  # between two runs of a script: by then every answer has ended


def _trace(case: Case, seed: int) -> tuple[TraceRow, ...]:
    """The requests of all runs of a script, one after the other; none where a row's arrivals are not known."""
    known, load = case.arrivals, case.workload
    if known is None or load.requests is None or load.rate is None:
        return ()
    rng = np.random.default_rng(seed)
    prompts = _lengths_like(load.prompt, case.prompt_tokens, load.requests, rng)
    outputs = _lengths_like(load.output, case.output_tokens, load.requests, rng)
    rows: list[TraceRow] = []
    for run, rate in enumerate((*known.rates_before, load.rate)):
        due = run * DRAINED_S + _benchmark_arrivals(rate, load.requests, known.seed)
        rows += [
            TraceRow(due_s=float(at), prompt_tokens=int(prompt), output_tokens=int(output))
            for at, prompt, output in zip(due, prompts, outputs, strict=True)
        ]
    return tuple(rows)


def _benchmark_arrivals(rate: float, count: int, seed: int) -> NDArray[np.float64]:
    """When vLLM's benchmark_serving.py sends: the first request at once, then after gaps from NumPy's old generator.

    200 requests at 1 a second with seed 42 are sent within 187.6 s.
    """
    gaps = np.random.RandomState(seed).gamma(1.0, 1 / rate, count)
    return np.concatenate([[0.0], np.cumsum(gaps[:-1])])


def _lengths_like(lengths: Lengths, mean: float, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Drawn lengths, stretched to the mean that the row gives."""
    drawn = draw_lengths(lengths, count, rng)
    stretched: NDArray[np.int64] = np.maximum(1, np.rint(drawn * (mean / drawn.mean()))).astype(np.int64)
    return stretched


def _measure(table: RecordTable, case: Case) -> Measures:
    first = max(0, len(table) - (case.workload.requests or len(table)))
    ok = np.array([outcome == Outcome.OK for outcome in table.outcome])
    ok[:first] = False
    if not ok.any():
        return Measures()
    measures = latencies(table)
    ttft = measures.ttft_s[ok]
    tpot = measures.tpot_s[ok]
    duration = float(np.nanmax(table.last_token_s[ok]) - table.sent_s[first])
    return Measures(
        ttft_s=float(np.median(ttft) if case.median else np.mean(ttft)),
        tpot_s=None if np.isnan(tpot).all() else float(np.nanmean(tpot)),
        output_tokens_per_s=float(table.output_tokens[ok].sum()) / duration if duration > 0 else None,
    )


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def group_errors(verdicts: Sequence[PredictedRow]) -> Iterator[GroupResult]:
    """Errors by family, the largest first; a family of several models is followed by each of them."""
    for family, members in _by(verdicts, lambda one: one.case.family):
        yield summarise_family(family, members)
        models = _by(members, lambda one: one.case.model)
        for model, ones in models if len(models) > 1 else ():
            yield summarise_family(f"{family}: {model}", ones)


def _by(verdicts: Sequence[PredictedRow], name: Callable[[PredictedRow], str]) -> list[tuple[str, list[PredictedRow]]]:
    groups: dict[str, list[PredictedRow]] = defaultdict(list)
    for verdict in verdicts:
        groups[name(verdict)].append(verdict)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def summarise_family(family: str, members: Sequence[PredictedRow]) -> GroupResult:
    """Errors of these rows, under this name."""
    return GroupResult(
        family=family,
        n=len(members),
        ttft=_errors((one.predicted.ttft_s, one.case.measured.ttft_s) for one in members),
        tpot=_errors((one.predicted.tpot_s, one.case.measured.tpot_s) for one in members),
        e2e=_errors((answer_s(one.case, one.predicted), answer_s(one.case, one.case.measured)) for one in members),
        throughput=_errors(
            (one.predicted.output_tokens_per_s, one.case.measured.output_tokens_per_s) for one in members
        ),
        order_by_latency=_order(members, answer_s),
        order_by_gpu_throughput=_order(members, _per_gpu),
    )


def _errors(pairs: Iterable[tuple[float | None, float | None]]) -> ErrorOf | None:
    errors = [predicted / measured - 1 for predicted, measured in pairs if predicted is not None and measured]
    if not errors:
        return None
    sizes = [abs(error) for error in errors]
    return ErrorOf(n=len(errors), median_abs=median(sizes), mean_abs=fmean(sizes), bias=fmean(errors))


def answer_s(case: Case, measures: Measures) -> float | None:
    """Seconds of a whole answer: TTFT + TPOT (output tokens - 1); None where either is missing."""
    if measures.ttft_s is None or measures.tpot_s is None:
        return None
    return measures.ttft_s + measures.tpot_s * (case.output_tokens - 1)


def _per_gpu(case: Case, measures: Measures) -> float | None:
    """Tokens per second and GPU of a closed loop, by Little's law: users / E2E answers a second."""
    e2e = answer_s(case, measures)
    if e2e is None or case.users is None:
        return None
    return case.users * case.output_tokens / e2e / sum(len(replica.gpus) for replica in case.layout.replicas)


def _order(members: Sequence[PredictedRow], value: Callable[[Case, Measures], float | None]) -> Order | None:
    """Groups of rows that differ in the split alone."""
    alike: dict[object, list[PredictedRow]] = defaultdict(list)
    for one in members:
        alike[_all_but_split(one.case)].append(one)
    judged = [_in_order(group, value) for group in alike.values()]
    counted = [right for right in judged if right is not None]
    return Order(cases=len(counted), right=sum(counted)) if counted else None


def _all_but_split(case: Case) -> object:
    workload = case.workload.replace(seed=1)
    return (
        case.card.name,
        case.layout.box.gpus[0].name,
        case.layout.flags.to_yaml(),
        case.layout.engine_version,
        workload.to_yaml(),
    )


SAME = 0.02  # measurements nearer than this are a tie


def _in_order(group: Sequence[PredictedRow], value: Callable[[Case, Measures], float | None]) -> bool | None:
    """Whether every two splits come out as measured; None when there are not two."""
    pairs = []
    for one, other in combinations(group, 2):
        if one.case.layout.replicas[0].tensor_parallel == other.case.layout.replicas[0].tensor_parallel:
            continue
        values = [value(x.case, y) for x in (one, other) for y in (x.case.measured, x.predicted)]
        if any(v is None for v in values):
            continue
        measured, predicted, measured_other, predicted_other = (v or 0.0 for v in values)
        if abs(measured / measured_other - 1) < SAME:
            continue
        pairs.append((measured < measured_other) == (predicted < predicted_other))
    return all(pairs) if pairs else None
