import json

from atoll.load.live_log import note_progress
from atoll.load.progress import Progress, ReplicaNow

LOOK = Progress(elapsed_s=1.0, left_s=9.0, sent=3, ok=1, failed=0, cancelled=0, in_flight=2)


def test_each_look_is_a_line_and_is_handed_on(tmp_path):
    seen = []
    note = note_progress(tmp_path, seen.append)
    note(LOOK)
    note(
        Progress(
            **{name: getattr(LOOK, name) for name in ("left_s", "sent", "ok", "failed", "cancelled", "in_flight")},
            elapsed_s=2.0,
            replicas={"0": ReplicaNow(in_flight=2, requests=1, tokens_per_s=5.0)},
        )
    )
    lines = [json.loads(line) for line in (tmp_path / "live.jsonl").read_text().splitlines()]
    assert [line["elapsed_s"] for line in lines] == [1.0, 2.0]
    assert lines[1]["replicas"] == {"0": {"in_flight": 2, "requests": 1, "tokens_per_s": 5.0}}
    assert len(seen) == 2


def test_a_disk_that_refuses_costs_the_line_only(tmp_path):
    seen = []
    note_progress(tmp_path / "gone", seen.append)(LOOK)
    assert seen == [LOOK]
