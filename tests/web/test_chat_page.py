"""Chat in a real browser, through nginx and two replicas: turns, a stop in mid-answer, kept over a restart of the server."""

import json
import re
import subprocess
import sys

import pytest
from playwright.sync_api import expect

from atoll.model.read import read_model
from atoll.run.process import prepare
from stand_ins.control_plane import start_server
from stand_ins.layouts import two_pairs
from stand_ins.mongo import mongo_server
from stand_ins.patience import PATIENCE_S, wait_until

MODEL = "Qwen/Qwen2.5-7B-Instruct"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """A workspace with a deployment that is up: `pair`, two emulated replicas behind the real nginx."""
    place = tmp_path_factory.mktemp("chat") / "workspace"
    prepare(two_pairs(model=MODEL), read_model(MODEL), folder=place / "pair", free_router_port=True)
    atoll = [sys.executable, "-m", "atoll"]
    subprocess.run([*atoll, "up", str(place / "pair")], check=True, capture_output=True, timeout=PATIENCE_S)
    yield place
    subprocess.run([*atoll, "down", str(place / "pair")], capture_output=True, timeout=PATIENCE_S)


def test_three_turns_a_stop_in_mid_answer_and_a_restart(workspace, tmp_path, open_page):
    place = (workspace, tmp_path / "state", "--catalog", f"sqlite:{tmp_path / 'runs.db'}")
    server = start_server(*place)
    page = open_page(server.link)
    page.get_by_role("link", name="pair", exact=True).click()
    page.get_by_role("link", name="Chat", exact=True).last.click()
    begin(page, tokens=12)
    for number, text in enumerate(("첫 질문", "<img src=x onerror=alert(1)>", "third"), start=1):
        page.get_by_label("Message").fill(text)
        page.get_by_role("button", name="Send").click()
        expect(page.locator("article.assistant footer")).to_have_count(number)
        expect(page.locator("article.assistant footer").last).to_contain_text(
            re.compile(r"TTFT .* tokens/s · replica [01] · emulated")
        )
        assert page.locator("article.assistant .text").last.text_content().strip()
    address = page.url.split("/chat/")[1]
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download").click()
    assert json.loads(coming.value.path().read_text())["messages"][0]["text"] == "첫 질문"

    page.get_by_role("button", name="New conversation").click()
    begin(page, tokens=20000)
    page.get_by_label("Message").fill("go on for ever")
    page.get_by_role("button", name="Send").click()
    expect(page.locator("article.assistant .text")).not_to_be_empty()
    page.get_by_role("button", name="Stop").click()
    expect(page.locator("article.assistant footer")).to_contain_text("stopped")
    expect(page.get_by_role("button", name="Send")).to_be_enabled()
    token = {"Authorization": f"Bearer {server.secret}"}
    wait_until(lambda: "· stopped" in page.request.get(page.url, headers=token).text())  # kept by the server too
    page.goto("about:blank")
    server.kill()

    again = start_server(*place)
    try:
        other = open_page(again.link)
        other.get_by_role("link", name="Chat", exact=True).click()
        other.get_by_role("link", name="go on for ever").click()
        expect(other.locator("article.assistant footer")).to_contain_text("stopped")
        assert other.locator("article.assistant .text").text_content().strip()
        other.get_by_role("searchbox").fill("질문")
        other.get_by_role("searchbox").press("Enter")
        expect(other.get_by_role("link", name="go on for ever")).to_have_count(0)
        other.get_by_role("link", name="첫 질문").click()
        assert other.url.endswith(address)
        expect(other.locator("article.message")).to_have_count(6)
        expect(other.locator("article.user").nth(1)).to_contain_text("<img src=x onerror=alert(1)>")
        assert other.locator("#said img").count() == 0
        other.get_by_role("button", name="Delete").click()
        expect(other.get_by_role("link", name="첫 질문")).to_have_count(0)
    finally:
        again.stop()


def test_on_mongodbs_protocol_a_conversation_outlives_a_killed_server_too(workspace, tmp_path, open_page):
    with mongo_server(tmp_path / "mongo") as mongo:
        place = (workspace, tmp_path / "state", "--catalog", mongo.url("chat"))
        server = start_server(*place)
        page = open_page(server.link)
        page.goto(f"{server.url}/chat?door=pair")
        begin(page, tokens=8)
        page.get_by_label("Message").fill("잊지 마십시오")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("article.assistant footer")).to_contain_text("replica")
        address = page.url.removeprefix(server.url)
        page.goto("about:blank")
        server.kill()
        again = start_server(*place)
        try:
            other = open_page(again.link)
            other.goto(again.url + address)
            expect(other.locator("article.message")).to_have_count(2)
            other.get_by_role("button", name="Delete").click()
            expect(other.get_by_text("No conversations yet.")).to_be_visible()
        finally:
            again.stop()


def begin(page, *, tokens):
    expect(page.get_by_label("Model")).to_have_value(MODEL)
    page.get_by_label("Tokens at most").fill(str(tokens))
    page.get_by_role("button", name="Begin").click()
