"""Hold the account of a GPU's memory against a table of start-up logs."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from atoll.cost.memory import fit_memory, printed_tokens, why_not_start
from atoll.documents import Document
from atoll.engines import find_engine
from atoll.engines.spec import EngineSpec
from atoll.workflows.memory_rows import Start, starts_or_reasons


class MeasuredMemory(Document):
    """What a log said; null where it was not printed, or is in doubt."""

    kv_tokens: int | None = None  # of the engine
    kv_bytes: int | None = None  # of one GPU
    weight_bytes: int | None = None  # of one GPU
    started: bool | None = None


class PredictedMemory(Document):
    """What the account says of the same start."""

    kv_tokens: int
    kv_bytes: int
    weight_bytes: int
    fits: bool  # whether the engine would start as it is set
    why: str | None = None  # why not


class MemoryRow(Document):
    """One row: measured beside predicted, or why there is no prediction."""

    id: str
    attention: str | None = None
    measured: MeasuredMemory | None = None
    predicted: PredictedMemory | None = None
    skipped: str | None = None


class FigureError(Document):
    """Relative errors (predicted - measured) / measured of one figure."""

    what: str  # KV tokens, by kind of attention; weights
    n: int
    median_abs: float
    p90_abs: float
    worst: float  # signed
    bias: float  # median of the signed errors


class Refusals(Document):
    """What real engines refused, and whether that was foreseen."""

    refused: int
    foreseen: int
    started: int
    refused_wrongly: int


class MemoryValidation(Document):
    """All rows, and how far off they are."""

    rows: tuple[MemoryRow, ...]
    errors: tuple[FigureError, ...]
    refusals: Refusals


@dataclass(frozen=True, kw_only=True, slots=True)
class _Verdict:
    start: Start
    predicted: PredictedMemory


def validate_starts(
    rows: Sequence[Mapping[str, str]], *, on_row: Callable[[int, int], None] = lambda _done, _all: None
) -> MemoryValidation:
    """Reckon every row of a table of start-up logs.

    Args:
        rows: the table, paths in its column `config` as seen from here.
        on_row: told after each row how many are done and how many there are.
    """
    results: list[MemoryRow] = []
    verdicts: list[_Verdict] = []
    for name, start in starts_or_reasons(rows):
        if isinstance(start, str):
            results.append(MemoryRow(id=name, skipped=start))
        else:
            verdict = _Verdict(start=start, predicted=predict_start(start.spec))
            verdicts.append(verdict)
            results.append(_row(verdict))
        on_row(len(results), len(rows))
    return MemoryValidation(rows=tuple(results), errors=tuple(_errors(verdicts)), refusals=_refusals(verdicts))


def predict_start(spec: EngineSpec) -> PredictedMemory:
    """What an engine's log would say; `fits` as the engine itself would decide."""
    fit = fit_memory(spec)
    engine = find_engine(spec.engine)
    why = (
        engine.why_not_on(spec.card, spec.kind)
        or engine.why_not_split(spec.card, spec.tensor_parallel, expert_parallel=spec.expert_parallel)
        or why_not_start(spec, fit)
    )
    return PredictedMemory(
        kv_tokens=printed_tokens(spec, fit),
        kv_bytes=fit.kv_bytes - fit.missing_bytes,
        weight_bytes=fit.weight_bytes,
        fits=why is None,
        why=why,
    )


def _row(verdict: _Verdict) -> MemoryRow:
    start = verdict.start
    return MemoryRow(
        id=start.id,
        attention=start.attention or None,
        measured=MeasuredMemory(
            kv_tokens=start.kv_tokens,
            kv_bytes=start.kv_bytes,
            weight_bytes=start.weight_bytes,
            started=start.started,
        ),
        predicted=verdict.predicted,
    )


def _errors(verdicts: Sequence[_Verdict]) -> Iterable[FigureError]:
    """By kind of attention in the order in which they come, then the weights of all rows."""
    for kind in dict.fromkeys(verdict.start.attention for verdict in verdicts):
        of_kind = [verdict for verdict in verdicts if verdict.start.attention == kind]
        yield from _error(f"KV tokens, {kind}" if kind else "KV tokens", map(_kv_error, of_kind))
    yield from _error("weights", map(_weight_error, verdicts))


def _kv_error(verdict: _Verdict) -> float | None:
    """Of the tokens; of the memory where the log has no tokens."""
    start, predicted = verdict.start, verdict.predicted
    if start.kv_tokens:
        return predicted.kv_tokens / start.kv_tokens - 1
    return predicted.kv_bytes / start.kv_bytes - 1 if start.kv_bytes and start.kv_bytes > 0 else None


def _weight_error(verdict: _Verdict) -> float | None:
    measured = verdict.start.weight_bytes
    return verdict.predicted.weight_bytes / measured - 1 if measured else None


def _error(what: str, found: Iterable[float | None]) -> Iterable[FigureError]:
    signed = [error for error in found if error is not None]
    if not signed:
        return
    sizes = sorted(map(abs, signed))
    yield FigureError(
        what=what,
        n=len(signed),
        median_abs=median(sizes),
        p90_abs=sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))],
        worst=max(signed, key=abs),
        bias=median(signed),
    )


def _refusals(verdicts: Sequence[_Verdict]) -> Refusals:
    refused = [verdict for verdict in verdicts if verdict.start.started is False]
    started = [verdict for verdict in verdicts if verdict.start.started]
    return Refusals(
        refused=len(refused),
        foreseen=sum(not verdict.predicted.fits for verdict in refused),
        started=len(started),
        refused_wrongly=sum(not verdict.predicted.fits for verdict in started),
    )
