"""Times as people write them; sizes, times and counts as people read them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.errors import InputError
from atoll.units import parse_seconds, show_bytes, show_count, show_seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("10m", 600),
        ("90s", 90),
        ("250ms", 0.25),
        ("1m30s", 90),
        ("1.5h", 5400),
        ("20", 20),
        (" 2 s ", 2),
        ("50us", 5e-5),
    ],
)
def test_durations_are_read(text, seconds):
    assert parse_seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "ten", "10x", "-5s", "1m nonsense", "s", "10m!", "1.2.3s"])
def test_a_duration_that_is_none_is_refused_with_an_example(text):
    with pytest.raises(InputError, match="Write it like 10m"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "-"), (float("nan"), "-"), (0, "0 s"), (0.00021, "210 µs"), (0.048, "48 ms"), (0.9996, "1000 ms"),
     (1.3, "1.3 s"), (41.6, "41.6 s"), (600, "10 min"), (-1.5, "-1.5 s")],
)  # fmt: skip
def test_times_are_shown_with_three_digits(seconds, text):
    assert show_seconds(seconds) == text


def test_sizes_and_counts_are_shown():
    assert show_bytes(65_527_752_704) == "65.5 GB"
    assert show_count(32_763_876_352) == "32.8 B"
    assert show_count(1234) == "1,234"


@given(st.floats(1e-6, 1e6))
def test_what_is_shown_is_near_what_it_was(seconds):
    shown = show_seconds(seconds).replace(" min", "m").replace("µs", "us").replace(" ", "")
    assert parse_seconds(shown) == pytest.approx(seconds, rel=0.06, abs=5e-8)
