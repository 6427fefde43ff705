"""A load test live in a real browser: started, seen, the server killed and started again, the test gone on, stopped."""

import json
import re

from playwright.sync_api import expect

from atoll.web.pages.jobs import history
from stand_ins.control_plane import start_server

LOAD = {"name": "live", "users": "3", "duration": "10m", "prompt": "16", "output": "8"}


def test_a_load_test_is_seen_live_and_outlives_the_server(tmp_path, emulated_engine, open_page):
    place = (tmp_path / "workspace", tmp_path / "state")
    first = start_server(*place, ATOLL_ENGINE_URL=emulated_engine)
    page = open_page(first.link)
    token = {"Authorization": f"Bearer {first.secret}"}
    started = page.request.post(f"{first.url}/jobs/bench", form=LOAD, headers=token)
    assert started.ok, started.text()
    page.goto(started.url)
    answered = page.locator("[data-figure=ok]")
    expect(answered).to_have_text(_more_than(2))
    page.goto("about:blank")
    first.kill()
    second = start_server(*place, ATOLL_ENGINE_URL=emulated_engine)
    try:
        other = open_page(second.link)
        other.goto(second.url + "/jobs")
        other.get_by_role("link", name="live").click()
        expect(other.get_by_text("running", exact=True)).to_be_visible()
        expect(other.locator("[data-figure=ok]")).to_have_text(_more_than(0))  # the page's script has run
        before = int(other.locator("[data-figure=ok]").text_content().replace(",", ""))
        expect(other.locator("[data-figure=ok]")).to_have_text(_more_than(before))
        expect(other.locator("#chart-ttft canvas")).to_be_visible()
        other.get_by_role("button", name="Stop").click()
        expect(other.get_by_text("stopped", exact=True)).to_be_visible()
        expect(other.locator("#words")).to_contain_text("Stopped by hand")
    finally:
        second.stop()
    summary = json.loads((tmp_path / "workspace" / "runs" / "live" / "summary.json").read_text())
    counts = summary["requests"]
    assert counts["sent"] == counts["ok"] + counts.get("failed", 0) + counts.get("cancelled", 0)
    assert counts["ok"] > 2


def _more_than(number):
    """A pattern of whole numbers above this one, below a million."""
    return re.compile("^(?:" + "|".join(f"{n:,}" for n in range(number + 1, number + 3000)) + ")$")


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
