"""A study's result as tables and as JSON."""

from typing import Any

from atoll.analyse.compare import Comparison, Difference, Verdict
from atoll.cli.show import out, show_table
from atoll.units import show_seconds
from atoll.workflows.study import StudyResult, VariantResult

_COLUMNS = (
    "",
    "variant",
    "TTFT p50",
    "TTFT p95",
    "ITL p50",
    "TPOT p50",
    "E2E p50",
    "tokens/s",
    "ok",
    "failed",
    "against",
)


def show_study(result: StudyResult) -> None:
    """The ranking, best first, and the variants that did not run."""
    places = {place.name: place for place in result.ranking}
    rows = [
        _row(result.variant(name), place.place, place.shared, _words(place.against_baseline))
        for name, place in places.items()
    ]
    title = f"{result.study.title or result.study.name} ({result.engine})"
    show_table(title, _columns(result), rows, numbers=range(2, 10))
    for variant in result.variants:
        if variant.failure:
            out.print(f"{variant.name} did not run: {variant.failure}")
        elif variant.run is None or not variant.run.info.complete:
            out.print(f"{variant.name} has not finished: `atoll study resume {result.folder}`")
    _show_predictions(result)


def _columns(result: StudyResult) -> tuple[str, ...]:
    return (*_COLUMNS[:-1], f"TTFT p95 against {result.study.baseline_name}")


def _row(variant: VariantResult, place: int, shared: bool, words: str) -> tuple[str, ...]:
    assert variant.run is not None
    summary = variant.run.summary
    return (
        f"{place}{'=' if shared else ''}",
        variant.name,
        show_seconds(summary.ttft_s.p50),
        show_seconds(summary.ttft_s.p95),
        show_seconds(summary.itl_s.p50),
        show_seconds(summary.tpot_s.p50),
        show_seconds(summary.e2e_s.p50),
        f"{summary.output_tokens_per_s:,.0f}",
        str(summary.requests.ok),
        str(summary.requests.failed + summary.requests.cancelled),
        words,
    )


def _words(comparison: Comparison | None) -> str:
    return "-" if comparison is None else difference_words(comparison.difference("ttft_s", "p95"))


def difference_words(difference: Difference) -> str:
    """`-1.2 s [-1.4 s, -1.0 s]`, or that there is no clear difference."""
    if difference.verdict in {Verdict.UNCLEAR, Verdict.UNKNOWN}:
        return difference.verdict.value
    assert difference.difference is not None
    assert difference.low is not None
    assert difference.high is not None
    return f"{_signed(difference.difference)} [{_signed(difference.low)}, {_signed(difference.high)}]"


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else '-'}{show_seconds(abs(seconds))}"


def _show_predictions(result: StudyResult) -> None:
    """Simulated beside measured, where both are known."""
    rows = []
    for variant in result.variants:
        if variant.predicted is None or variant.run is None or not variant.run.info.complete:
            continue
        predicted, measured = variant.predicted, variant.run.summary
        rows.append(
            (
                variant.name,
                *_pair(predicted.ttft_s.p50, measured.ttft_s.p50),
                *_pair(predicted.tpot_s.p50, measured.tpot_s.p50),
                *_pair(predicted.e2e_s.p50, measured.e2e_s.p50),
            )
        )
    if rows:
        columns = ("variant", "TTFT p50", "", "TPOT p50", "", "E2E p50", "")
        show_table("Predicted -> measured, and the prediction's error", columns, rows, numbers=range(1, 7))


def _pair(predicted: float | None, measured: float | None) -> tuple[str, str]:
    if predicted is None or not measured:
        return "-", ""
    return f"{show_seconds(predicted)} -> {show_seconds(measured)}", f"{predicted / measured - 1:+.0%}"


def study_document(result: StudyResult) -> dict[str, Any]:
    """The result as plain data for --json."""
    return {
        "study": result.study.name,
        "engine": result.engine,
        "folder": str(result.folder),
        "baseline": result.study.baseline_name,
        "ranking": [
            {
                "place": place.place,
                "name": place.name,
                "shared": place.shared,
                "against_baseline": place.against_baseline,
            }
            for place in result.ranking
        ],
        "variants": [
            {
                "name": variant.name,
                "complete": variant.run is not None and variant.run.info.complete,
                "failure": variant.failure,
                "summary": variant.run.summary if variant.run is not None else None,
                "predicted": variant.predicted,
            }
            for variant in result.variants
        ],
    }
