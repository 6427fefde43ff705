"""Records on their way to disk: nothing older than a second is lost when the process dies.

While a run is under way its folder has

    records/clock.json           the clock's value at the start of the run
    records/worker1-clock.json   the same moment by the clock of another machine, where that one's tail is copied here
    records/words.jsonl          strings, one a line; rows name them by line number
    records/tail-00001.rows      one fixed-size row a request (numpy dtype ROW), appended many times a second
    records/tail-00001.tokens    arrival times (float64); each row takes its next `tokens` of them
    records/part-00001.parquet   what an earlier tail held, packed

A request that is still under way has rows too, with the times since the last one; its last row is the whole of it.
When the run has ended, the caller writes records.parquet from the table and `remove`s all of this.
"""

import contextlib
import json
import os
import struct
from array import array
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.errors import AtollError, BadRun, RunFailed
from atoll.outside.files import write_whole
from atoll.traffic.record import Floats, Outcome, RecordTable

OUTCOMES = (Outcome.OK, Outcome.FAILED, Outcome.CANCELLED)
UNDER_WAY = 3  # in a tail only: a request that had not ended when this row was written
_PACK = struct.Struct("<qqqddddddqqqqiiiBBxxq")
ROW = np.dtype(
    {
        "names": [
            "number",
            "user",
            "turn",
            "due_s",
            "sent_s",
            "first_byte_s",
            "first_token_s",
            "last_token_s",
            "done_s",
            "prompt_tokens",
            "output_tokens",
            "cached_tokens",
            "status",
            "error",
            "detail",
            "replica",
            "outcome",
            "counted_from_chunks",
            "tokens",
        ],
        "formats": ["<i8"] * 3 + ["<f8"] * 6 + ["<i8"] * 4 + ["<i4"] * 3 + ["u1", "u1"] + ["<i8"],
        "offsets": [*range(0, 104, 8), 104, 108, 112, 116, 117, 120],
        "itemsize": 128,
    }
)
_CLOCKS = ("due_s", "sent_s", "first_byte_s", "first_token_s", "last_token_s", "done_s")
_NAN = float("nan")
_TOKENS_A_TAIL = 128_000  # then it is packed into a part; packing holds the interpreter for about 3 ms
_ROWS_A_TAIL = 10_000


class UnderWay(Protocol):
    """A request that has not ended: what of it can be told. Times are clock values, NaN where there is none."""

    sent: float
    due: float
    logged: int  # how many of `times` the tail already has

    @property
    def number(self) -> int: ...
    @property
    def user(self) -> int: ...
    @property
    def turn(self) -> int: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def first_byte(self) -> float: ...
    @property
    def status(self) -> int: ...
    @property
    def replica(self) -> str | None: ...
    @property
    def times(self) -> "array[float]": ...


class RecordLog:
    """Takes the records of a run as they come. `folder` None keeps them in memory only."""

    def __init__(self, origin: float, folder: Path | None = None, *, name: str = "tail") -> None:
        """Raises RunFailed when the folder cannot be written.

        Args:
            origin: the clock's value at the start of the run.
            folder: the run's folder.
            name: of its files, when several processes write to one folder.
        """
        self.origin = origin
        self.count = 0
        self._words: dict[str, int] = {}
        self._rows = bytearray()
        self._tokens = array("d")
        self._parts: list[tuple[bytes, array[float]]] = []
        self._closed: tuple[Path, bytes, array[float]] | None = None
        self._rows_flushed = self._tokens_flushed = self._words_flushed = 0
        self._tail: _Tail | None = None
        if folder is not None:
            self._tail = _Tail(folder / "records", name, origin)

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
    ) -> None:
        """Keep one request that has ended. Times are clock values, NaN where there is none."""
        self._rows += _PACK.pack(
            number,
            user,
            turn,
            due,
            sent,
            first_byte,
            times[0] if times else _NAN,
            times[-1] if times else _NAN,
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
        )
        self._tokens.extend(times)
        self.count += 1

    @property
    def lost(self) -> str | None:
        """Why the disk no longer takes records; they are kept in memory all the same."""
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
            rows += _pack_under_way(request, fresh, self.word(request.replica))
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

    def _begin_next_tail(self, tail: "_Tail", under_way: Iterable[UnderWay]) -> None:
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
        return join_logs([(self.rows(), self.tokens(), self.words(), self.origin)])

    def close(self) -> None:
        """Write the rest and close the files; they stay."""
        if self._tail is not None:
            self.flush()
            self._tail.close()


class _Tail:
    """The files of the tail. A thread writes them, so that a slow disk holds nobody up."""

    def __init__(self, folder: Path, name: str, origin: float) -> None:
        self.folder = folder
        self.trouble: str | None = None  # the first thing that the disk refused
        self._name = name
        self._number = 0
        self._files: list[int] = []  # rows, tokens, words
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="atoll-records")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / "clock.json", json.dumps({"origin": origin}), sync=False)
        except OSError as error:
            raise RunFailed(f"{folder} cannot be written: {error.strerror}.") from None
        self.begin_next()

    @property
    def _stem(self) -> Path:
        return self.folder / f"{self._name}-{self._number:05d}"

    def append(self, words: list[str], tokens: bytes, rows: bytes) -> None:
        self._later(self._write, words, tokens, rows)

    def begin_next(self) -> Path:
        """Close this tail and open the next; gives the old one's stem."""
        old = self._stem
        self._number += 1
        self._later(self._open, self._stem)
        return old

    def pack(self, old: Path, rows: bytes, tokens: "array[float]", words: list[str]) -> None:
        """Write the part, then remove the tail that it replaces."""
        self._later(_pack_part, old, rows, tokens, words)

    def close(self) -> None:
        self._later(self._close)
        self._thread.shutdown(wait=True)

    def _later(self, work: Callable[..., None], *arguments: object) -> None:
        self._thread.submit(self._try, work, *arguments)

    def _try(self, work: Callable[..., None], *arguments: object) -> None:
        """What the disk refuses once, it is not asked again."""
        if self.trouble is not None and work != self._close:
            return
        try:
            work(*arguments)
        except OSError as error:
            self.trouble = f"{self.folder}: {error.strerror}"
        except AtollError as error:
            self.trouble = str(error)

    # In the thread.

    def _open(self, stem: Path) -> None:
        self._close()
        names = (stem.with_suffix(".rows"), stem.with_suffix(".tokens"), self.folder / f"{self._name}-words.jsonl")
        how = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        self._files = [os.open(name, how, 0o644) for name in names]  # noqa: TID251 - they grow with the run

    def _write(self, words: list[str], tokens: bytes, rows: bytes) -> None:
        """Words and times before the rows that need them."""
        rows_file, tokens_file, words_file = self._files
        if words:
            _write_all(words_file, "".join(json.dumps(word) + "\n" for word in words).encode())
        _write_all(tokens_file, tokens)
        _write_all(rows_file, rows)

    def _close(self) -> None:
        for handle in self._files:
            with contextlib.suppress(OSError):
                os.close(handle)
        self._files = []


def _pack_part(old: Path, rows: bytes, tokens: "array[float]", words: list[str]) -> None:
    from atoll.outside.parquet import write_parquet

    columns = part_columns(np.frombuffer(rows, dtype=ROW), np.frombuffer(tokens, dtype=np.float64), words)
    write_parquet(old.with_name(old.name.replace("tail", "part")).with_suffix(".parquet"), columns)
    old.with_suffix(".rows").unlink(missing_ok=True)
    old.with_suffix(".tokens").unlink(missing_ok=True)


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _pack_under_way(request: UnderWay, fresh: "array[float]", replica: int) -> bytes:
    times = request.times
    return _PACK.pack(
        request.number,
        request.user,
        request.turn,
        request.due,
        request.sent,
        request.first_byte,
        times[0] if times else _NAN,
        times[-1] if times else _NAN,
        _NAN,
        request.prompt_tokens,
        len(times),
        0,
        request.status,
        -1,
        -1,
        replica,
        UNDER_WAY,
        True,
        len(fresh),
    )


def join_logs(logs: Iterable[tuple[bytes, bytes, list[str], float]]) -> RecordTable:
    """One table of several logs: rows, tokens and words as a RecordLog gives them, and the clock at its start."""
    logs = list(logs)
    every: dict[str, int] = {}
    rows: list[NDArray[Any]] = []
    clock = np.empty(sum(len(raw_times) for _, raw_times, _, _ in logs) // 8)
    filled = 0
    for raw_rows, raw_times, words, origin in logs:
        own = np.frombuffer(raw_rows, dtype=ROW).copy()
        for name in _CLOCKS:
            own[name] -= origin
        _renumber(own, words, every)
        rows.append(own)
        times = np.frombuffer(raw_times, dtype=np.float64)
        np.subtract(times, origin, out=clock[filled : filled + len(times)])
        filled += len(times)
    return make_table(np.concatenate(rows), clock, list(every), 0.0)


def _renumber(rows: NDArray[Any], words: list[str], every: dict[str, int]) -> None:
    """Let the rows name their words by the numbers of one common list, which grows."""
    numbers = np.array([*(every.setdefault(word, len(every)) for word in words), -1], dtype=np.int32)
    for name in ("error", "detail", "replica"):
        rows[name] = numbers[rows[name]]


def make_table(rows: NDArray[Any], clock: Floats, words: list[str], origin: float) -> RecordTable:
    """A table from rows of dtype ROW and their times, both in one order; sorted by when they were sent."""
    counts = rows["tokens"].astype(np.int64)
    stops = np.cumsum(counts, dtype=np.int64)
    order = np.lexsort((rows["number"], rows["sent_s"]))
    sorted_rows, counts, starts = rows[order], counts[order], (stops - counts)[order]
    named = np.array([*words, None], dtype=object)
    with_tokens = np.flatnonzero(counts)
    seconds: dict[str, Any] = {name: _seconds(sorted_rows[name], origin) for name in _CLOCKS}
    whole: dict[str, Any] = {
        name: sorted_rows[name].astype(np.int64)
        for name in ("number", "user", "turn", "prompt_tokens", "output_tokens", "cached_tokens", "status")
    }
    outcomes = np.array([*map(str, OUTCOMES)], dtype=object)
    return RecordTable(
        **whole,
        **seconds,
        outcome=tuple(outcomes[sorted_rows["outcome"]].tolist()),
        error=tuple(named[sorted_rows["error"]].tolist()),
        detail=tuple(named[sorted_rows["detail"]].tolist()),
        replica=tuple(named[sorted_rows["replica"]].tolist()),
        counted_from_chunks=sorted_rows["counted_from_chunks"].astype(np.bool_),
        token_clock=clock - origin if origin else clock,
        span_row=with_tokens.astype(np.int64),
        span_start=starts[with_tokens],
        span_stop=(starts + counts)[with_tokens],
    )


def _seconds(values: NDArray[Any], origin: float) -> Floats:
    made: Floats = np.ascontiguousarray(values, dtype=np.float64) - origin
    return made


def part_columns(rows: NDArray[Any], clock: Floats, words: list[str]) -> dict[str, Any]:
    """Columns of a part: the fields of ROW with their strings written out, and the times."""
    from atoll.outside.parquet import Ragged

    named = np.array([*words, None], dtype=object)
    columns: dict[str, Any] = {name: np.ascontiguousarray(rows[name]) for name in ROW.names or ()}
    for name in ("error", "detail", "replica"):
        columns[name] = ["" if word is None else word for word in named[rows[name]].tolist()]
    columns["token_clock"] = Ragged(clock, rows["tokens"])
    return columns


def read_records(folder: Path) -> RecordTable:
    """The records of a run that was cut short: its parts and its tails, up to the last whole row.

    A request that was under way is there as cancelled, with the error `killed` and the times it had got.

    Raises:
        BadRun: there are none, or what is there cannot be read.
    """
    place = folder / "records"
    try:
        origin = float(json.loads((place / "clock.json").read_text())["origin"])
    except (OSError, ValueError, KeyError, TypeError):
        raise BadRun(f"{folder} holds no records of a run that was cut short.") from None
    rows, times, words = _gather(place, origin)
    whole, clock = _join_pieces(rows, times, words)
    return make_table(whole, clock, words, origin)


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


def _gather(place: Path, origin: float) -> tuple[list[NDArray[Any]], list[Floats], list[str]]:
    """Rows (their words renumbered into one list) and times of every part and tail, all by the clock of `origin`."""
    every: dict[str, int] = {}
    rows: list[NDArray[Any]] = []
    times: list[Floats] = []
    for path in sorted(place.glob("*part-*.parquet")):
        part_rows, part_times = _read_part(path, every)
        rows.append(part_rows)
        times.append(part_times + _moved(part_rows, path, origin))
    for path in sorted(place.glob("*.rows")):
        if path.with_name(path.name.replace("tail", "part")).with_suffix(".parquet").exists():
            continue  # killed between writing the part and removing its tail
        tail_rows, tail_times = _read_tail(path, every)
        rows.append(tail_rows)
        times.append(tail_times + _moved(tail_rows, path, origin))
    return rows, times, list(every)


def _moved(rows: NDArray[Any], path: Path, origin: float) -> float:
    """Move the times of rows from another machine to our clock; gives by how much, 0 for rows of this machine."""
    own = path.with_name(f"{path.name.partition('-')[0]}-clock.json")
    if not own.is_file():
        return 0.0
    ahead = origin - float(json.loads(own.read_text())["origin"])
    for name in _CLOCKS:
        rows[name] += ahead
    return ahead


def _read_part(path: Path, every: dict[str, int]) -> tuple[NDArray[Any], Floats]:
    from atoll.outside.parquet import read_parquet

    columns = read_parquet(path)
    rows = np.zeros(len(columns["number"]), dtype=ROW)
    for name in ROW.names or ():
        if name in {"error", "detail", "replica"}:
            rows[name] = [every.setdefault(word, len(every)) if word else -1 for word in columns[name]]
        else:
            rows[name] = columns[name]
    lists = columns["token_clock"]
    return rows, np.concatenate(lists) if len(lists) else np.empty(0)


def _read_tail(path: Path, every: dict[str, int]) -> tuple[NDArray[Any], Floats]:
    """Up to the last row whose times and words are all there."""
    data = path.read_bytes()
    rows = np.frombuffer(data[: len(data) // ROW.itemsize * ROW.itemsize], dtype=ROW).copy()
    beside = path.with_suffix(".tokens")
    data = beside.read_bytes() if beside.is_file() else b""  # killed between opening the two
    times = np.frombuffer(data[: len(data) // 8 * 8], dtype=np.float64)
    words = _read_words(path.with_name(f"{path.name.rpartition('-')[0]}-words.jsonl"))
    fits = np.cumsum(rows["tokens"]) <= len(times)
    for name in ("error", "detail", "replica"):
        fits &= rows[name] < len(words)
    rows = rows[: len(rows) if fits.all() else int(np.argmin(fits))]
    _renumber(rows, words, every)
    return rows, times[: int(rows["tokens"].sum())]


def _read_words(path: Path) -> list[str]:
    """Up to the last whole line; none when nothing was ever named."""
    words: list[str] = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            words.append(json.loads(line))
        except ValueError:
            break
    return words


def _join_pieces(rows: list[NDArray[Any]], times: list[Floats], words: list[str]) -> tuple[NDArray[Any], Floats]:
    """One row a request: the ended one if there is one, else the last of those under way with all its times."""
    if not rows:
        return np.zeros(0, dtype=ROW), np.empty(0)
    ended = [part["outcome"] != UNDER_WAY for part in rows]
    numbers = np.concatenate([part["number"][mask] for part, mask in zip(rows, ended, strict=True)])
    whole = [part[mask] for part, mask in zip(rows, ended, strict=True)]
    clock = [part[np.repeat(mask, row["tokens"])] for row, part, mask in zip(rows, times, ended, strict=True)]
    cut = _cut_short(rows, times, known=set(numbers.tolist()))
    for row, _ in cut:
        row["error"] = _number_of(words, "killed")
    whole += [row for row, _ in cut]
    clock += [pieces for _, pieces in cut]
    return np.concatenate(whole), np.concatenate(clock)


def _cut_short(rows: list[NDArray[Any]], times: list[Floats], *, known: set[int]) -> list[tuple[NDArray[Any], Floats]]:
    """Requests without an ended row. Each tail repeats all of a request's times, so the fullest tail counts."""
    best: dict[int, tuple[NDArray[Any], Floats]] = {}
    for part, clock in zip(rows, times, strict=True):
        stops = np.cumsum(part["tokens"], dtype=np.int64)
        mine: dict[int, list[int]] = {}
        for place in np.flatnonzero(part["outcome"] == UNDER_WAY).tolist():
            mine.setdefault(int(part["number"][place]), []).append(place)
        for number in mine.keys() - known:
            places = mine[number]
            pieces = np.concatenate([clock[stops[at] - part["tokens"][at] : stops[at]] for at in places])
            row = part[places[-1] : places[-1] + 1].copy()
            row["outcome"], row["tokens"] = OUTCOMES.index(Outcome.CANCELLED), len(pieces)
            if number not in best or len(pieces) >= len(best[number][1]):
                best[number] = (row, pieces)
    return list(best.values())


def _number_of(words: list[str], word: str) -> int:
    if word not in words:
        words.append(word)
    return words.index(word)
