"""Runs of a workspace: found by their folders, compared, tagged, exported, forgotten; nothing outside is shown."""

import json
from pathlib import Path

import pytest
from fastapi.testclient import TestClient  # noqa: F401

from atoll.analyse.summary import summarise
from atoll.store.folder import RunInfo, finish_run, start_run, with_id
from atoll.traffic import Record, RecordTable
from atoll.traffic.record import Source
from atoll.web.pages.runs import compare_link, index_run
from stand_ins.control_plane import VIEWER, client_of


def keep(site, name, *, ttft_s=0.1, requests=40):
    """A run's folder in the workspace, known to the catalogue."""
    folder = site.workspace.root / "runs" / name
    records = [
        Record(
            number=n,
            user=n % 4,
            prompt_tokens=8,
            output_tokens=3,
            sent_s=n * 0.5,
            token_s=(n * 0.5 + ttft_s, n * 0.5 + ttft_s + 0.02, n * 0.5 + ttft_s + 0.04),
            done_s=n * 0.5 + ttft_s + 0.04,
        )
        for n in range(requests)
    ]
    table = RecordTable.from_records(records)
    info = with_id(folder, RunInfo(name=name, engine="vllm", source=Source.MEASURED, model="m", atoll_version="0"))
    start_run(folder, info, layout=None, workload=None)
    finish_run(folder, info, table, summarise(table))
    index_run(site, folder)
    return info.run_id


def test_runs_are_listed_and_looked_at(site, client):
    run_id = keep(site, "밤 시험")
    assert "밤 시험" in client.get("/runs").text
    page = client.get(f"/runs/{run_id}")
    assert page.status_code == 200
    assert "100 ms" in page.text
    assert "measured" in page.text
    assert client.get("/runs/none").status_code == 404


def test_two_runs_are_compared_at_an_address_that_can_be_sent(site):
    link = compare_link([keep(site, "slow", ttft_s=0.3), keep(site, "fast", ttft_s=0.1)])
    with client_of(site, secret=VIEWER) as viewer:
        page = viewer.get(link)
        assert page.status_code == 200
        assert "Held against slow" in page.text
        assert "−200 ms" in page.text
        assert "faster" in page.text
        assert viewer.get("/runs/compare?run=a").status_code == 404
        assert viewer.get("/runs/compare").status_code == 400


def test_a_run_is_tagged_exported_and_forgotten(site, client):
    run_id = keep(site, "one")
    assert client.post(f"/runs/{run_id}/tag", data={"tag": "운영"}).status_code == 303
    assert "운영" in client.get("/runs?tag=%EC%9A%B4%EC%98%81").text
    assert client.get(f"/runs/{run_id}/export?to=csv").text.count("\n") >= 40
    assert client.get(f"/runs/{run_id}/export?to=nothing").status_code == 400
    assert client.post(f"/runs/{run_id}/forget").status_code == 303
    assert "one" not in client.get("/runs").text
    assert (site.workspace.root / "runs" / "one" / "run.yaml").is_file()


def test_the_report_comes_in_a_frame_without_an_origin(site, client):
    answer = client.get(f"/runs/{keep(site, 'one')}/report?lang=ko")
    assert answer.status_code == 200
    assert answer.headers["content-security-policy"].startswith("sandbox allow-scripts;")


def test_a_run_whose_folder_lies_elsewhere_shows_its_summary_only(site, client, tmp_path):
    run_id = keep(site, "one")
    entry = site.catalog.load(run_id)
    outside = tmp_path / "elsewhere"
    Path(entry.folder).rename(outside)
    site.catalog.save(entry.replace(folder=str(outside)))
    page = client.get(f"/runs/{run_id}")
    assert "is not in this workspace" in page.text
    assert "100 ms" in page.text
    assert client.get(f"/runs/{run_id}/report").status_code == 400


@pytest.mark.parametrize("content", [b"", b"{}", b"\x00\xff", b"[1, 2]", json.dumps({"a": "<script>"}).encode()])
def test_a_bad_import_is_a_sentence(site, client, content):
    answer = client.post("/runs/import", files={"file": ("x.json", content)}, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert "<script>" not in answer.text
    assert list((site.workspace.own / "uploads").iterdir()) == []
