"""What a report says, in English and in Korean: labels, and the finding in sentences."""

import tomllib
from collections.abc import Sequence
from functools import cache
from importlib import resources

from atoll.analyse.band import Band
from atoll.analyse.compare import Comparison, Difference, Verdict
from atoll.analyse.rank import FELT_S, Place
from atoll.analyse.summary import Summary
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.report.view import RunView, StudyView
from atoll.traffic.record import Source
from atoll.units import show_seconds

Words = dict[str, str]
LANGUAGES = ("en", "ko")


@cache
def _read_language(lang: str) -> dict[str, Words]:
    if lang not in LANGUAGES:
        raise InputError(f"--lang {lang} is not one of {', '.join(LANGUAGES)}.")
    text = resources.files("atoll.report").joinpath(f"templates/{lang}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def words_in(lang: str) -> Words:
    """The labels of a language.

    Raises:
        InputError: neither `en` nor `ko`.
    """
    return _read_language(lang)["labels"]


def tell_verdict(view: StudyView, *, lang: str = "en") -> tuple[str, ...]:
    """The finding: which layout wins, by how much and how surely; then what went wrong. One sentence each."""
    say = _read_language(lang)["sentences"]
    return (*_tell_ranking(view, say), *_tell_failures(view, say))


def _tell_ranking(view: StudyView, say: Words) -> list[str]:
    runs = view.measured_runs
    if not runs:
        return [say["none"]]
    first = runs[0]
    if len(view.ranking) < 2 or first.summary is None:
        return [*_tell_alone(first, say), *_tell_prediction(view, first, say)]
    best = [place.name for place in view.ranking if place.place == 1]
    if len(best) > 1:
        told = [_tell_tie(best, view, say), _fill(say["alone"], first.summary, name=first.name)]
    else:
        told = [_fill(say["best"], first.summary, best=first.name)]
    told += _tell_against_baseline(view, first, say)
    told += _tell_next(view, first, say)
    return told + _tell_prediction(view, first, say)


def _tell_tie(names: Sequence[str], view: StudyView, say: Words) -> str:
    kind = "tie_predicted" if view.source is Source.SIMULATED else "tie"
    return say[kind].format(best=", ".join(names))


def _tell_alone(run: RunView, say: Words) -> list[str]:
    assert run.summary is not None
    rate = say["rate_alone"].format(rate=f"{_rate(run.summary):,.0f}")
    return [_fill(say["alone"], run.summary, name=run.name), rate]


def _fill(sentence: str, summary: Summary, **names: str) -> str:
    return sentence.format(p95=show_seconds(summary.ttft_s.p95), p50=show_seconds(summary.ttft_s.p50), **names)


def _tell_against_baseline(view: StudyView, best: RunView, say: Words) -> list[str]:
    place = _place(view, best.name)
    if place.against_baseline is None:  # the best is the baseline itself
        return []
    told = [tell_difference(place.against_baseline, say=say)]
    base = view.run(place.against_baseline.first)
    if best.summary is not None and base.summary is not None and _rate(base.summary) > 0:
        share = _rate(best.summary) / _rate(base.summary)
        rate, base_rate = f"{_rate(best.summary):,.0f}", f"{_rate(base.summary):,.0f}"
        told.append(say["rate"].format(rate=rate, base=base.name, base_rate=base_rate, share=f"{share:.0%}"))
    return told + _tell_answers(view, best, base, say)


def _tell_answers(view: StudyView, best: RunView, base: RunView, say: Words) -> list[str]:
    """How long whole answers take against the baseline; and how much of that is the engine, how much the layout."""
    best_s, base_s = _answer_s(best), _answer_s(base)
    against = _place(view, best.name).against_baseline
    if best_s is None or base_s is None or against is None:
        return []
    told = [
        say["answer"].format(
            best_answer=show_seconds(best_s),
            base=base.name,
            base_answer=show_seconds(base_s),
            share=f"{best_s / base_s:.0%}",
            band=_tell_ratio(against.ratio, say),
        )
    ]
    corner = _corner(view, best, base)
    if corner is not None and best_s < base_s:
        told.append(_tell_steps(view, best, corner, base, say))
    return told


def _corner(view: StudyView, best: RunView, base: RunView) -> RunView | None:
    """The baseline's split with the best's engine: what lies between two runs that differ in both."""
    if best.layout is None or base.layout is None:
        return None
    if _split(best.layout) == _split(base.layout) or _engine(best.layout) == _engine(base.layout):
        return None
    alike = [
        run
        for run in view.measured_runs
        if run.layout and _split(run.layout) == _split(base.layout) and _engine(run.layout) == _engine(best.layout)
    ]
    return alike[0] if alike and _answer_s(alike[0]) is not None else None


def _split(layout: Layout) -> tuple[tuple[int, int], ...]:
    return tuple((replica.tensor_parallel, replica.pipeline_parallel) for replica in layout.replicas)


def _engine(layout: Layout) -> tuple[object, ...]:
    return layout.engine, layout.engine_version, layout.flags


def _tell_steps(view: StudyView, best: RunView, corner: RunView, base: RunView, say: Words) -> str:
    """From the baseline over the corner to the best, with the band of each step."""
    best_s, corner_s, base_s = (_answer_s(run) or 0.0 for run in (best, corner, base))
    place = _place(view, corner.name)
    engine, back = (None if one is None else one.ratio for one in (place.against_baseline, place.against_best))
    return say["steps"].format(
        total=show_seconds(base_s - best_s),
        engine=_signed(base_s - corner_s),
        layout=_signed(corner_s - best_s),
        base=base.name,
        corner=corner.name,
        best=best.name,
        engine_share=f"{corner_s / base_s:.0%}",
        layout_share=f"{best_s / corner_s:.0%}",
        engine_band=_tell_ratio(engine, say),
        layout_band=_tell_ratio(back, say, inverse=True),
    )


def _tell_ratio(ratio: Band | None, say: Words, *, inverse: bool = False) -> str:
    """The band of how two whole answers compare; nothing where there is none."""
    if ratio is None or ratio.e2e_s is None:
        return ""
    low, high = (1 / ratio.e2e_s[1], 1 / ratio.e2e_s[0]) if inverse else ratio.e2e_s
    kind = "band_unclear" if low <= 1 <= high else "band_clear"
    return say[kind].format(low=f"{low:.0%}", high=f"{high:.0%}")


def _answer_s(run: RunView) -> float | None:
    return None if run.summary is None else run.summary.e2e_s.mean


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "") + show_seconds(abs(seconds))


def _place(view: StudyView, name: str) -> Place:
    return next(place for place in view.ranking if place.name == name)


def tell_difference(comparison: Comparison, *, say: Words | None = None, lang: str = "en") -> str:
    """The wait of the second run against the first, with its interval, in a sentence."""
    say = say or _read_language(lang)["sentences"]
    found = comparison.difference("ttft_s", "p95")
    if found.verdict is Verdict.UNKNOWN or found.low is None or found.high is None:
        return say["none"]
    if found.verdict is Verdict.UNCLEAR:
        low, high = show_seconds(found.low), show_seconds(found.high)
        return say["unclear"].format(best=comparison.second, base=comparison.first, low=low, high=high)
    if found.verdict is Verdict.WITHIN_BAND:
        difference = show_seconds(abs(found.difference or 0.0))
        return say["within"].format(best=comparison.second, base=comparison.first, difference=difference)
    return _tell_clear(comparison.first, found, say)


def _tell_clear(base: str, found: Difference, say: Words) -> str:
    assert found.low is not None
    assert found.high is not None
    assert found.difference is not None
    near, far = sorted((abs(found.low), abs(found.high)))
    factor = f"{found.first / found.second:.1f}" if found.first and found.second else "-"
    sentence = say["sooner"] if found.verdict is Verdict.FASTER else say["later"]
    return sentence.format(
        base=base,
        difference=show_seconds(abs(found.difference)),
        low=show_seconds(near),
        high=show_seconds(far),
        factor=factor,
    )


def _tell_next(view: StudyView, first: RunView, say: Words) -> list[str]:
    """The run-up, and what put it there: its wait, or the pace of its answers where the waits are alike."""
    place = next((place for place in view.ranking if place.place > 1), None)
    if place is None or place.against_best is None:
        return []
    run = view.run(place.name)
    assert run.summary is not None
    assert first.summary is not None
    if not _is_felt(place.against_best.difference("ttft_s", "p95")):
        paces = [show_seconds(one.tpot_s.p50) for one in (first.summary, run.summary)]
        return [say["pace"].format(best=first.name, name=run.name, best_pace=paces[0], pace=paces[1])]
    return [_fill(say["next"], run.summary, name=run.name)]


def _is_felt(found: Difference) -> bool:
    return found.verdict is Verdict.SLOWER and found.difference is not None and found.difference >= FELT_S


def _tell_prediction(view: StudyView, run: RunView, say: Words) -> list[str]:
    if run.predicted is None or run.summary is None:
        return []
    predicted, measured = show_seconds(run.predicted.ttft_s.p95), show_seconds(run.summary.ttft_s.p95)
    kind = "plumbing" if view.source is Source.EMULATED else "gap"
    return [say[kind].format(name=run.name, predicted=predicted, measured=measured)]


def _tell_failures(view: StudyView, say: Words) -> list[str]:
    told = []
    for run in view.runs:
        if run.failure is not None:
            told.append(say["did_not_run"].format(name=run.name, why=run.failure))
        elif run.summary is not None and run.summary.requests.failed:
            counts = run.summary.requests
            told.append(say["failed"].format(name=run.name, count=f"{counts.failed:,}", sent=f"{counts.sent:,}"))
    return told + _tell_doubts(view, say)


def _tell_doubts(view: StudyView, say: Words) -> list[str]:
    """What to know before trusting the figures: runs that were too short, users that march in step."""
    found = [run for run in view.runs if run.summary is not None]
    short = [run.name for run in found if run.summary is not None and run.summary.too_short]
    marching = [run.name for run in found if run.summary is not None and run.summary.marches_in_step]
    return [
        say[sentence].format(names=", ".join(names))
        for sentence, names in (("too_short", short), ("in_step", marching))
        if names
    ]


def tell_place(places: Sequence[Place], name: str) -> str:
    """`1`, or `=1` where several share it; a dash for a run that has none."""
    place = next((place for place in places if place.name == name), None)
    return "-" if place is None else f"={place.place}" if place.shared else str(place.place)


def tell_load(view: StudyView, *, lang: str = "en") -> str:
    """The workload in a line."""
    words, load = words_in(lang), view.workload
    if load is None:
        return "-"
    parts = []
    if load.users is not None:
        parts.append(words["users"].format(users=load.users))
    elif load.rate is not None:
        parts.append(words["arrivals"].format(rate=load.rate, kind=load.arrivals))
    if "trace" in (load.prompt.kind, load.output.kind):
        word = "replayed" if load.users is None and load.rate is None else "from_trace"
        parts.append(words[word].format(trace=load.trace or "").replace("  ", " ").strip())
    else:
        parts.append(words["lengths"].format(prompt=f"{load.prompt.mean:,.0f}", output=f"{load.output.mean:,.0f}"))
    if load.duration_s is not None:
        parts.append(words["for_seconds"].format(duration=show_seconds(load.duration_s)))
    if load.requests is not None:
        parts.append(words["for_requests"].format(requests=f"{load.requests:,}"))
    if load.warmup_s:
        parts.append(words["warm_up"].format(warmup=show_seconds(load.warmup_s)))
    return ", ".join(parts)


def _rate(summary: Summary) -> float:
    return summary.output_tokens_per_s
