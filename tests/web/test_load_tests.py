"""Load tests that the page starts: where they go, which values they take, how their history is shown."""

import json

from atoll.web.pages.jobs import history


def test_a_load_needs_somewhere_to_go(client):
    answer = client.post("/jobs/bench", data={"users": "3"}, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert "Choose a deployment to load" in answer.text


def test_a_value_is_never_an_option(site, client):
    site.door = "http://127.0.0.1:9"
    answer = client.post("/jobs/bench", data={"users": "--insecure"})
    assert answer.status_code == 400
    assert site.jobs.all() == ()


def test_a_long_history_is_thinned_and_its_last_look_kept(tmp_path):
    path = tmp_path / "live.jsonl"
    path.write_text("".join(json.dumps({"elapsed_s": n}) + "\n" for n in range(9001)) + '{"elapsed_s": 9')
    points, offset = history(path)
    assert len(points) <= 2001
    assert (points[0]["elapsed_s"], points[-1]["elapsed_s"]) == (0, 9000)
    assert offset == path.read_text().rindex("\n") + 1
