"""The message of a study as a picture: both layouts on their box, and bars of what changes between them."""

from dataclasses import dataclass

from markupsafe import Markup

from atoll.analyse.band import spans_one
from atoll.analyse.compare import Comparison, Difference, Verdict
from atoll.report.drawing import draw_layout
from atoll.report.message import Message
from atoll.report.view import RunView
from atoll.report.words import Words
from atoll.units import show_seconds

_PARTS = (("e2e_s", "mean", "e2e_mean"), ("ttft_s", "p95", "ttft_p95"), ("tpot_s", "mean", "tpot_mean"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Bar:
    """One measure of both runs: text, share of the longer one's width, and whether the change is for the better."""

    label: str
    before: str
    after: str
    before_width: float  # per cent of the row
    after_width: float
    change: str  # `-15%`
    kind: str  # "good", "bad", "" where nothing tells them apart


@dataclass(frozen=True, kw_only=True, slots=True)
class Beside:
    """What stands first on the page."""

    before: str
    after: str
    drawings: tuple[Markup, Markup]
    bars: tuple[Bar, ...]


def set_beside(message: Message, words: Words) -> Beside:
    """The other run first, then the best, as one goes from one to the other."""
    bars = [
        _seconds_bar(words[label], message.comparison.difference(measure, statistic))
        for measure, statistic, label in _PARTS
    ]
    return Beside(
        before=message.other.name,
        after=message.best.name,
        drawings=(_draw(message.other, words), _draw(message.best, words)),
        bars=tuple(bar for bar in [*bars, _rate_bar(message, words)] if bar is not None),
    )


def _draw(run: RunView, words: Words) -> Markup:
    assert run.layout is not None
    return draw_layout(run.layout, router_word=words["router"], idle_word=words["idle"])


def _seconds_bar(label: str, found: Difference) -> Bar | None:
    if found.first is None or found.second is None:
        return None
    texts = show_seconds(found.first), show_seconds(found.second)
    return _bar(label, found.first, found.second, texts, kind_of(found))


def _rate_bar(message: Message, words: Words) -> Bar | None:
    before, after = message.other.summary, message.best.summary
    if before is None or after is None:
        return None
    first, second = before.output_tokens_per_s, after.output_tokens_per_s
    kind = kind_of_rates(message.comparison, first, second)
    return _bar(words["rate_axis"], first, second, (f"{first:,.0f}", f"{second:,.0f}"), kind)


def _bar(label: str, first: float, second: float, texts: tuple[str, str], kind: str) -> Bar:
    longest = max(first, second) or 1.0
    return Bar(
        label=label,
        before=texts[0],
        after=texts[1],
        before_width=round(100 * first / longest, 1),
        after_width=round(100 * second / longest, 1),
        change=tell_change(first, second),
        kind=kind,
    )


def kind_of(found: Difference) -> str:
    """The colour of a difference of seconds: "good", "bad", or "" where nothing tells the two apart."""
    return "" if not found.is_clear else "good" if found.verdict is Verdict.FASTER else "bad"


def kind_of_rates(comparison: Comparison, first: float, second: float) -> str:
    """The same of tokens per second, of which there is a band only between predictions."""
    ratio = None if comparison.ratio is None else comparison.ratio.output_tokens_per_s
    clear = ratio is not None and not spans_one(ratio)
    return "" if not clear else "good" if second > first else "bad"


def tell_change(first: float, second: float) -> str:
    """`−15%` of a figure against another; nothing where the first is 0."""
    return f"{second / first - 1:+.0%}".replace("-", "−") if first else ""
