"""What a run carries a second: requests and tokens of the stretches in which requests were sent."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from atoll.analyse.window import Mask, Window
from atoll.traffic.record import Floats, Outcome, RecordTable


@dataclass(frozen=True, kw_only=True, slots=True)
class Rates:
    output_tokens_per_s: float
    total_tokens_per_s: float
    requests_per_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Amounts:
    """What each row has of what rates are made of, and the seconds that it is divided by."""

    output: Floats
    prompt: Floats
    served: Floats  # requests, those in parts whose answer lies in the stretch in part
    seconds: float

    def rates(self, rows: Mask) -> Rates:
        output = per_second(float(self.output[rows].sum()), self.seconds)
        return Rates(
            output_tokens_per_s=output,
            total_tokens_per_s=output + per_second(float(self.prompt[rows].sum()), self.seconds),
            requests_per_s=per_second(float(self.served[rows].sum()), self.seconds),
        )


def amounts_of(
    table: RecordTable, ok: Mask, *, chosen: Mask, e2e_s: Floats, window: Window, duration: float
) -> Amounts:
    """Of the stretches in which requests were sent; of the whole time where they are shorter than an answer."""
    stretches = _stretches(table, chosen, window)
    seconds = sum(end - start for start, end in stretches)
    if not ok.any() or seconds < float(np.nanmedian(e2e_s[ok])):
        served = ok.astype(np.float64)
        return Amounts(
            output=served * table.output_tokens, prompt=served * table.prompt_tokens, served=served, seconds=duration
        )
    part = _part_within(table, stretches)
    done = np.array(table.outcome, dtype=object) == Outcome.OK
    return Amounts(
        output=part * table.output_tokens,
        prompt=np.where(done, part * table.prompt_tokens, 0.0),
        served=np.where(done, part, 0.0),
        seconds=seconds,
    )


def _stretches(table: RecordTable, chosen: Mask, window: Window) -> list[tuple[float, float]]:
    """Of each span of the window, from its first sending to its last."""
    found = []
    for start, end in window.spans:
        sent = table.sent_s[chosen & (table.sent_s >= start) & (table.sent_s < end)]
        if len(sent):
            found.append((float(sent.min()), float(sent.max())))
    return found


def _within(times: Floats, stretches: Sequence[tuple[float, float]]) -> Mask:
    inside = np.zeros(len(times), dtype=np.bool_)
    for start, end in stretches:
        inside |= (times >= start) & (times < end)
    return inside


def _part_within(table: RecordTable, stretches: Sequence[tuple[float, float]]) -> Floats:
    """The part of each row's answer that arrived in the stretches, 0 to 1: by its chunks, or where only its first and
    last token are known by the time between them.
    """
    in_window = np.concatenate([[0], np.cumsum(_within(table.token_clock, stretches))])
    lengths = table.span_stop - table.span_start
    chunks = np.bincount(table.span_row, lengths, minlength=len(table))
    inside = np.bincount(table.span_row, in_window[table.span_stop] - in_window[table.span_start], minlength=len(table))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(chunks > 0, inside / chunks, _share_of_time(table, stretches))


def _share_of_time(table: RecordTable, stretches: Sequence[tuple[float, float]]) -> Floats:
    """The part of the time from each row's first to its last token that lies in the stretches; 0 where that is none."""
    first, last = table.first_token_s, table.last_token_s
    inside = np.zeros(len(table))
    for start, end in stretches:
        inside += np.clip(np.minimum(last, end) - np.maximum(first, start), 0.0, None)
    return np.nan_to_num(inside / (last - first), posinf=0.0)


def per_second(amount: float, duration: float) -> float:
    return amount / duration if duration > 0 else 0.0
