"""Columns to a Parquet file and back, whole or not at all."""

import io
import os
import resource
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import arro3.io
import numpy as np
from arro3.core import Array, DataType, Table, list_array, list_flatten, list_offsets
from numpy.typing import NDArray

from atoll.errors import BadRun, InputError
from atoll.outside.clock import SystemClock
from atoll.outside.files import read_bytes, write_whole
from atoll.outside.parquet_pages import unpacked_size

LARGEST_RUN = 8 * 2**30  # bytes of a file: a hundred million answers
ALWAYS_UNPACKED = 256 * 2**20  # bytes; larger files may unpack to more in their measure
LARGEST_DICTIONARY = 4 * 2**20  # bytes of the different texts of a column; writers stop at 1 MiB


class Ragged(NamedTuple):
    """A column of lists, as one array of all their values and how many each has: no Python list is made of it."""

    values: NDArray[np.float64]
    counts: NDArray[np.int64]


Column = NDArray[Any] | Ragged | Sequence[str | None] | Sequence[Sequence[float]]


def write_parquet(path: Path, columns: Mapping[str, Column]) -> None:
    """Write columns of one length to one file.

    Args:
        path: the file; one that is there is replaced when the new one is complete.
        columns: name -> NumPy array (numbers, booleans), list of strings or None, a list of lists of floats
            or the same as a Ragged.

    Raises:
        InputError: the place cannot be written.
    """
    arrays = {name: _to_arrow(column) for name, column in columns.items()}
    buffer = io.BytesIO()
    arro3.io.write_parquet(
        Table.from_arrays(list(arrays.values()), names=list(arrays)),
        buffer,
        compression="zstd(1)",
        # No two times are equal: a dictionary of them costs a third of the time and of the room, and gives nothing.
        dictionary_enabled=not any(isinstance(column, Ragged) for column in columns.values()),
    )
    write_whole(path, buffer.getvalue())


def read_parquet(path: Path) -> dict[str, Any]:
    """Columns of a file: NumPy arrays for numbers and booleans, lists for strings and lists of floats.

    Raises:
        BadRun: the file is not there, is no Parquet file, or unpacks to far more than the records of a run do.
    """
    return _taken(path, _columns)


def _taken(path: Path, take: Callable[[Table], dict[str, Any]]) -> dict[str, Any]:
    seen = _identity(path)
    try:
        data = read_bytes(path, largest=LARGEST_RUN)
    except InputError as error:
        raise BadRun(str(error)) from None
    if not _is_whole(data):
        raise BadRun(f"{path} is no readable Parquet file: it is cut short or something else.")
    _refuse_bombs(path, data)
    if seen is None or seen not in _HARMLESS or seen != _identity(path):
        _refuse_killers(path, data)
        _note_harmless(seen)
    try:
        with _no_words_of_rust():
            return take(arro3.io.read_parquet(io.BytesIO(data)).read_all())
    except BaseException as error:
        # arro3 answers a damaged file with its own bare Exception or with a Rust panic, which is a BaseException.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise BadRun(f"{path} is no readable Parquet file: {error}.") from None
        raise


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of any Parquet file, nested as they are; raises BadRun as read_parquet does."""
    columns = _taken(path, lambda table: {name: table.column(name).to_pylist() for name in table.column_names})
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _columns(table: Table) -> dict[str, Any]:
    if table.num_rows == 0:
        return {name: _empty(table.schema.field(name).type) for name in table.column_names}
    return {name: _from_arrow(table.column(name).combine_chunks()) for name in table.column_names}


@contextmanager
def _no_words_of_rust() -> Iterator[None]:
    """A Rust panic writes its story to standard error before it becomes an exception that can be caught."""
    try:
        kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)  # noqa: TID251 - the door itself
    except OSError:  # standard error is closed
        yield
        return
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _refuse_bombs(path: Path, data: bytes) -> None:
    """Raises BadRun for pages that unpack to what no measurement does; nothing has been unpacked then."""
    try:
        size = unpacked_size(data)
    except ValueError as error:
        raise BadRun(f"{path} is no readable Parquet file: {error}.") from None
    most_bytes, most_values = max(ALWAYS_UNPACKED, 50 * len(data)), max(ALWAYS_UNPACKED // 8, 8 * len(data))
    if size.bytes > most_bytes or size.values > most_values or size.largest_dictionary > LARGEST_DICTIONARY:
        raise BadRun(
            f"{path} has {len(data):,} bytes and unpacks to {size.bytes:,} with {size.values:,} values, which no run's "
            "records do."
        )


def _refuse_killers(path: Path, data: bytes) -> None:
    """Raises BadRun for a file on which the reader ends its whole process.

    A damaged file can make arro3's Rust panic while it panics, which aborts; so a child of ours reads it first.
    """
    child = os.fork()  # noqa: TID251 - the door itself
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # noqa: TID251 - the door itself
            signal.signal(signal.SIGABRT, signal.SIG_DFL)  # pytest and faulthandler have a word to say there
            arro3.io.read_parquet(io.BytesIO(data)).read_all()
        finally:
            os._exit(0)  # an exception is the parent's to translate
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise BadRun(f"{path} is no readable Parquet file: it is damaged.")


# Files that a child has read for this process, as they were then: the child costs up to 40 % of reading, and a page, a
# study and a comparison read the same file again and again.
_HARMLESS: set[tuple[int, ...]] = set()
_MOST_KNOWN = 10_000
_SETTLED_S = 2.0  # a file that changed a moment ago may change again within the same tick of the file system's clock


def _identity(path: Path) -> tuple[int, ...] | None:
    """Which file it is and when it last changed; the time of change of its inode cannot be set by hand."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns


def _note_harmless(identity: tuple[int, ...] | None) -> None:
    if len(_HARMLESS) >= _MOST_KNOWN:
        _HARMLESS.clear()
    if identity is not None and SystemClock().wall() - identity[-1] / 1e9 > _SETTLED_S:
        _HARMLESS.add(identity)


def _is_whole(data: bytes) -> bool:
    """Magic at both ends and a footer that fits: https://parquet.apache.org/docs/file-format/."""
    if len(data) < 12 or data[:4] != b"PAR1" or data[-4:] != b"PAR1":
        return False
    return int.from_bytes(data[-8:-4], "little") <= len(data) - 12


def _to_arrow(column: Column) -> Array:
    if isinstance(column, np.ndarray):
        return Array.from_numpy(np.ascontiguousarray(column))
    if isinstance(column, Ragged):
        ends = np.concatenate([[0], np.cumsum(column.counts)]).astype(np.int32)
        return list_array(Array.from_numpy(ends), Array.from_numpy(np.ascontiguousarray(column.values)))
    if len(column) > 0 and all(value is None or isinstance(value, str) for value in column):
        return Array(list(column), type=DataType.string())
    if len(column) == 0:
        return Array([], type=DataType.string())
    lists = [np.asarray(values, dtype=np.float64) for values in column]
    offsets = np.concatenate([[0], np.cumsum([len(values) for values in lists])]).astype(np.int32)
    return list_array(Array.from_numpy(offsets), Array.from_numpy(np.concatenate(lists)))


def _empty(kind: DataType) -> Any:
    if DataType.is_string(kind) or DataType.is_list(kind):
        return []
    return np.empty(
        0, dtype=np.int64 if DataType.is_integer(kind) else np.bool_ if DataType.is_boolean(kind) else np.float64
    )


def _from_arrow(array: Array) -> Any:
    if DataType.is_list(array.type):
        flat = np.asarray(list_flatten(array).to_numpy())
        offsets = np.asarray(list_offsets(array).to_numpy())
        return [flat[start:stop] for start, stop in pairwise(offsets)]
    if DataType.is_string(array.type):
        return array.to_pylist()
    return np.array(array.to_numpy())
