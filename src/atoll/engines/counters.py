"""What an engine's /metrics page says: the one reader of Prometheus text."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import cache
from math import isfinite
from statistics import fmean


@dataclass(frozen=True, kw_only=True)
class CounterNames:
    """An engine's Prometheus metrics by what they count; newest first, and the first that a page shows is taken."""

    running: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    kv_usage: tuple[str, ...] = ()
    preemptions: tuple[str, ...] = ()
    prefix_hits: tuple[str, ...] = ()
    prefix_queries: tuple[str, ...] = ()
    prompt_tokens: tuple[str, ...] = ()
    output_tokens: tuple[str, ...] = ()

    def __add__(self, other: "CounterNames") -> "CounterNames":
        """For a server of which it is not known which engine it is."""
        mine, theirs = asdict(self), asdict(other)
        return CounterNames(**{key: tuple(dict.fromkeys((*mine[key], *theirs[key]))) for key in mine})


@dataclass(frozen=True, kw_only=True, slots=True)
class HistogramNames:
    """An engine's Prometheus histograms of seconds, without `_bucket`; newest first."""

    first_token: tuple[str, ...] = ()  # from a request's arrival to its first token
    token_gap: tuple[str, ...] = ()  # between two tokens
    first_token_bounds: tuple[float, ...] = ()  # of its buckets
    token_gap_bounds: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Counters:
    """An engine's counters at one moment; None is what the page does not show. Counts are since the engine's start."""

    running: float | None = None  # requests
    waiting: float | None = None
    kv_usage: float | None = None  # 0 to 1
    preemptions: float | None = None
    prefix_hits: float | None = None  # tokens
    prefix_queries: float | None = None  # tokens
    prompt_tokens: float | None = None
    output_tokens: float | None = None

    def known(self) -> dict[str, float]:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in values if value is not None}


def read_counters(page: str, names: CounterNames) -> Counters:
    """The counters on a page, text or OpenMetrics; a page of something else has none.

    What several engines behind one page say is summed up, and for `kv_usage`, a share, the mean is taken. Time stamps
    and exemplars are passed over, and so are lines that cannot be read and values that are no finite number.
    """
    wanted = {key: tuple(map(_plain, metrics)) for key, metrics in asdict(names).items()}
    found: dict[str, list[float]] = {}
    for metric, value in _samples(page, _starts(names)):
        found.setdefault(_plain(metric), []).append(value)
    shown = {key: next((found[one] for one in metrics if one in found), None) for key, metrics in wanted.items()}
    return Counters(
        **{key: (fmean if key == "kv_usage" else sum)(values) for key, values in shown.items() if values is not None}
    )


def _plain(metric: str) -> str:
    """OpenMetrics pages, and what passed through a collector, say vllm_num_requests_running."""
    return metric.replace(":", "_")


@cache
def _starts(names: CounterNames) -> tuple[str, ...]:
    """How a line may begin that is wanted; `{` begins one whose name stands in quotes."""
    metrics = [metric for metrics in asdict(names).values() for metric in metrics]
    return tuple(dict.fromkeys((*metrics, *map(_plain, metrics), "{"))) if metrics else ()


def _samples(page: str, starts: tuple[str, ...]) -> Iterator[tuple[str, float]]:
    """The parser sees only lines that are wanted: of the 394 that vLLM shows, ten (0.2 ms instead of 4).

    It takes them one by one, without their # TYPE, which says nothing that the names do not.
    """
    lines = [line for line in page.splitlines() if line.startswith(starts)]
    if not lines:
        return
    from prometheus_client.parser import text_string_to_metric_families  # 50 ms; most servers show no such page

    for line in lines:
        try:
            samples = [sample for family in text_string_to_metric_families(line) for sample in family.samples]
        except ValueError:
            continue
        for sample in samples:
            if isfinite(sample.value):
                yield sample.name, float(sample.value)
