"""What to know before trusting the figures: what was counted, and sentences of it.

Each remark has a short stable word, for whoever reads the JSON, and a number of requests.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from atoll.analyse.hints import hint_of
from atoll.analyse.overload import Overload
from atoll.analyse.window import Mask
from atoll.documents import Document
from atoll.traffic.record import Floats, Outcome, RecordTable
from atoll.traffic.workload import Workload
from atoll.units import show_seconds

_WORTH_SAYING = 0.01  # of the answers
CACHED = 0.01  # of the prompt tokens: from here on the prefix cache is measured as well
_TEMPLATE_TOKENS = 64  # so many tokens may a chat template put before every prompt; engines cache them in blocks
_ODD_USAGE = "odd_usage"
CACHED_PROMPTS = "cached_prompts"
# An answer came in one piece when all its text arrived within this share of its time, faster than any engine writes.
_PIECE_SHARE, _PIECE_TPOT_S = 0.02, 1e-4
_NEAR, _SLACK_TOKENS = 0.2, 64  # how far off a prompt's count may be, and what a chat template adds to a short one


class Failure(Document):
    """One class of failures, and what was said of them."""

    error: str
    count: int
    sentence: str | None = None  # the engine's own, or ours: the most frequent one
    times: int = 0  # how often it was just this one
    hint: str | None = None  # what to do, where it is known

    def __str__(self) -> str:
        """`4 http_422: Extra inputs are not permitted (3 times just so). What to do.`"""
        said = "" if self.sentence is None else f": {self.sentence.rstrip('.')}"
        often = "" if self.times in {0, self.count} else f" ({self.times} times just so)"
        return f"{self.count} {self.error}{said}{often}" + ("" if self.hint is None else f". {self.hint}")


def failures_of(table: RecordTable, rows: Mask) -> tuple[Failure, ...]:
    """Each class of failure with the sentence that was heard most, most frequent class first."""
    said: dict[str, Counter[str]] = {}
    for row in np.flatnonzero(rows):
        if table.outcome[row] == Outcome.FAILED:
            said.setdefault(table.error[row] or "unknown", Counter())[table.detail[row] or ""] += 1
    found = []
    for error, sentences in said.items():
        (sentence, times), count = sentences.most_common(1)[0], sentences.total()
        found.append(
            Failure(
                error=error,
                count=count,
                sentence=sentence or None,
                times=times if sentence else 0,
                hint=hint_of(error, sentence),
            )
        )
    return tuple(sorted(found, key=lambda failure: -failure.count))


def in_one_piece(table: RecordTable) -> Mask:
    """Whose text arrived all at once, so that its first token says nothing of when it was written."""
    spread = table.last_token_s - table.first_token_s
    with np.errstate(invalid="ignore"):
        at_once = (spread <= 0) | (
            (spread < _PIECE_SHARE * (table.last_token_s - table.sent_s))
            & (spread < _PIECE_TPOT_S * (table.output_tokens - 1))
        )
    return at_once & (table.output_tokens > 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """Which rows of a table are meant."""

    sent: Mask  # all that are looked at
    measured: Mask  # of them, those in the measured window
    ok: Mask  # of these, those that were answered

    def answered(self, table: RecordTable) -> Mask:
        """Of all that are looked at, those that were answered."""
        answered: Mask = self.sent & (np.array(table.outcome, dtype=object) == Outcome.OK)
        return answered


@dataclass(frozen=True, kw_only=True, slots=True)
class Remarks:
    """Counts by word, and sentences."""

    counts: dict[str, int]
    sentences: tuple[str, ...]


def remarks_of(
    table: RecordTable, rows: Rows, *, workload: Workload | None, ttft_s: Floats, overload: Overload | None
) -> Remarks:
    """All that is worth a remark.

    Args:
        table: the records.
        rows: which of them.
        workload: the load; None: not known.
        ttft_s: of each row, NaN where there is none.
        overload: see analyse/overload.py.
    """
    counts: dict[str, int] = {}
    sentences: list[str] = []
    for word, count, sentence in _found(table, rows, workload=workload, ttft_s=ttft_s, overload=overload):
        if count:
            counts[word] = counts.get(word, 0) + count
        if sentence is not None:
            sentences.append(sentence)
    return Remarks(counts=counts, sentences=tuple(sentences))


Found = tuple[str, int, str | None]


def _found(
    table: RecordTable, rows: Rows, *, workload: Workload | None, ttft_s: Floats, overload: Overload | None
) -> Iterator[Found]:
    if overload is not None:
        yield (
            "beyond_capacity",
            0,
            (
                f"The server keeps up with {overload.served_per_s:.3g} of {overload.asked_per_s:.3g} requests/s;"
                " latencies grow without end, so that they tell how long the run was, not how fast the server is."
            ),
        )
    yield from _cut(table, rows, ttft_s)
    answered = rows.answered(table)
    yield from _cached(table, answered, workload)
    yield from _lengths(table, answered)
    yield from _pieces(table, answered)
    yield from _usage(table, answered)
    yield from _again(table, rows.sent)


def _cut(table: RecordTable, rows: Rows, ttft_s: Floats) -> Iterator[Found]:
    """Requests that were ended before their answer did: the slowest ones, so the figures are of the faster."""
    cut = rows.measured & (np.array(table.outcome, dtype=object) == Outcome.CANCELLED)
    number, ended = int(cut.sum()), int(rows.ok.sum())
    if number < max(1, _WORTH_SAYING * (number + ended)):
        return
    start = np.where(np.isnan(table.due_s), table.sent_s, table.due_s)
    had = np.where(np.isnan(ttft_s), table.done_s - start, ttft_s)
    values = np.concatenate([ttft_s[rows.ok], had[cut]])
    values = values[~np.isnan(values)]
    at_least = (
        f" Counted with the time that they had, TTFT p95 is at least {show_seconds(float(np.quantile(values, 0.95)))}."
        if len(values)
        else ""
    )
    yield (
        "cut",
        number,
        (
            f"{number} of {number + ended} measured requests were cut before their answer had ended, and those are"
            f" the slow ones: percentiles are of the others alone.{at_least}"
        ),
    )


def _cached(table: RecordTable, ok: Mask, workload: Workload | None) -> Iterator[Found]:
    """Prompt tokens out of the prefix cache, where the load did not ask for prompts that begin alike."""
    cached, prompts = table.cached_tokens[ok], int(table.prompt_tokens[ok].sum())
    share = int(cached.sum()) / prompts if prompts else 0.0
    if may_share(workload) or share < CACHED:
        return
    yield CACHED_PROMPTS, int((cached > 0).sum()), cache_sentence(share, most_tokens=int(cached.max()))


def may_share(workload: Workload | None) -> bool:
    """Whether prompts may begin alike: it was asked for, or is not known."""
    if workload is None:
        return True
    return bool(workload.shared_prefix_tokens) or workload.turns > 1 or workload.distinct_prompts is not None


def cache_sentence(share: float, *, most_tokens: int | None = None) -> str:
    """What is said of a share of prompt tokens out of the prefix cache.

    Args:
        share: of the prompt tokens.
        most_tokens: of one request; None: not known.
    """
    if most_tokens is not None and most_tokens <= _TEMPLATE_TOKENS:
        why = f"{most_tokens} tokens a request, which a chat template alone may give"
    else:
        why = "were these prompts sent before? Another --seed sends others"
    return (
        f"{share:.1%} of the prompt tokens came out of the prefix cache, which nobody asked for: the prefix cache"
        f" is measured too ({why})."
    )


def _lengths(table: RecordTable, ok: Mask) -> Iterator[Found]:
    asked, got = table.asked_output_tokens, table.output_tokens
    told = ok & (asked > 0) & ~table.counted_from_chunks
    for word, other in (("shorter", told & (got < asked)), ("longer", told & (got > asked))):
        number = int(other.sum())
        sentence = None
        if number >= max(1, _WORTH_SAYING * int(ok.sum())):
            sentence = (
                f"{number} of {int(ok.sum())} answers were {word} than asked"
                f" ({np.median(got[other]):.0f} of {np.median(asked[other]):.0f} tokens)."
            )
        yield f"{word}_answers", number, sentence
    asked, got = table.asked_prompt_tokens, table.prompt_tokens
    told = ok & (asked > 0)
    other = told & ((got < (1 - _NEAR) * asked - 8) | (got > (1 + _NEAR) * asked + _SLACK_TOKENS))
    number = int(other.sum())
    sentence = None
    if number >= max(1, _WORTH_SAYING * int(ok.sum())):
        sentence = (
            f"The server counts {np.median(got[other]):.0f} prompt tokens where {np.median(asked[other]):.0f} were"
            f" asked, in {number} of {int(ok.sum())} requests."
        )
    yield "other_prompt_lengths", number, sentence


def _pieces(table: RecordTable, ok: Mask) -> Iterator[Found]:
    number = int((ok & in_one_piece(table)).sum())
    sentence = None
    if number >= max(1, _WORTH_SAYING * int(ok.sum())):
        sentence = (
            f"{number} of {int(ok.sum())} answers arrived in one piece (a proxy that buffers the stream?): their TTFT"
            " is the time of the whole answer and their TPOT is not known; they are not within a target for it."
        )
    yield "one_piece", number, sentence


def _usage(table: RecordTable, ok: Mask) -> Iterator[Found]:
    odd = [row for row in np.flatnonzero(ok) if table.error[row] == _ODD_USAGE]
    if odd:
        most, _ = Counter(table.detail[row] for row in odd).most_common(1)[0]
        yield _ODD_USAGE, len(odd), f"A usage that cannot be, in {len(odd)} answers: {most}; it was not taken."


def _again(table: RecordTable, sent: Mask) -> Iterator[Found]:
    resent, retried = int(table.resent[sent].sum()), int(table.retried[sent].sum())
    if resent:
        yield (
            "resent",
            resent,
            (
                f"{resent} requests were sent once more over a new connection: the server had closed the old one"
                " without saying so."
            ),
        )
    if retried:
        waited = int((table.retried[sent] > 0).sum())
        yield (
            "retried",
            retried,
            (
                f"{waited} requests were refused at first and sent again as Retry-After said, {retried} times in all;"
                " their times count from the first sending."
            ),
        )
