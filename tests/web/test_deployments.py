"""The deployments page without a browser: who may do what, what is shown of the files, what is told when things go."""

import shutil
import socket
from pathlib import Path

import pytest

from atoll.model.read import read_model
from atoll.outside.clock import SystemClock
from atoll.run.process import prepare, read_plan
from atoll.web.jobs import Job, JobEnd, JobNote, JobState
from atoll.web.looks import Seen
from atoll.web.pages.deployments import Shown
from atoll.web.workspace import Kind, Thing
from atoll.workflows.look import DeploymentLook
from stand_ins.control_plane import VIEWER, client_of
from stand_ins.layouts import MODEL, two_pairs
from stand_ins.patience import wait_until


@pytest.fixture
def bundle(site):
    folder = site.workspace.root / "deploy" / "pair"
    prepare(two_pairs(), read_model(MODEL), folder=folder, free_router_port=True)
    return folder


@pytest.fixture
def page(site, bundle):
    (thing,) = site.workspace.things("bundle")
    return f"/deployments/{thing.id}"


def test_a_bundle_that_was_never_started_is_down(client, page):
    assert "deploy/pair" in client.get("/deployments").text
    wait_until(lambda: ">down<" in client.get(f"{page}/state").text)
    wait_until(lambda: ">down<" in client.get("/deployments/now").text)
    assert "deploy/pair" not in client.get("/now").text  # the first page shows what runs


def test_without_bundles_the_list_says_what_to_do(client):
    assert "atoll render" in client.get("/deployments").text


def test_an_operator_has_the_buttons_and_a_viewer_has_not(site, client, page):
    with client_of(site, VIEWER) as viewer:
        assert f"{page}/up" in client.get(page).text
        shown = viewer.get(page).text
        assert "Replica 1" in shown
        assert not any(path in shown for path in (f"{page}/up", f"{page}/down", "/jobs/bench"))
        verbs = (f"{page}/up", f"{page}/down", f"{page}/update", "/jobs/bench")
        assert {viewer.post(path).status_code for path in verbs} == {403}
    assert site.jobs.all() == ()


def test_what_did_not_come_up_says_why(site, client, bundle, page):
    port = read_plan(bundle).router.port
    with socket.create_server(("127.0.0.1", port)):
        assert client.post(f"{page}/up").headers["location"] == page
        sentence = f'<p class="bad">Port {port} of 127.0.0.1, which the router needs, is taken'
        wait_until(lambda: sentence in client.get(f"{page}/state").text)
    (job,) = site.jobs.all()
    assert (job.command, job.note.started_by) == ("atoll up deploy/pair", "olga")
    assert "atoll up deploy/pair" in (site.workspace.own / "audit.jsonl").read_text()


@pytest.mark.parametrize(
    ("verb", "ended_at", "begun_at", "state"),
    [
        ("up", None, None, "starting"),
        ("down", None, 5.0, "stopping"),
        ("update", None, 5.0, "updating"),
        ("up", 6.0, 5.0, "starting"),  # what is known is of before
        ("up", 6.0, 7.0, "down"),
        ("up", 6.0, None, "looking"),
    ],
)
def test_a_state_is_never_that_of_before_the_last_up_or_down(verb, ended_at, begun_at, state):
    thing = Thing(id="1", kind=Kind.BUNDLE, path=Path("x"), name="x", changed_at=1.0)
    end = None if ended_at is None else JobEnd(exit_code=0, ended_at=ended_at)
    note = JobNote(id="1", title="t", argv=(verb, "x"), started_at=1.0)
    job = Job(note=note, state=JobState.RUNNING if end is None else JobState.DONE, end=end)
    seen = Seen(look=None if begun_at is None else DeploymentLook(), begun_at=begun_at)
    assert Shown(thing=thing, seen=seen, job=job).state == state


def test_inside_the_stack_up_and_down_are_the_operators_on_the_host(site, client, page):
    site.contained = True
    assert "on the host" in client.get(page).text
    assert f"{page}/up" not in client.get(page).text
    answer = client.post(f"{page}/up")
    assert (answer.status_code, site.jobs.all()) == (400, ())
    assert "on the host" in answer.text


def test_a_folder_that_is_deleted_under_the_page_is_told_in_it(client, bundle, page):
    shutil.rmtree(bundle)
    gone = client.get(f"{page}/state")
    assert (gone.status_code, "no longer there" in gone.text) == (200, True)
    assert client.get(page).status_code == 404
    assert client.post(f"{page}/up").status_code == 404


def test_a_layout_that_cannot_be_read_is_a_sentence(client, bundle, page):
    (bundle / "layout.yaml").write_text("name: <b>x</b>\n")
    shown = client.get(page)
    assert shown.status_code == 200
    assert "deploy/pair/layout.yaml" in shown.text
    assert "<b>x</b>" not in shown.text


def test_the_files_are_shown_without_secrets_and_links(client, bundle, page, tmp_path):
    (bundle / ".env").write_text("VLLM_API_KEY=hush\n")
    (bundle / "deployment.json").write_text('{"secret": "hush"}')
    (tmp_path / "elsewhere.yaml").write_text("hush")
    (bundle / "link.yaml").symlink_to(tmp_path / "elsewhere.yaml")
    shown = client.get(page).text
    assert "proxy_pass http://replicas" in shown
    assert "hush" not in shown


@pytest.mark.parametrize("name", ["../../x", "..", "a.b", "replica-0/../../x"])
def test_a_log_is_one_of_the_bundles_own(client, bundle, page, name):
    answer = client.get(f"{page}/log/{name}")
    assert "said" not in answer.text or "there is no replica" in answer.text


def test_a_log_is_followed_until_the_folder_goes(site, client, bundle, page):
    (bundle / "logs").mkdir()
    (bundle / "logs" / "replica-0.log").write_text("listening\nhalf a l")

    class Clock(SystemClock):
        async def sleep(self, seconds):
            shutil.rmtree(bundle)

    site.clock = Clock()
    events = client.get(f"{page}/log/replica-0").text
    assert 'event: said\ndata: "listening"\nid: 10' in events
    assert events.strip().endswith("event: over\ndata: {}")
    assert "half" not in events


def test_a_page_opens_with_the_end_of_the_log(client, bundle, page):
    (bundle / "logs").mkdir()
    (bundle / "logs" / "replica-1.log").write_text("one <i>\ntwo\nhalf")
    shown = client.get(f"{page}?log=replica-1").text
    assert "one &lt;i&gt;\ntwo\n</pre>" in shown
    assert 'data-after="12"' in shown
