"""Columns go to Parquet and come back; another reader reads them too."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import BadRun
from atoll.outside import parquet
from atoll.outside.parquet import read_parquet, write_parquet
from atoll.outside.parquet_pages import unpacked_size


def test_every_kind_of_column_comes_back(tmp_path):
    path = tmp_path / "x.parquet"
    write_parquet(path, {"n": np.arange(3), "f": np.array([1.0, np.nan, 3.0]), "b": np.array([True, False, True]),
                         "s": ["x", None, "한"], "l": [[1.0, 2.0], [], [3.0]]})  # fmt: skip
    back = read_parquet(path)
    assert back["n"].tolist() == [0, 1, 2]
    np.testing.assert_array_equal(back["f"], [1.0, np.nan, 3.0])
    assert back["b"].tolist() == [True, False, True]
    assert back["s"] == ["x", None, "한"]
    assert [values.tolist() for values in back["l"]] == [[1.0, 2.0], [], [3.0]]


def test_no_rows_come_back_as_no_rows(tmp_path):
    write_parquet(tmp_path / "x.parquet", {"n": np.empty(0, dtype=np.int64), "s": []})
    back = read_parquet(tmp_path / "x.parquet")
    assert len(back["n"]) == 0
    assert back["s"] == []


def test_pyarrow_reads_the_same(tmp_path):
    pq = pytest.importorskip("pyarrow.parquet")
    write_parquet(tmp_path / "x.parquet", {"n": np.arange(2), "s": [None, "a"], "l": [[0.5], []]})
    assert pq.read_table(tmp_path / "x.parquet").to_pydict() == {"n": [0, 1], "s": [None, "a"], "l": [[0.5], []]}


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 400))
def test_a_damaged_file_is_one_error(tmp_path_factory, junk, cut):
    path = tmp_path_factory.mktemp("p") / "x.parquet"
    write_parquet(path, {"n": np.arange(5)})
    whole = path.read_bytes()
    path.write_bytes(whole[: cut % len(whole)] + junk)
    with pytest.raises(BadRun, match=r"x\.parquet"):
        read_parquet(path)


def test_pages_say_how_much_they_unpack_to(tmp_path):
    write_parquet(tmp_path / "x.parquet", {"n": np.arange(100_000), "s": ["a", "bb"] * 50_000})
    size = unpacked_size((tmp_path / "x.parquet").read_bytes())
    assert size.values >= 200_000
    assert size.bytes >= 8 * 100_000
    assert 0 < size.largest_dictionary <= 2**20


def test_a_file_that_unpacks_to_far_more_is_refused_before_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("atoll.outside.parquet.ALWAYS_UNPACKED", 2**20)
    write_parquet(tmp_path / "x.parquet", {"l": [[0.0] * 400_000] * 2})
    assert (tmp_path / "x.parquet").stat().st_size < 2**14
    monkeypatch.setattr("arro3.io.read_parquet", lambda _: pytest.fail("it was unpacked"))
    with pytest.raises(BadRun, match=r"x\.parquet has [\d,]+ bytes and unpacks to"):
        read_parquet(tmp_path / "x.parquet")


def test_a_text_for_every_row_is_refused_when_it_is_long(tmp_path):
    write_parquet(tmp_path / "x.parquet", {"s": ["x" * 5_000_000] * 50})
    with pytest.raises(BadRun, match="unpacks to"):
        read_parquet(tmp_path / "x.parquet")


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=8))
def test_a_file_with_some_bytes_changed_is_read_or_refused(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("p") / "x.parquet"
    write_parquet(path, {"n": np.arange(50), "s": ["x", None] * 25, "l": [[0.5, 1.5], []] * 25})
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        read_parquet(path)
    except BadRun as error:
        assert "x.parquet" in str(error)


def test_a_file_that_was_read_once_needs_no_child_again_until_it_changes(tmp_path, monkeypatch):
    path, children = tmp_path / "x.parquet", []
    harmless = parquet._refuse_killers
    monkeypatch.setattr(parquet, "_refuse_killers", lambda *given: (children.append(1), harmless(*given)))
    write_parquet(path, {"n": np.arange(50)})
    read_parquet(path)
    read_parquet(path)
    assert len(children) == 2  # it changed a moment ago, and might again within a tick of the file system's clock
    monkeypatch.setattr(parquet, "_SETTLED_S", -1.0)
    for _ in range(3):
        read_parquet(path)
    assert len(children) == 3
    path.write_bytes(path.read_bytes() + b"PAR1"[:0])
    os.utime(path, ns=(1, 1))
    read_parquet(path)
    assert len(children) == 4
