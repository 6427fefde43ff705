"""A deployment in a real browser: up, loaded, the server killed in the middle, an engine and the door killed, down."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from atoll.model.read import read_model
from atoll.run.deployment import read_state
from atoll.run.process import prepare
from stand_ins.control_plane import start_server
from stand_ins.layouts import two_pairs
from stand_ins.patience import PATIENCE_S

MODEL = "Qwen/Qwen2.5-7B-Instruct"


@pytest.fixture
def bundle(tmp_path):
    folder = tmp_path / "workspace" / "pair"
    prepare(two_pairs(model=MODEL), read_model(MODEL), folder=folder, free_router_port=True)
    yield folder
    subprocess.run([sys.executable, "-m", "atoll", "down", str(folder)], capture_output=True, timeout=PATIENCE_S)


@pytest.fixture(autouse=True)
def patience():
    expect.set_options(timeout=PATIENCE_S * 1000)
    yield
    expect.set_options(timeout=5000)


def test_a_deployment_is_brought_up_loaded_and_taken_down(tmp_path, bundle, open_page):
    place = (tmp_path / "workspace", tmp_path / "state")
    first = start_server(*place)
    page = open_page(first.link)
    page.get_by_role("link", name="Deployments").click()
    page.get_by_role("link", name="pair").click()
    label = page.locator("#now .label").first
    expect(label).to_have_text("down")
    page.get_by_role("button", name="Up", exact=True).click()
    expect(label).to_have_text("up")
    expect(page.locator("#now td.good")).to_have_text(["healthy"] * 3)
    expect(page.locator("#words")).to_contain_text("replica 0 of two-pairs")
    page.get_by_role("button", name="Update", exact=True).click()
    expect(page.locator("#now")).to_contain_text("atoll update")
    expect(label).to_have_text("up")
    for field, value in {"Users": "4", "How long": "10m", "Prompt tokens": "16", "Output tokens": "8"}.items():
        page.get_by_label(field, exact=True).fill(value)
    page.get_by_label("Name of the run").fill("live")
    page.get_by_role("button", name="Start the load test").click()
    expect(page.locator("[data-figure=ok]")).to_have_text(re.compile(r"^([3-9]|[\d,]{2,})$"))
    page.get_by_label("Users at once, from now on").fill("3")
    page.get_by_role("button", name="Change", exact=True).click()
    expect(page.get_by_label("Users at once, from now on")).to_have_value("3")
    page.goto("about:blank")
    first.kill()

    second = start_server(*place)
    try:
        other = open_page(second.link)
        expect(other.locator("#now")).to_contain_text("tokens/s")  # the first page has its figures
        expect(other.get_by_role("link", name="live")).to_be_visible()
        other.get_by_role("link", name="pair", exact=True).click()
        shares = other.locator('#now td[data-label="Door\'s share"]')
        expect(shares.first).to_have_text(re.compile(r"^[1-9]"))
        expect(shares.last).to_have_text(re.compile(r"^[1-9]"))
        below = other.locator("#log").bounding_box()
        for _ in range(2):
            with other.expect_response("**/state"):
                pass
        assert other.locator("#log").bounding_box() == below  # what comes in moves nothing
        other.get_by_role("link", name="live").click()
        expect(other.get_by_text("emulated", exact=True)).to_be_visible()
        answered = other.locator("[data-figure=ok]")
        expect(answered).to_have_text(re.compile(r"^[\d,]+$"))  # the page's script has run
        seen = answered.text_content()
        expect(answered).not_to_have_text(seen)  # it goes on
        expect(other.locator("#chart-ttft canvas")).to_be_visible()
        other.get_by_role("button", name="Stop").click()
        expect(other.get_by_text("stopped", exact=True)).to_be_visible()
        expect(other.locator("#words")).to_contain_text("Stopped by hand")
        other.get_by_role("button", name="Forget").click()  # the job; its run stays

        other.get_by_role("link", name="Deployments").click()
        other.get_by_role("link", name="pair", exact=True).click()
        for field, value in {"Users": "4", "How long": "2s", "Prompt tokens": "16", "Output tokens": "8"}.items():
            other.get_by_label(field, exact=True).fill(value)
        other.get_by_label("Name of the run").fill("second")
        other.get_by_role("button", name="Start the load test").click()
        expect(other.get_by_text("done", exact=True)).to_be_visible()
        other.get_by_role("link", name="Runs", exact=True).click()
        for name in ("second", "live"):
            other.get_by_label(f"Compare {name}").check()
        other.get_by_role("button", name="Compare").click()
        expect(other.get_by_role("heading", name=re.compile("^Held against "))).to_be_visible()
        expect(other.locator("main .label")).to_have_text(["emulated"] * 2)
        other.get_by_role("link", name="Deployments").click()
        other.get_by_role("link", name="pair", exact=True).click()

        os.kill(read_state(bundle).replicas[0].pid, signal.SIGKILL)
        state = other.locator("#now .label").first
        expect(state).to_have_text("degraded")
        expect(other.locator("#now .whys")).to_contain_text("Replica 0: signal 9")
        os.kill(read_state(bundle).router.pid, signal.SIGKILL)
        expect(other.locator("#now .whys")).to_contain_text("Door (nginx): it ended and left")
        other.get_by_role("button", name="Down", exact=True).click()
        expect(state).to_have_text("down")
        other.locator("summary", has_text="nginx.conf").click()
        expect(other.locator("details[open] pre")).to_contain_text("upstream replicas")
        other.goto("about:blank")
    finally:
        second.stop()
    assert read_state(bundle).living(bundle) == {}
    counts = json.loads((tmp_path / "workspace" / "runs" / "live" / "summary.json").read_text())["requests"]
    assert counts["sent"] == counts["ok"] + counts.get("failed", 0) + counts.get("cancelled", 0)
    assert counts["ok"] > 2
