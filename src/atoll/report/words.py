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
from atoll.report.message import (
    Measure,
    Message,
    alike_but_balancing,
    engine_of,
    find_message,
    split_of,
)
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
    message = find_message(view)
    told = [] if message is None else [_tell_message(message, say), *_tell_steps(view, message, say)]
    told += _tell_company(view, first, message, say)
    told += _tell_against_baseline(view, first, message, say)
    told += _tell_next(view, first, say)
    return told + _tell_prediction(view, first, say)


def _tell_message(message: Message, say: Words) -> str:
    """Two arrangements against each other by the measure that parts them; that none does is a message too."""
    best, other = message.found.second or 0.0, message.found.first or 0.0
    sentence = say[_kind_of(message)].format(
        best=_tell_arrangement(message.best, say),
        other=_tell_arrangement(message.other, say),
        best_figure=show_seconds(best),
        other_figure=show_seconds(other),
        share=f"{abs(best / other - 1):.0%}" if other else "-",
        band=_tell_doubt(message, say),
    )
    return sentence[0].upper() + sentence[1:]


def _kind_of(message: Message) -> str:
    if message.found.verdict is Verdict.UNCLEAR:
        return "headline_alike"
    kind = "within" if message.found.verdict is Verdict.WITHIN_BAND else message.measure
    return f"headline_{kind}_{'sooner' if (message.found.difference or 0) < 0 else 'later'}"


def _tell_doubt(message: Message, say: Words) -> str:
    """How far off a predicted ratio of answers may be."""
    if message.measure is Measure.WAIT:
        return ""
    known = _tell_ratio(message.comparison.ratio, say)
    return known or (say["band_unknown"] if message.found.verdict is Verdict.WITHIN_BAND else "")


def _tell_arrangement(run: RunView, say: Words) -> str:
    """`two replicas of two cards each (2xTP2)`; the name alone where that is shorter than saying it."""
    assert run.layout is not None
    split = split_of(run.layout)
    tensor, pipeline = split[0]
    if len(set(split)) > 1 or pipeline > 1:
        return say["arranged_otherwise"].format(name=run.name)
    counts, count = say["counts"].split(), len(split)
    kind = "arranged" + ("_many" if count > 1 else "_one") + ("_single" if tensor == 1 else "")
    if count == 1 and tensor > 1 and tensor == len(run.layout.box.gpus):
        kind = "arranged_all"
    return say[kind].format(count=_count(count, counts), cards=_count(tensor, counts), name=run.name)


def _count(number: int, words: Sequence[str]) -> str:
    return words[number - 1] if number <= len(words) else str(number)


def _tell_company(view: StudyView, first: RunView, message: Message | None, say: Words) -> list[str]:
    """Who shares the first place: ways of balancing that make no difference, then the others; and how long it waits."""
    best = [place.name for place in view.ranking if place.place == 1]
    alike = [run for run in alike_but_balancing(view, first) if run.name in best]
    policies = dict.fromkeys(str(run.layout.router.policy) for run in alike if run.layout)
    told, said = [], {first.name} | ({message.other.name} if message else set())
    if len(policies) > 1:
        told.append(say["balancing"].format(policies=", ".join(policies)))
        said |= {run.name for run in alike}
    others = [name for name in best if name not in said]
    if others:
        kind = "tie_predicted" if view.source is Source.SIMULATED else "tie"
        told.append(say[kind].format(best=first.name, names=", ".join(others)))
    assert first.summary is not None
    alone = "alone" if told or message else "best"
    return [*told, _fill(say[alone], first.summary, name=first.name)]


def _tell_alone(run: RunView, say: Words) -> list[str]:
    assert run.summary is not None
    rate = say["rate_alone"].format(rate=f"{_rate(run.summary):,.0f}")
    return [_fill(say["alone"], run.summary, name=run.name), rate]


def _fill(sentence: str, summary: Summary, **names: str) -> str:
    return sentence.format(p95=show_seconds(summary.ttft_s.p95), p50=show_seconds(summary.ttft_s.p50), **names)


def _tell_against_baseline(view: StudyView, best: RunView, message: Message | None, say: Words) -> list[str]:
    """Waits, tokens and answers beside the baseline's, but for what the message has said."""
    place = view.place(best.name)
    against = None if place is None else place.against_baseline
    if against is None:  # the best is the baseline itself
        return []
    said = message.measure if message is not None and message.other.name == against.first else None
    told = []
    if said is None or against.difference("ttft_s", "p95").is_clear:
        told.append(tell_difference(against, say=say))
    base = view.run(against.first)
    if best.summary is not None and base.summary is not None and _rate(base.summary) > 0:
        share = _rate(best.summary) / _rate(base.summary)
        rate, base_rate = f"{_rate(best.summary):,.0f}", f"{_rate(base.summary):,.0f}"
        told.append(say["rate"].format(rate=rate, base=base.name, base_rate=base_rate, share=f"{share:.0%}"))
    return told if said is Measure.ANSWER else [*told, *_tell_answers(best, base, against, say)]


def _tell_answers(best: RunView, base: RunView, against: Comparison, say: Words) -> list[str]:
    """How long whole answers take against the baseline."""
    best_s, base_s = _answer_s(best), _answer_s(base)
    if best_s is None or base_s is None:
        return []
    return [
        say["answer"].format(
            best_answer=show_seconds(best_s),
            base=base.name,
            base_answer=show_seconds(base_s),
            share=f"{best_s / base_s:.0%}",
            band=_tell_ratio(against.ratio, say),
        )
    ]


def _corner(view: StudyView, best: RunView, base: RunView) -> RunView | None:
    """The baseline's split with the best's engine: what lies between two runs that differ in both."""
    if best.layout is None or base.layout is None or engine_of(best.layout) == engine_of(base.layout):
        return None
    wanted = split_of(base.layout), engine_of(best.layout)
    alike = [
        run for run in view.measured_runs if run.layout and (split_of(run.layout), engine_of(run.layout)) == wanted
    ]
    return alike[0] if alike and _answer_s(alike[0]) is not None else None


def _tell_steps(view: StudyView, message: Message, say: Words) -> list[str]:
    """What of the message's difference is the engine and what the layout, with the band of each step."""
    best, base = message.best, message.other
    corner = _corner(view, best, base)
    best_s, base_s = _answer_s(best), _answer_s(base)
    if corner is None or best_s is None or base_s is None or best_s >= base_s or message.measure is Measure.WAIT:
        return []
    corner_s = _answer_s(corner) or 0.0
    place = view.place(corner.name)
    assert place is not None
    engine, back = (None if one is None else one.ratio for one in (place.against_baseline, place.against_best))
    return [
        say["steps"].format(
            total=show_seconds(base_s - best_s),
            engine=_signed(base_s - corner_s),
            layout=_signed(corner_s - best_s),
            base=base.name,
            corner=corner.name,
            best=best.name,
            engine_share=f"{corner_s / base_s:.0%}",
            layout_share=f"{best_s / corner_s:.0%}",
            engine_band=_tell_ratio(engine, say),
            layout_band=_tell_ratio(None if back is None else back.inverse(), say),
        )
    ]


def _tell_ratio(ratio: Band | None, say: Words) -> str:
    """The band of how two whole answers compare; nothing where there is none."""
    if ratio is None or ratio.e2e_s is None:
        return ""
    low, high = ratio.e2e_s
    kind = "band_unclear" if low <= 1 <= high else "band_clear"
    return say[kind].format(low=f"{low:.0%}", high=f"{high:.0%}")


def _answer_s(run: RunView) -> float | None:
    return None if run.summary is None else run.summary.e2e_s.mean


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "") + show_seconds(abs(seconds))


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


def tell_place(place: Place | None) -> str:
    """`1`, or `=1` where several share it; a dash for a run that has none."""
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
