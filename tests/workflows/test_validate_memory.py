"""The account of a GPU's memory against vLLM's own start-up logs."""

from pathlib import Path

import pytest

from atoll.workflows.validate import validate_file

TABLE = Path(__file__).parents[1] / "data" / "memory" / "memory.csv"


@pytest.fixture(scope="module")
def found():
    return validate_file(TABLE)


def test_every_row_is_reckoned(found):
    assert [row.id for row in found.rows if row.skipped] == []


def test_as_near_as_the_page_says(found):
    """docs/validation.md; p90 of the layers with windows is one row whose log has 1.7 GiB of cache."""
    near = {one.what: (one.median_abs, one.p90_abs) for one in found.errors}
    for what, median, p90 in (
        ("KV tokens, full", 0.005, 0.02),
        ("KV tokens, sliding", 0.005, 0.07),
        ("KV tokens, mla", 0.02, 0.02),
        ("weights", 0.005, 0.01),
    ):
        assert near[what][0] <= median, what
        assert near[what][1] <= p90, what


def test_refusals_are_foreseen_and_no_start_is(found):
    """One engine that started is refused: DeepSeek-R1-AWQ over 16 cards, whose table does not have its max_model_len."""
    assert (found.refusals.foreseen, found.refusals.refused) == (5, 5)
    wrong = [row.id for row in found.rows if row.measured and row.measured.started and not row.predicted.fits]
    assert wrong == ["V8"]


def test_what_is_in_doubt_is_not_measured(found):
    rows = {row.id: row for row in found.rows}
    assert rows["V1"].measured.kv_tokens is None
    assert rows["V1"].measured.weight_bytes is not None
    assert rows["V11"].measured.started is None


def test_a_row_that_makes_no_sense_is_skipped_with_the_reason(tmp_path):
    table = tmp_path / "starts.csv"
    table.write_text(
        "id,model,gpu,tp,gpu_memory_utilization,measured_kv_tokens,measured_weights_gib\n"
        "a,Qwen/Qwen3-8B,H100,one,,1,\n"
        "b,nobody/knows,H100,1,,1,\n"
        "c,Qwen/Qwen3-8B,H100,1,1.5,1,\n"
    )
    reasons = [row.skipped for row in validate_file(table).rows]
    assert reasons[0] == "tp is 'one', not a number"
    assert "nobody/knows" in reasons[1]
    assert reasons[2].startswith("gpu_memory_utilization")
