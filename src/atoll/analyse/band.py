"""How far a predicted mean may lie from a measured one: an interval that holds four of five measurements.

A band is known where something like it was measured (cost/band.py says where). It is kept relative, around one, until
there are figures to put it around; and so is the band of a ratio, how two runs compare.
"""

from collections.abc import Mapping

from atoll.analyse.summary import Summary
from atoll.documents import Document

COVERAGE = 0.8
MEASURES = ("ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s")

Interval = tuple[float, float]


class Band(Document):
    """Low and high of each mean, seconds and tokens per second; or relative, around 1. None: not known."""

    ttft_s: Interval | None = None
    tpot_s: Interval | None = None
    e2e_s: Interval | None = None
    output_tokens_per_s: Interval | None = None
    coverage: float = COVERAGE  # the share of measurements that lie inside
    family: str | None = None  # what was measured; None: nothing that is like it
    borrowed: bool = False  # from a relative of the family, twice as wide
    one_source: bool = False  # nobody else measured the like: wider by a quarter

    def of(self, measure: str) -> Interval | None:
        """One measure's interval, by its name in MEASURES."""
        found: Interval | None = getattr(self, measure)
        return found

    def inverse(self) -> "Band":
        """The band of the inverse ratio."""
        turned = {name: None if (one := self.of(name)) is None else (1 / one[1], 1 / one[0]) for name in MEASURES}
        return self.replace(**turned)

    def around(self, figures: Mapping[str, float | None]) -> "Band":
        """This relative band around figures; a figure that is missing has none.

        A relative band of 0.8 to 1.25 around a TPOT of 20 ms is 16 to 25 ms.
        """
        return self.replace(**{measure: _times(self.of(measure), figures.get(measure)) for measure in MEASURES})

    def around_means(self, summary: Summary) -> "Band":
        """This relative band around a summary's means."""
        return self.around(means_of(summary))


def means_of(summary: Summary) -> dict[str, float | None]:
    """The figures that a band is around."""
    return {
        "ttft_s": summary.ttft_s.mean,
        "tpot_s": summary.tpot_s.mean,
        "e2e_s": summary.e2e_s.mean,
        "output_tokens_per_s": summary.output_tokens_per_s,
    }


def ratios_of(first: Mapping[str, float | None], second: Mapping[str, float | None]) -> dict[str, float | None]:
    """Second over first, measure by measure; None where either is missing or the first is 0."""
    found: dict[str, float | None] = {}
    for measure in MEASURES:
        base, other = first.get(measure), second.get(measure)
        found[measure] = other / base if base and other is not None else None
    return found


def spans_one(interval: Interval | None) -> bool:
    """Whether a ratio of 1, no difference, lies inside; what is not known says nothing against it."""
    return interval is None or interval[0] <= 1 <= interval[1]


def _times(interval: Interval | None, figure: float | None) -> Interval | None:
    if interval is None or figure is None:
        return None
    return interval[0] * figure, interval[1] * figure


_WORDS = {"ttft_s": "TTFT", "tpot_s": "TPOT", "e2e_s": "E2E", "output_tokens_per_s": "tokens/s"}


def tell_bands(relative: Mapping[str, Band | None]) -> list[str]:
    """Bands around 1 in sentences, those that are alike in one: `Band of 2xTP2 (hopper-scaled dense): TTFT -15/+22 %`.

    Args:
        relative: by the name of what was predicted; None where no band is known.
    """
    named: dict[Band | None, list[str]] = {}
    for name, band in relative.items():
        named.setdefault(band, []).append(name)
    told = [_tell(", ".join(names), band) for band, names in named.items()]
    if any(band is not None for band in named):
        told.append(f"{COVERAGE:.0%} of measurements lie inside the band of a predicted mean.")
    return told


def _tell(names: str, band: Band | None) -> str:
    if band is None:
        return f"{names}: no band is known; nothing like it was measured."
    borrowed = ", borrowed from a relative" if band.borrowed else ""
    borrowed += ", one source alone" if band.one_source else ""
    parts = ", ".join(f"{word} {tell_interval(band.of(measure))}" for measure, word in _WORDS.items())
    return f"Band of {names} ({band.family}{borrowed}): {parts}."


def tell_interval(relative: Interval | None) -> str:
    """`-15/+22 %` of an interval around 1."""
    if relative is None:
        return "not known"
    return f"{relative[0] - 1:+.0%}/{relative[1] - 1:+.0%}".replace("%/", "/").replace("%", " %")
