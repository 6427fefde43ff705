"""A study's result as tables and as JSON."""

from collections.abc import Iterator
from shlex import quote
from typing import Any

from atoll.analyse.compare import Comparison, Difference, Verdict
from atoll.analyse.summary import Summary
from atoll.cli.show import out, show_bands, show_table
from atoll.report.sentences import tell
from atoll.traffic.record import Source
from atoll.units import show_seconds
from atoll.workflows.study import StudyResult, VariantResult

_COLUMNS = ("", "variant", "TTFT\np50", "TTFT\np95", "TPOT\np50", "E2E\np50", "\ntok/s")
_LONGEST_HEADING = 16  # of the last column; a longer name would push figures off 80 columns


def show_study(result: StudyResult, lang: str = "en") -> None:
    """The ranking, best first, and the variants that did not run."""
    runs = [(place, result.variant(place.name)) for place in result.ranking]
    lost = any(_lost(variant) for _, variant in runs)
    rows = [
        (
            f"{place.place}{'=' if place.shared else ''}",
            variant.name,
            *_figures(variant),
            *([str(_lost(variant))] if lost else []),
            _words(place.against_baseline),
        )
        for place, variant in runs
    ]
    baseline = result.study.baseline_name
    against = baseline if len(baseline) <= _LONGEST_HEADING else "baseline"
    columns = (*_COLUMNS, *(["\nlost"] if lost else []), f"p95 vs\n{against}")
    title = f"{result.study.title or result.study.name} ({result.source})"
    show_table(title, columns, rows, numbers=range(2, len(columns)), wrap=(1,))  # a name is folded, a figure never
    for variant in result.variants:
        if trouble := result.study.trouble_of(variant.name).words:
            out.print(f"{variant.name}: {trouble}.", markup=False, soft_wrap=True)
        if variant.failure:
            out.print(tell(f"{variant.name} did not run: {variant.failure}", lang), markup=False)
        elif variant.run is None or not variant.run.info.complete:
            resume = f"`atoll study resume {quote(str(result.folder))}`"
            out.print(tell(f"{variant.name} has not finished: {resume}", lang), markup=False)
    if any(place.shared for place in result.ranking):
        band = ", or not beyond the band of their ratio" if result.source is Source.SIMULATED else ""
        words = f"= neither the wait (TTFT p95, 0.1 s) nor the pace (TPOT) tells these apart at 95 %{band}."
        out.print(tell(words, lang), soft_wrap=True)
    if result.source is Source.SIMULATED:
        show_bands({variant.name: variant.relative_band for _, variant in runs}, lang)
    _show_predictions(result, lang)


def _lost(variant: VariantResult) -> int:
    """Requests that failed or were cancelled."""
    assert variant.run is not None
    return variant.run.summary.requests.failed + variant.run.summary.requests.cancelled


def _figures(variant: VariantResult) -> tuple[str, ...]:
    assert variant.run is not None
    summary = variant.run.summary
    rate = summary.output_tokens_per_s
    waits = (summary.ttft_s.p50, summary.ttft_s.p95, summary.tpot_s.p50, summary.e2e_s.p50)
    return (*map(show_seconds, waits), f"{rate:,.0f}")


def _words(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    difference = comparison.difference("ttft_s", "p95")
    if difference.verdict is Verdict.WITHIN_BAND:
        return "in band"
    if not difference.is_clear or difference.difference is None:
        return "unclear"
    return _signed(difference.difference)


def difference_words(difference: Difference) -> str:
    """`-1.2 s [-1.4 s, -1.0 s]`, or that there is no clear difference."""
    if not difference.is_clear:
        return difference.verdict.value
    assert difference.difference is not None
    assert difference.low is not None
    assert difference.high is not None
    return f"{_signed(difference.difference)} [{_signed(difference.low)}, {_signed(difference.high)}]"


def _signed(seconds: float) -> str:
    return f"{'+' if seconds > 0 else '-'}{show_seconds(abs(seconds))}"


def _show_predictions(result: StudyResult, lang: str) -> None:
    """Simulated beside measured; beside emulated it checks what lies between the two, not the prediction."""
    rows: list[tuple[str, ...]] = []
    for variant in result.variants:
        if variant.predicted is None or variant.run is None or not variant.run.info.complete:
            continue
        rows.extend(_prediction_rows(variant.name, variant.predicted, variant.run.summary))
    if rows:
        if result.source is Source.EMULATED:
            columns = ("variant", "", "simulated", "emulated", "difference")
            title = "A check of the plumbing: the simulator, and the emulated engines that it paces"
        else:
            columns = ("variant", "", "predicted", "measured", "prediction's error")
            title = "What the simulator had said"
        show_table(title, columns, rows, numbers=(2, 3, 4))
        show_bands({v.name: v.relative_band for v in result.variants if v.predicted is not None}, lang)


def _prediction_rows(name: str, predicted: Summary, measured: Summary) -> Iterator[tuple[str, ...]]:
    pairs = {
        "TTFT p50": (predicted.ttft_s.p50, measured.ttft_s.p50),
        "TPOT p50": (predicted.tpot_s.p50, measured.tpot_s.p50),
        "E2E p50": (predicted.e2e_s.p50, measured.e2e_s.p50),
    }
    for measure, (said, found) in pairs.items():
        error = f"{said / found - 1:+.1%}" if said is not None and found else "-"
        yield name, measure, show_seconds(said), show_seconds(found), error
        name = ""


def study_document(result: StudyResult) -> dict[str, Any]:
    """The result as plain data for --json."""
    return {
        "study": result.study.name,
        "engine": result.engine,
        "source": result.source,
        "folder": str(result.folder),
        "baseline": result.study.baseline_name,
        "ranking": [
            {
                "place": place.place,
                "name": place.name,
                "shared": place.shared,
                "against_best": place.against_best,
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
                "source": variant.run.info.source if variant.run is not None else None,
                "band": variant.band,
                "predicted": variant.predicted,
                "predicted_band": variant.predicted_band,
            }
            for variant in result.variants
        ],
    }
