"""Records on their way to disk: nothing older than a second is lost when the process dies.

While a run is under way its folder has

    records/clock.json           the clock's value at the start of the run
    records/worker1-clock.json   the same moment by the clock of another machine, where that one's tail is copied here
    records/words.jsonl          strings, one a line; rows name them by line number
    records/tail-00001.rows      one fixed-size row a request (numpy dtype ROW), appended many times a second
    records/tail-00001.tokens    arrival times (float64); each row takes its next `tokens` of them
    records/part-00001.parquet   what an earlier tail held, packed

A request that is still under way has rows too, with the times since the last one; its last row is the whole of it.
What the disk refuses is tried again (load/tail.py); load/recover.py reads what is there of a run that was cut short.
When the run has ended, the caller writes records.parquet from the table and `remove`s all of this.
"""

import contextlib
from array import array
from collections.abc import Iterable
from pathlib import Path

from atoll.load.rows import NAN, PACK, ROW, UnderWay, join_logs, pack_under_way
from atoll.load.tail import RESERVE, Tail
from atoll.traffic.record import RecordTable

_TOKENS_A_TAIL = 128_000  # then it is packed into a part; packing holds the interpreter for about 3 ms
_ROWS_A_TAIL = 10_000


class RecordLog:
    """Takes the records of a run as they come. `folder` None keeps them in memory only."""

    def __init__(
        self, origin: float, folder: Path | None = None, *, name: str = "tail", ids: str | None = None
    ) -> None:
        """Raises RunFailed when the folder cannot be written.

        Args:
            origin: the clock's value at the start of the run.
            folder: the run's folder.
            name: of its files, when several processes write to one folder.
            ids: what the requests' ids begin with, before the number; None: none are sent.
        """
        self.origin = origin
        self.ids = ids
        self.count = 0
        self._words: dict[str, int] = {}
        self._rows = bytearray()
        self._tokens = array("d")
        self._parts: list[tuple[bytes, array[float]]] = []
        self._closed: tuple[Path, bytes, array[float]] | None = None
        self._rows_flushed = self._tokens_flushed = self._words_flushed = 0
        self._tail: Tail | None = None
        if folder is not None:
            self._tail = Tail(folder / "records", name, origin, ids=ids)

    def word(self, text: str | None) -> int:
        """The number of a string; -1 is none."""
        if text is None:
            return -1
        number = self._words.get(text)
        if number is None:
            number = self._words[text] = len(self._words)
        return number

    def add(
        self,
        *,
        number: int,
        user: int,
        turn: int,
        due: float,
        sent: float,
        first_byte: float,
        times: "array[float]",
        done: float,
        prompt_tokens: int,
        output_tokens: int,
        cached_tokens: int,
        status: int,
        error: str | None,
        detail: str | None,
        replica: str | None,
        outcome: int,
        counted: bool,
        asked_prompt_tokens: int = 0,
        asked_output_tokens: int = 0,
        resent: int = 0,
        retried: int = 0,
        model: str | None = None,
    ) -> None:
        """Keep one request that has ended. Times are clock values, NaN where there is none."""
        self._rows += PACK.pack(
            number,
            user,
            turn,
            due,
            sent,
            first_byte,
            times[0] if times else NAN,
            times[-1] if times else NAN,
            done,
            prompt_tokens,
            output_tokens,
            cached_tokens,
            status,
            self.word(error),
            self.word(detail),
            self.word(replica),
            outcome,
            counted,
            len(times),
            asked_prompt_tokens,
            asked_output_tokens,
            resent,
            retried,
            self.word(model),
        )
        self._tokens.extend(times)
        self.count += 1

    @property
    def lost(self) -> str | None:
        """Why the disk lacks records; they are kept in memory all the same."""
        return self._tail.lost if self._tail is not None else None

    @property
    def trouble(self) -> str | None:
        """What the disk refused first, if anything; it may have taken it later."""
        return self._tail.trouble if self._tail is not None else None

    def flush(self, under_way: Iterable[UnderWay] = ()) -> None:
        """Append what is new to the tail, and what these requests got since their last row."""
        tail = self._tail
        if tail is None:
            return
        rows = self._rows[self._rows_flushed :]
        tokens = self._tokens[self._tokens_flushed :]
        self._rows_flushed, self._tokens_flushed = len(self._rows), len(self._tokens)
        for request in under_way:
            fresh = request.times[request.logged :]
            rows += pack_under_way(request, fresh, self.word(request.replica))
            tokens.extend(fresh)
            request.logged += len(fresh)
        words = list(self._words)[self._words_flushed :] if len(self._words) > self._words_flushed else []
        self._words_flushed = len(self._words)
        if rows or words:
            tail.append(words, tokens.tobytes(), bytes(rows))

    def end_of_cycle(self, under_way: Iterable[UnderWay]) -> None:
        """To be called when every request under way has been flushed once since the last call.

        A tail that has grown long is closed; one cycle later, when the new one repeats what is under way, the old one
        is packed into a part, in a thread of its own.
        """
        if self._tail is None:
            return
        if self._closed is not None:
            closed, self._closed = self._closed, None
            self._tail.pack(*closed, list(self._words))
        elif len(self._tokens) > _TOKENS_A_TAIL or len(self._rows) > _ROWS_A_TAIL * ROW.itemsize:
            self._begin_next_tail(self._tail, under_way)

    def _begin_next_tail(self, tail: "Tail", under_way: Iterable[UnderWay]) -> None:
        self.flush()
        rows, tokens = bytes(self._rows), self._tokens
        self._parts.append((rows, tokens))
        self._rows, self._tokens = bytearray(), array("d")
        self._rows_flushed = self._tokens_flushed = 0
        self._closed = (tail.begin_next(), rows, tokens)
        for request in under_way:
            request.logged = 0

    def rows(self) -> bytes:
        """All that have ended, as rows of dtype ROW."""
        return b"".join([*(part for part, _ in self._parts), bytes(self._rows)])

    def tokens(self) -> bytes:
        """Their arrival times (float64), in the order of the rows."""
        return b"".join([*(times for _, times in self._parts), self._tokens])

    def words(self) -> list[str]:
        return list(self._words)

    def table(self) -> RecordTable:
        """All records that have ended, as a table of seconds from the start of the run."""
        return join_logs([(self.rows(), self.tokens(), self.words(), self.origin)], ids=self.ids)

    def close(self) -> None:
        """Write the rest and close the files; they stay."""
        if self._tail is not None:
            self.flush()
            self._tail.close()


def has_records(folder: Path) -> bool:
    """Whether a run was cut short here."""
    return (folder / "records" / "clock.json").is_file()


def remove(folder: Path) -> None:
    """Remove parts and tails, once records.parquet holds all of it."""
    place = folder / "records"
    for path in sorted(place.glob("*")) if place.is_dir() else ():
        path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        place.rmdir()


def give_room_back(folder: Path) -> None:
    """Remove what was kept in reserve for a disk that is full."""
    (folder / "records" / RESERVE).unlink(missing_ok=True)
