"""The run on a screen, and in lines where there is none."""

import io

from rich.console import Console

from atoll.cli.live import bar, draw, line, live_view
from atoll.load.progress import Progress, ReplicaNow, join_progress

NOW = Progress(
    elapsed_s=12.0,
    left_s=48.0,
    sent=120,
    ok=88,
    failed=2,
    cancelled=0,
    in_flight=30,
    users=30,
    ttft_p50_s=0.21,
    ttft_p95_s=0.35,
    itl_p50_s=0.02,
    itl_p95_s=0.03,
    chunks_per_s=1500.0,
    requests_per_s=9.5,
    lag_s=0.0004,
    errors={"http_503": 2},
    replicas={
        "0": ReplicaNow(in_flight=10, requests=40, tokens_per_s=500.0),
        "1": ReplicaNow(in_flight=20, requests=48, tokens_per_s=1000.0),
    },
)


def drawn(progress):
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    console.print(draw(progress, title="atoll bench http://h"))
    return console.file.getvalue()


def test_the_screen_shows_the_last_seconds_and_each_replica():
    shown = drawn(NOW)
    for words in ("48 s left", "30 of 30", "p50 210 ms  p95 350 ms", "1,500 tokens/s", "http_503 2", "400 µs late"):
        assert words in shown
    rows = [row for row in shown.splitlines() if row.startswith("replica")]
    assert rows[1].count("█") == 2 * rows[0].count("█") == 20


def test_the_screen_says_when_only_answers_are_waited_for():
    from dataclasses import replace

    assert "waiting for the last answers" in drawn(replace(NOW, left_s=0.0))


def test_the_next_run_of_a_study_is_told_of_from_its_beginning():
    console = Console(file=io.StringIO(), force_terminal=False)
    with live_view(console, silent=False, title="x") as show:
        from dataclasses import replace

        for elapsed_s in (5.0, 60.0, 0.5, 5.5):
            show(replace(NOW, elapsed_s=elapsed_s))
    assert len(console.file.getvalue().splitlines()) == 3
    assert "5 s, 48 s left" in console.file.getvalue()


def test_without_a_terminal_there_is_a_line_every_five_seconds():
    console = Console(file=io.StringIO(), force_terminal=False)
    with live_view(console, silent=False, title="x") as show:
        for half_seconds in range(40):
            from dataclasses import replace

            show(replace(NOW, elapsed_s=half_seconds / 2))
    assert len(console.file.getvalue().splitlines()) == 3
    assert "120 sent, 88 ok, 2 failed, 30 in flight" in line(NOW)


def test_json_is_silent():
    with live_view(Console(file=io.StringIO()), silent=True, title="x") as show:
        assert show is None


def test_bars_have_eighths():
    assert bar(0.0, 4) == "    "
    assert bar(1.0, 4) == "████"
    assert bar(0.53, 4) == "██▏ "


def test_several_processes_make_one_picture():
    both = join_progress([NOW, NOW])
    assert both.sent == 240
    assert both.users == 60
    assert both.ttft_p95_s == 0.35
    assert both.replicas["1"].in_flight == 40
    assert both.errors == {"http_503": 4}
