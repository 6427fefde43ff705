"""Gates: `failed > 1%`, `ttft_p95 > 250ms`. One that holds makes a run a failed one.

A figure is TTFT, ITL, TPOT or E2E with a statistic (`ttft_p95`, `itl_mean`), `output_tokens_per_s`, `requests_per_s`,
`failed` (of all that were sent) or `good` (within the targets, of all that were measured). A gate whose figure is not
known holds: what was not measured cannot have been kept.
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from atoll.analyse.summary import Summary
from atoll.documents import Document
from atoll.errors import InputError
from atoll.units import parse_seconds, show_seconds

_TIMES = ("ttft", "itl", "tpot", "e2e")
_RATES = ("output_tokens_per_s", "requests_per_s")
_SHARES = ("failed", "good")
_GATE = re.compile(r"\s*([a-z0-9_.]+)\s*(<=|>=|<|>)\s*(\S.*?)\s*")
_TIME_FIGURE = re.compile(rf"({'|'.join(_TIMES)})_(mean|max|p(?:\d{{1,2}}(?:\.\d{{1,4}})?))")
_EXAMPLE = "Write it like 'failed > 1%', 'good < 95%' or 'ttft_p95 > 250ms'"


class Kind(StrEnum):
    TIME = "time"
    RATE = "rate"
    SHARE = "share"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """A condition that must not hold."""

    text: str
    figure: str
    kind: Kind
    above: bool  # it holds above the value, else below
    value: float  # seconds, a rate, a share (0 to 1), a number of requests, or a change against the first run
    is_count: bool = False  # of requests, where the figure is a share
    is_change: bool = False  # `+10%`, against the first run; of a share in points

    @property
    def measure(self) -> str:
        """`ttft_s`, or the figure itself."""
        return f"{self.figure.partition('_')[0]}_s" if self.kind is Kind.TIME else self.figure

    @property
    def statistic(self) -> str:
        """`p95`; of what is no time, nothing."""
        return self.figure.partition("_")[2] if self.kind is Kind.TIME else ""

    @property
    def percentile(self) -> float | None:
        """95 of `ttft_p95`."""
        return float(self.statistic[1:]) if self.statistic[:1] == "p" else None

    def holds_at(self, value: float) -> bool:
        return value > self.value if self.above else value < self.value

    def shown(self, value: float) -> str:
        """A value of this figure, as people read it."""
        if self.is_change:
            return f"{value:+.1%}" if self.kind is not Kind.SHARE else f"{value * 100:+.1f} points"
        if self.kind is Kind.TIME:
            return show_seconds(value)
        if self.kind is Kind.SHARE and not self.is_count:
            return f"{value:.1%}"
        return f"{value:,.4g}"


class Judgement(Document):
    """What became of a gate."""

    gate: str
    holds: bool
    value: float | None  # None: not known
    sentence: str


def parse_gate(text: str, *, of_two: bool = False) -> Gate:
    """Read a gate.

    Args:
        text: FIGURE OP VALUE.
        of_two: of two runs, whose second may be held against the first: `+10%`.

    Raises:
        InputError: it is none; the sentence says which part.
    """
    match = _GATE.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no gate. {_EXAMPLE}.")
    figure, operator, said = match.groups()
    if operator in {"<=", ">="}:
        raise InputError(f"{text!r}: a gate has < or >. {_EXAMPLE}.")
    kind = _kind_of(figure, text)
    bare = Gate(text=" ".join(text.split()), figure=figure, kind=kind, above=operator == ">", value=0.0)
    change = re.fullmatch(r"([+-]\d+(?:\.\d+)?)\s*%", said)
    if change is not None:
        if not of_two:
            raise InputError(
                f"{text!r}: {said} is a change against another run, which `atoll compare` knows. {_EXAMPLE}."
            )
        return replace(bare, value=float(change[1]) / 100, is_change=True)
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", said)
    if percent is not None:
        if kind is not Kind.SHARE:
            raise InputError(f"{text!r}: {figure} is no share, so that {said} means nothing. {_EXAMPLE}.")
        return replace(bare, value=float(percent[1]) / 100)
    if kind is Kind.TIME:
        return replace(bare, value=_seconds(said, text))
    if not re.fullmatch(r"\d+(?:\.\d+)?", said):
        raise InputError(f"{text!r}: {said!r} is no number. {_EXAMPLE}.")
    return replace(bare, value=float(said), is_count=kind is Kind.SHARE)


def _kind_of(figure: str, text: str) -> Kind:
    if _TIME_FIGURE.fullmatch(figure):
        return Kind.TIME
    if figure in _RATES:
        return Kind.RATE
    if figure in _SHARES:
        return Kind.SHARE
    statistics = "mean, p50, p90, p95 or p99"
    raise InputError(
        f"{text!r}: no figure is called {figure}. There are {', '.join(_TIMES)} with {statistics} (ttft_p95),"
        f" {', '.join((*_RATES, *_SHARES))}."
    )


def _seconds(said: str, text: str) -> float:
    try:
        return parse_seconds(said)
    except InputError:
        raise InputError(f"{text!r}: {said!r} is no time. {_EXAMPLE}.") from None


def figure_of(summary: Summary, gate: Gate) -> float | None:
    """The gate's figure of a run; None where it is not known."""
    if gate.kind is Kind.TIME:
        return getattr(summary, gate.measure).get(gate.statistic)  # type: ignore[no-any-return]
    if gate.kind is Kind.RATE:
        return float(getattr(summary, gate.figure))
    if gate.figure == "good":
        goodput = summary.goodput
        return None if goodput is None else float(goodput.good) if gate.is_count else goodput.share
    failed, sent = summary.requests.failed, summary.requests.sent
    return float(failed) if gate.is_count else failed / sent if sent else None


def judge(summary: Summary, gate: Gate) -> Judgement:
    """Whether a gate holds of a run, and its sentence."""
    value = figure_of(summary, gate)
    if value is None:
        return Judgement(
            gate=gate.text, holds=True, value=None, sentence=f"{gate.figure} is not known: {_why(summary, gate)}."
        )
    holds = gate.holds_at(value)
    wanted = f"{'not above' if gate.above else 'not below'} {gate.shown(gate.value)}"
    return Judgement(
        gate=gate.text,
        holds=holds,
        value=value,
        sentence=f"{gate.figure} is {gate.shown(value)}, {'and has to be ' if holds else ''}{wanted}.",
    )


def _why(summary: Summary, gate: Gate) -> str:
    if gate.figure == "good" and summary.goodput is None:
        return "there is no target; give --slo-ttft or --slo-tpot"
    return "not one request was answered" if not summary.requests.ok else "the answers do not tell it"


def refuse_without_target(gates: tuple[Gate, ...], *, has_target: bool) -> None:
    """Raises InputError for a gate of what is within the targets, where there is none."""
    for gate in gates:
        if gate.figure == "good" and not has_target:
            raise InputError(f"{gate.text!r} needs a target. Give --slo-ttft, --slo-tpot or both.")
