"""Chat in a real browser, through a door: three turns, a stop in mid-answer, kept over a restart of the server."""

import pytest
from playwright.sync_api import expect

from stand_ins.control_plane import start_server


def test_three_turns_a_stop_and_a_restart(tmp_path, emulated_engine, open_page):
    place = (tmp_path / "workspace", tmp_path / "state")
    server = start_server(*place, ATOLL_ENGINE_URL=emulated_engine)
    page = open_page(server.link)
    page.goto(server.url + "/chat")
    page.get_by_label("Tokens at most").fill("12")
    page.get_by_role("button", name="Begin").click()
    for number, text in enumerate(("첫 질문", "<img src=x onerror=alert(1)>", "third"), start=1):
        page.get_by_label("Message").fill(text)
        page.get_by_role("button", name="Send").click()
        expect(page.locator("article.assistant footer")).to_have_count(number)
        expect(page.locator("article.assistant footer").last).to_contain_text("TTFT")
        assert page.locator("article.assistant .text").last.text_content().strip()
    address = page.url.split("/chat/")[1]
    page.goto("about:blank")
    server.kill()
    again = start_server(*place, ATOLL_ENGINE_URL=emulated_engine)
    try:
        other = open_page(again.link)
        other.goto(f"{again.url}/chat?find=질문")
        other.get_by_role("link", name="첫 질문").click()
        assert other.url.endswith(address)
        expect(other.locator("article.message")).to_have_count(6)
        expect(other.locator("article.user").nth(1)).to_contain_text("<img src=x onerror=alert(1)>")
        assert other.locator("#said img").count() == 0
        other.get_by_role("button", name="Delete").click()
        expect(other.get_by_text("No conversations yet.")).to_be_visible()
    finally:
        again.stop()


def test_an_answer_is_stopped_in_the_middle_and_what_came_is_kept(tmp_path, emulated_engine, open_page):
    server = start_server(tmp_path / "workspace", tmp_path / "state", ATOLL_ENGINE_URL=emulated_engine)
    try:
        page = open_page(server.link)
        page.goto(server.url + "/chat")
        page.get_by_label("Tokens at most").fill("20000")
        page.get_by_role("button", name="Begin").click()
        page.get_by_label("Message").fill("go on for ever")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("article.assistant .text")).not_to_be_empty()
        page.get_by_role("button", name="Stop").click()
        expect(page.locator("article.assistant footer")).to_contain_text("stopped")
        expect(page.get_by_role("button", name="Send")).to_be_enabled()
        page.reload()
        expect(page.locator("article.assistant footer")).to_contain_text("stopped")
        assert page.locator("article.assistant .text").text_content().strip()
    finally:
        server.stop()


def test_without_a_door_the_page_says_so(client):
    assert "There is nobody to talk to" in client.get("/chat").text


@pytest.mark.parametrize("form", [{"door": "none", "model": "m"}, {"door": "door", "model": "m", "temperature": "9"}])
def test_a_bad_beginning_is_a_sentence(site, client, form):
    site.door = "http://127.0.0.1:9"
    assert client.post("/chat/begin", data=form).status_code == 400


def test_the_deployment_that_the_link_names_is_chosen_or_said_to_be_silent(site, client, emulated_engine):
    site.door = emulated_engine
    page = client.get("/chat?door=door").text
    assert '<option value="door">' in page
    assert "does not answer right now" not in page
    assert "bundles/x does not answer right now" in client.get("/chat?door=bundles%2Fx").text
