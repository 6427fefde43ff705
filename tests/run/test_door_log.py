"""The door's log: who answered how often lately."""

import json
from datetime import UTC, datetime

from atoll.run.door_log import count_answers, last_lines, lines_naming


def line(at, replica):
    return json.dumps({"t": datetime.fromtimestamp(at, UTC).isoformat(), "status": 200, "replica": replica})


def test_answers_are_counted_by_replica_since_a_moment():
    lines = [line(100, "0"), line(160, "0"), line(161, "1"), line(162, "1")]
    assert count_answers(lines, since=150) == {0: 1, 1: 2}


def test_lines_of_another_kind_are_passed_over():
    lines = ["", "half a {", "[]", '"x"', line(100, ""), '{"t": "yesterday", "replica": "0"}', line(100, "3")]
    assert count_answers(lines, since=0) == {3: 1}


def test_the_end_of_a_long_log_is_read_in_whole_lines(tmp_path):
    log = tmp_path / "access.log"
    log.write_text("".join(f"line {n}\n" for n in range(100)))
    assert last_lines(log, most_bytes=20) == ("line 98", "line 99")
    assert len(last_lines(log)) == 100
    assert last_lines(tmp_path / "none") == ()
    (tmp_path / "link").symlink_to(log)
    assert last_lines(tmp_path / "link") == ()


def test_what_no_nginx_wrote_is_passed_over_and_a_word_may_be_any_bytes(tmp_path):
    odd = ['{"replica":1e999,"t":"2026-01-01T00:00:00"}', "[" * 100_000, '{"replica":1,"t":"0001-01-01T00:00:00"}']
    assert count_answers(odd, since=0) == {}
    log = tmp_path / "access.log"
    log.write_bytes(b"one \xff\ntwo\n")
    assert list(lines_naming(log, "\udcff")) == ["one \ufffd"]
