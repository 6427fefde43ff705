"""Columns go to Parquet and come back; another reader reads them too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import BadRun
from atoll.outside.parquet import read_parquet, write_parquet


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
