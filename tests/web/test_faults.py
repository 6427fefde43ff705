"""What goes wrong around the pages is told in words, loses nothing, and holds up nobody."""

import shutil
import time
from pathlib import Path
from threading import Thread

import pytest

from atoll.outside.clock import SystemClock
from atoll.web.audit import FILE
from atoll.web.jobs import Job, JobEnd, JobNote, JobState
from atoll.web.looks import Seen
from atoll.web.pages.deployments import Shown
from atoll.web.site import PAGES
from atoll.web.workspace import Kind, Thing
from atoll.workflows.look import DeploymentLook
from stand_ins.control_plane import STUDY, client_of
from stand_ins.patience import PATIENCE_S, wait_until

PATHS = tuple("/" if name == "home" else f"/{name}" for name in PAGES)


@pytest.fixture
def running(site):
    """A job that runs until it is stopped."""
    job = site.jobs.start(["serve", "inner", "--port", "0"], title="inner", now=SystemClock().wall())
    wait_until(lambda: b"?token=" in site.jobs.output(job.note.id)[0])
    return job.note.id


def test_two_browsers_press_stop_at_once(site, client, running):
    answers = []
    pressing = [Thread(target=lambda: answers.append(client.post(f"/jobs/{running}/stop"))) for _ in range(2)]
    for one in pressing:
        one.start()
    for one in pressing:
        one.join(PATIENCE_S)
    assert [answer.status_code for answer in answers] == [303, 303]
    wait_until(lambda: site.jobs.find(running).state in {JobState.STOPPED, JobState.DONE})
    assert client.post(f"/jobs/{running}/stop").status_code == 303  # a third one, late


def test_on_a_full_disk_nothing_is_changed_and_what_runs_is_stopped_all_the_same(site, client, running):
    """/dev/full takes no byte, as a disk that is full."""
    (site.workspace.own / FILE).symlink_to("/dev/full")
    answer = client.post("/studies", data={"text": STUDY}, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert "cannot be written: No space left on device. Nothing was changed." in answer.text
    assert site.workspace.things(Kind.STUDY) == ()
    assert client.get("/studies").status_code == 200
    assert client.post(f"/jobs/{running}/stop").status_code == 303
    wait_until(lambda: site.jobs.find(running).state in {JobState.STOPPED, JobState.DONE})


def test_a_workspace_that_is_deleted_under_the_pages(site):
    with client_of(site, raising=False, Accept="text/html") as client:
        client.get("/")
        shutil.rmtree(site.workspace.root)
        assert {path: client.get(path).status_code for path in PATHS} == dict.fromkeys(PATHS, 200)
        kept = client.post("/studies", data={"text": STUDY})
        assert kept.status_code == 303  # the folder is made anew
        assert client.get(kept.headers["location"]).status_code == 200


@pytest.mark.parametrize(("jump_s", "settling"), [(0, True), (-3600, False), (3600, False)])
def test_a_clock_that_is_put_back_or_forward_leaves_no_deployment_settling(jump_s, settling):
    """A look that began 1 s before `atoll up` ended knows nothing of its end; the jump lies between the two."""
    job = Job(
        note=JobNote(id="1", title="up", argv=("up", "pair"), target="pair", started_at=0.0),
        state=JobState.DONE,
        end=JobEnd(exit_code=0, ended_at=1000.0),
    )
    thing = Thing(id="1", kind=Kind.BUNDLE, path=Path("pair"), name="pair", changed_at=0.0)
    seen = Seen(look=DeploymentLook(), begun_at=999.0 + jump_s)
    assert Shown(thing=thing, seen=seen, job=job).settling is settling


def test_a_study_of_five_hundred_variants_is_checked_kept_and_shown(site, client):
    variants = "".join(f"  - {{name: v{n}, tensor_parallel: 1, replicas: {1 + n % 2}}}\n" for n in range(500))
    text = STUDY[: STUDY.index("  - {name: one")] + variants
    began = time.monotonic()
    checked = client.post("/studies/check", data={"text": text}, headers={"HX-Request": "true"}).text
    assert "500 variants" in checked
    page = client.get(client.post("/studies", data={"text": text}).headers["location"])
    assert page.status_code == 200
    assert "v499" in page.text
    assert time.monotonic() - began < PATIENCE_S
