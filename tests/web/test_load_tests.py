"""Load tests that the page starts: where they go, which values they take, how their history is shown."""

import json

from atoll.load.control import ControlFile
from atoll.model.read import read_model
from atoll.run.process import prepare
from atoll.web.jobs import Job, JobNote, JobState
from atoll.web.load_control import users_of
from atoll.web.pages.jobs import history
from stand_ins.layouts import MODEL, two_pairs


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


class Started:
    """Jobs that are written down and not started."""

    def __init__(self):
        self.calls = []

    def start(self, argv, **given):
        self.calls.append((argv, given["secrets_in_environment"]))
        return Job(note=JobNote(id="1", title="x", argv=tuple(argv), started_at=0.0), state=JobState.RUNNING)


def test_the_users_of_a_running_load_test_are_changed_by_its_file(site, client):
    site.jobs, site.door = Started(), "http://127.0.0.1:9"
    assert client.post("/jobs/bench", data={"users": "3", "name": "mine"}).status_code == 303
    (argv, _), *_ = site.jobs.calls
    assert argv[-2:] == ["--control", ".atoll/controls/mine"]
    running = Job(note=JobNote(id="1", title="x", argv=tuple(argv), started_at=0.0), state=JobState.RUNNING)
    site.jobs.find = lambda job_id: running
    assert users_of(site, running) == "3"
    assert client.post("/jobs/1/users", data={"users": "9" * 5000}).status_code == 400
    assert client.post("/jobs/1/users", data={"users": "12"}).status_code == 303
    assert ControlFile(site.workspace.root / ".atoll/controls/mine").wanted_users() == 12
    assert users_of(site, running) == "12"
    assert "12 users in job 1" in (site.workspace.own / "audit.jsonl").read_text()
    for wrong in ("", "-1", "3.5", "١", "200000"):
        assert client.post("/jobs/1/users", data={"users": wrong}, headers={"HX-Request": "true"}).status_code == 400
    assert client.post("/jobs/bench", data={"rate": "2"}).status_code == 303
    assert "--control" not in site.jobs.calls[-1][0]
    site.jobs.find = lambda job_id: running.replace(state=JobState.DONE)
    gone = client.post("/jobs/1/users", data={"users": "4"}, headers={"HX-Request": "true"})
    assert "only a running load test with users" in gone.text


def test_a_load_test_has_the_engines_key_and_no_command_line_shows_it(site, client, monkeypatch):
    prepare(two_pairs(), read_model(MODEL), folder=site.workspace.root / "pair", free_router_port=True)
    (site.workspace.root / "pair" / ".env").write_text("VLLM_API_KEY=of-the-bundle\n")
    (bundle,) = site.workspace.things("bundle")
    site.jobs, site.door = Started(), "http://127.0.0.1:9"
    monkeypatch.setenv("VLLM_API_KEY", "of-the-server")
    assert client.post("/jobs/bench", data={"target": bundle.id}).status_code == 303
    assert client.post("/jobs/bench", data={}).status_code == 303
    monkeypatch.delenv("VLLM_API_KEY")
    assert client.post("/jobs/bench", data={}).status_code == 303
    keys = [secrets for _, secrets in site.jobs.calls]
    assert keys == [{"ATOLL_API_KEY": "of-the-bundle"}, {"ATOLL_API_KEY": "of-the-server"}, None]
    assert not any("of-the" in word for argv, _ in site.jobs.calls for word in argv)
    assert "of-the" not in (site.workspace.own / "audit.jsonl").read_text()
