"""Studies: what is none is a sentence at its line; nothing in one leads out of the workspace; runs as far as they are."""

import pytest

from atoll.web.jobs import JobNote
from atoll.web.studying import lines_around, study_state
from atoll.web.workspace import Kind
from atoll.workflows.study import run_study
from stand_ins.control_plane import STUDY, VIEWER, client_of

HTMX = {"HX-Request": "true"}


def check(client, text, **more):
    return client.post("/studies/check", data={"text": text}, headers=HTMX, **more)


def test_a_study_is_checked_and_shows_what_it_will_run(site):
    with client_of(site, secret=VIEWER) as viewer:
        answer = check(viewer, STUDY)
        assert "It can be run: 2 variants." in answer.text
        assert viewer.post("/studies", data={"text": STUDY}).status_code == 403
    assert not (site.workspace.root / "studies").exists()


@pytest.mark.parametrize(
    ("before", "after", "said", "line"),
    [
        ("tensor_parallel: 1}", "tensor_paralel: 1}", "variants[0].tensor_paralel is not a field here", 6),
        ("users: 2", "users: none", "workload.users", 4),
        ("name: two", "name: one", "two variants are called one", None),
        ("replicas: 2", "replicas: 9", "needs 1 x 9 GPUs", None),
        ("name: cards", "name: [", "this is not YAML", 3),
        ("L40S-48GB", "<img src=x>", "GPU", None),
        ("Qwen/Qwen2.5-7B-Instruct", "nobody/<script>", "is not a model that atoll knows", 3),
        ("box: {gpu: L40S-48GB, gpus: 2}", "box: /etc/passwd", "is not in this workspace", 2),
        ("box: {gpu: L40S-48GB, gpus: 2}", "box: ../../state/tokens.json", "is not in this workspace", 2),
        ("Qwen/Qwen2.5-7B-Instruct", "/etc", "is not in this workspace", 3),
        ("users: 2, requests: 12, prompt: 64, output: 16", "trace: /etc/passwd", "is not in this workspace", None),
        ("variants:", "profile: /etc/hostname\nvariants:", "is not in this workspace", 5),
    ],
)
def test_what_is_no_study_is_a_sentence_at_its_line(asked_often, before, after, said, line):
    answer = check(asked_often, STUDY.replace(before, after, 1))
    assert 'role="alert"' in answer.text
    assert said in answer.text
    assert line is None or f"<mark>{line:4d}" in answer.text
    assert "<img" not in answer.text
    assert "<script>" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    "text", ["", "- 1", "name: x", "\x00", "{" * 300, "a: &a [1]\nb: " + "*a" * 9, "x" * (2 << 20)]
)
def test_garbage_is_a_sentence(asked_often, text):
    answer = check(asked_often, text)
    assert 'role="alert"' in answer.text
    assert "atoll itself failed" not in answer.text


def test_a_document_that_grows_when_it_is_read_is_given_up(asked_often, monkeypatch):
    monkeypatch.setattr("atoll.web.pages.studies.CHECK_S", 1.0)
    groups = f"[&g [{'0, ' * 50_000}], {'*g, ' * 50_000}]"
    answer = check(asked_often, STUDY.replace("name: one,", f"name: one, gpus: {groups},"))
    assert answer.status_code in {400, 502}
    assert "longer than the 1 s" in answer.text or "ended in the middle" in answer.text
    monkeypatch.undo()
    assert "It can be run" in check(asked_often, STUDY).text


def test_a_kept_study_is_shown_again_and_a_bad_one_is_not_kept(site, client):
    kept = client.post("/studies", data={"text": STUDY})
    assert kept.status_code == 303
    page = client.get(kept.headers["location"]).text
    assert "It can be run: 2 variants." in page
    assert "emulated engines behind nginx" in page
    bad = client.post("/studies", files={"file": ("<b>.yaml", STUDY.replace("users", "user"))})
    assert bad.status_code == 400
    assert "workload.user is not a field here" in bad.text
    assert "name: cards" in bad.text
    assert [thing.name for thing in site.workspace.things(Kind.STUDY)] == ["studies/cards.yaml"]
    assert client.post(kept.headers["location"] + "/run", data={"engine": "--insecure"}).status_code == 400
    assert client.post(kept.headers["location"] + "/delete").status_code == 303
    assert site.workspace.things(Kind.STUDY) == ()


def run_in(site, only=None):
    """A study's run in the workspace, as the command line makes it."""
    document = site.workspace.root / "studies" / "cards.yaml"
    document.parent.mkdir(parents=True)
    document.write_text(STUDY)
    folder = site.workspace.root / "runs" / "cards-simulated"
    run_study(document, engine="simulated", out=folder, only=only)
    return folder, site.workspace.thing_at(folder, Kind.STUDY_RUN).id


def test_a_run_shows_its_ranking_and_its_report(site, client):
    folder, run_id = run_in(site)
    page = client.get(f"/studies/{run_id}").text
    assert "2 of 2 variants" in page
    assert 'hx-trigger="every 2s"' not in page
    assert "simulated" in page
    ranking = client.get(f"/studies/{run_id}/ranking").text
    assert ranking.count("<b>one</b>") == 1
    assert "baseline" in ranking
    report = client.get(f"/studies/{run_id}/report?lang=ko")
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts;")
    assert 'lang="ko"' in report.text
    assert client.get(f"/studies/{run_id}/report?lang=../x").status_code == 400
    assert not (folder / "report.html").exists()
    assert "runs/cards-simulated" in client.get("/studies").text


def test_a_run_that_was_cut_says_how_far_it_is_and_is_resumed(site, client):
    folder, run_id = run_in(site)
    info = (folder / "two" / "run.yaml").read_text()
    (folder / "two" / "run.yaml").write_text(info.replace("complete: true", "complete: false"))
    page = client.get(f"/studies/{run_id}").text
    assert "1 of 2 variants" in page
    assert "Not started from here" in page
    grown = client.get(f"/studies/{run_id}/state?done=0")
    assert grown.headers["hx-trigger"] == "grown"
    assert "hx-trigger" not in client.get(f"/studies/{run_id}/state?done=1").headers
    assert client.post(f"/studies/{run_id}/resume").status_code == 303
    (job,) = site.jobs.all()
    assert job.note.argv == ("study", "resume", "runs/cards-simulated")
    with client_of(site, secret=VIEWER) as viewer:
        assert viewer.post(f"/studies/{run_id}/resume").status_code == 403


def test_a_run_that_its_job_is_about_to_begin_has_a_page(site, client):
    folder = site.workspace.root / "runs" / "soon"
    run_id = site.workspace.thing_at(folder, Kind.STUDY_RUN).id
    assert client.get(f"/studies/{run_id}").status_code == 404
    note = JobNote(id="1-a", title="soon", argv=("study", "run", "x"), target="runs/soon", started_at=1.0)
    place = site.workspace.own / "jobs" / "1-a"
    place.mkdir(parents=True)
    (place / "job.yaml").write_text(note.to_yaml())
    page = client.get(f"/studies/{run_id}")
    assert page.status_code == 200
    assert "It is starting." in page.text
    (place / "end.yaml").write_text("exit_code: 2\nended_at: 2.0\n")
    assert "ended before it began the study" in client.get(f"/studies/{run_id}").text


def test_a_run_of_five_hundred_variants_is_read_once(site, client):
    folder, run_id = run_in(site, only=["one"])
    variants = "".join(f"  - {{name: v{n}, tensor_parallel: 1}}\n" for n in range(500))
    (folder / "study.yaml").write_text(STUDY.partition("  - {name: one")[0] + variants)
    how = (folder / "study-run.yaml").read_text()
    (folder / "study-run.yaml").write_text(
        "".join(f"{line}\n" for line in how.splitlines() if not line.startswith(("only", "  -")))
    )
    assert len(study_state(folder).variants) == 500
    assert "0 of 500 variants" in client.get(f"/studies/{run_id}/state").text


def test_a_folder_that_is_broken_is_a_sentence_in_the_list(site, client):
    folder, run_id = run_in(site)
    (folder / "study.yaml").write_text("name: <b>x</b>\n")
    page = client.get("/studies")
    assert page.status_code == 200
    assert "study.yaml" in page.text
    assert client.get(f"/studies/{run_id}").status_code == 400


def test_the_line_of_an_error_is_the_nearest_that_is_there():
    text = "a: 1\nb:\n  - c: 2\n"
    assert lines_around(text, "the study: b[0].c: no.")[-1] == (3, "  - c: 2", True)
    assert lines_around(text, "the study: b[0].d is missing.")[-1] == (3, "  - c: 2", True)
    assert lines_around(text, "nothing of it") == ()
