"""What is wrong with another load generator's file is told with the field and the row, in words of ours."""

import json

import pytest

from atoll.errors import BadRun
from atoll.store.foreign import read_foreign

WHOLE = {
    "completed": 3, "request_throughput": 1.0, "duration": 3.0, "model_id": "m",
    "ttfts": [0.1, 0.1, 0.1], "itls": [[0.01, 0.02]] * 3, "input_lens": [5, 5, 5], "output_lens": [3, 3, 3],
    "start_times": [0.0, 1.0, 2.0], "errors": ["", "", ""], "latencies": [0.2, 0.2, 0.2],
}  # fmt: skip


def refused(text: str, tool: str = "vllm") -> str:
    with pytest.raises(BadRun) as caught:
        read_foreign(text, origin="x", tool=tool)
    return str(caught.value).removeprefix(f"x is no whole result of {tool}; ")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"ttfts": [0.1, "abc", 0.1]}, "ttfts[1] is 'abc' where numbers belong."),
        ({"ttfts": ["a", "b", 0.1]}, "ttfts[0] is 'a' where numbers belong."),
        ({"ttfts": [10**400, 0.1, 0.1]}, "ttfts[0] is 1000000000000000000000000000000000000000..., which no time or"),
        ({"itls": [[0.01], 5, [0.02]]}, "itls[1] is 5 where lists belong."),
        ({"itls": [[0.01, {}], [0.02], [0.03]]}, "itls[0][1] is an object where numbers belong."),
        ({"output_lens": [3]}, "output_lens has 1 entries, the lists beside it 3."),
        ({"output_lens": [[1], {}, 6]}, "output_lens[0] is a list where numbers belong."),
        ({"input_lens": None}, "a value in it is of another kind than this tool writes."),
    ],
)
def test_the_value_that_differs_from_its_neighbours_is_named(damage, sentence):
    assert refused(json.dumps(WHOLE | damage)).startswith(sentence)


def test_the_row_that_lacks_a_field_is_counted():
    whole = {"metadata": {"request_start_ns": 1, "request_end_ns": 2, "worker_id": "w"}, "metrics": {}}
    cut = {"metadata": {"request_start_ns": 1, "worker_id": "w"}, "metrics": {}}
    text = "\n".join(json.dumps(row) for row in (whole, whole, cut))
    assert refused(text, "aiperf-records") == "the field 'request_end_ns' is missing in row 3."


def test_the_cell_that_is_no_number_is_found_by_row_and_column():
    text = "Metric,avg\nTime to First Token (ms),Valu47.07\n"
    assert refused(text, "aiperf-csv") == "row 2, column 2: 'Valu47.07' is no number."
