"""What engines and cards said of themselves while the load ran: KV cache, queue, use and watts of each replica."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from atoll.layout.layout import Layout
from atoll.report.vega import Spec, axis, layer, line, panel, replica_colour, short
from atoll.report.view import RunView, StudyView
from atoll.report.words import Words
from atoll.traffic.record import Floats

MOST_RUNS = 4  # the best ones; four counters each are sixteen panels
_STEPS = 90  # points of a line
_SHORTEST_S = 1e-6


@dataclass(frozen=True, kw_only=True, slots=True)
class _Counter:
    name: str
    share: bool = False  # between 0 and 1
    peaks: bool = False  # of the samples that fall on one point the highest is drawn, else their mean
    of_cards: bool = False  # sampled by the card
    summed: bool = False  # over the cards of a replica; else their mean


_COUNTERS = (
    _Counter(name="kv_usage", share=True, peaks=True),
    _Counter(name="waiting", peaks=True),
    _Counter(name="utilization", share=True, of_cards=True),
    _Counter(name="power_w", of_cards=True, summed=True),
)
Lines = Mapping[int, tuple[Floats, Floats]]  # replica -> seconds and values


def telemetry_panels(view: StudyView, words: Words) -> list[Spec]:
    """A panel a counter and run, a line a replica; the panels of one counter share their scale."""
    runs = view.measured_runs[:MOST_RUNS]
    panels = []
    for counter in _COUNTERS:
        found = {run.name: lines for run in runs if (lines := _lines(run, counter))}
        top = max((float(values.max()) for lines in found.values() for _, values in lines.values()), default=0.0)
        if top <= 0:
            continue  # no request ever waited, or a card that tells no watts
        end = max(_SHORTEST_S, *(float(times[-1]) for lines in found.values() for times, _ in lines.values()))
        x = axis("t", words["time_axis"], domain=[0, end])
        y = axis(
            "n", words[f"{counter.name}_axis"], domain=[0, 1 if counter.share else 1.1 * top],
            format_=".0%" if counter.share else None,
        )  # fmt: skip
        alone = len(view.measured_runs) == 1
        panels += [_panel("" if alone else name, counter, lines, (x, y), words) for name, lines in found.items()]
    return panels


def never_waited(view: StudyView) -> bool:
    """Whether queues were watched and no request was ever seen in one."""
    waited = next(counter for counter in _COUNTERS if counter.name == "waiting")
    lines = [lines for run in view.measured_runs[:MOST_RUNS] if (lines := _lines(run, waited))]
    return bool(lines) and all(values.max() <= 0 for one in lines for _, values in one.values())


def _panel(run: str, counter: _Counter, lines: Lines, axes: tuple[Spec, Spec], words: Words) -> Spec:
    x, y = axes
    layers = [
        layer({"t": short(times), "n": short(values)}, line(replica_colour(place), width=1.4), x=x, y=y)
        for place, (times, values) in lines.items()
    ]
    highest = max(float(values.max()) for _, values in lines.values())
    mean = [float(values.mean()) for _, values in lines.values()]
    said = words[f"{counter.name}_said"].format(
        highest=f"{highest:.0%}" if counter.share else f"{highest:,.0f}",
        mean=f"{np.mean(mean):.0%}" if counter.share else f"{sum(mean):,.0f}",
    )
    return panel(" · ".join(part for part in (words[counter.name], run) if part), said, layers)


def _lines(run: RunView, counter: _Counter) -> Lines:
    """The samples of a counter by the replica; of cards that no replica has, or without a layout, by the card."""
    told = run.telemetry
    if told is None or not len(told["time_s"]):
        return {}
    rows: dict[int, dict[str, list[tuple[float, float]]]] = {}
    owner = _owners(run.layout) if counter.of_cards else {}
    kind = "gpu" if counter.of_cards else "replica"
    for moment, source, name, value in zip(told["time_s"], told["source"], told["name"], told["value"], strict=True):
        if name != counter.name or not source.startswith(f"{kind} "):
            continue
        number = int(source.split()[1])
        place = owner.get(number) if owner else number
        if place is not None:
            rows.setdefault(place, {}).setdefault(source, []).append((float(moment), float(value)))
    end = max((moments[-1][0] for parts in rows.values() for moments in parts.values()), default=0.0)
    return {place: _joined(list(rows[place].values()), counter, end) for place in sorted(rows)}


def _owners(layout: Layout | None) -> dict[int, int]:
    replicas = () if layout is None else layout.replicas
    return {gpu: place for place, replica in enumerate(replicas) for gpu in replica.gpus}


def _joined(parts: list[list[tuple[float, float]]], counter: _Counter, end: float) -> tuple[Floats, Floats]:
    """One line of the samples of a replica's sources."""
    lines = [_thinned(np.array(part), counter, end) for part in parts]
    times = lines[0][0]
    values = np.array([np.interp(times, *one) for one in lines])
    return times, values.sum(axis=0) if counter.summed else values.mean(axis=0)


def _thinned(samples: Any, counter: _Counter, end: float) -> tuple[Floats, Floats]:
    times, values = samples[:, 0], samples[:, 1]
    if len(times) <= _STEPS:
        return times, values
    bins = np.minimum((times / max(end, _SHORTEST_S) * _STEPS).astype(np.int64), _STEPS - 1)
    taken = [np.flatnonzero(bins == number) for number in np.unique(bins)]
    pick = np.max if counter.peaks else np.mean
    return np.array([times[rows].mean() for rows in taken]), np.array([pick(values[rows]) for rows in taken])
