"""Boxes in a real browser: paste, draw, keep, delete."""

import pytest
from playwright.sync_api import expect


def test_the_example_is_drawn_kept_and_deleted(server, open_page):
    page = open_page(server.link)
    page.get_by_role("link", name="Boxes").click()
    page.get_by_role("button", name="Try the example").click()
    page.get_by_role("button", name="Draw it").click()
    found = page.locator("#found")
    expect(found).to_contain_text("Joined by NVLink: 0-1, 2-3")
    expect(found.locator("svg.layout")).to_be_visible()
    page.get_by_label("Name").fill("사무실 서버")
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("heading", name="boxes/사무실-서버.yaml")).to_be_visible()
    assert (server.workspace / "boxes" / "사무실-서버.yaml").is_file()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("None yet.")).to_be_visible()


@pytest.mark.parametrize(
    ("text", "said"), [("", "Paste the output of"), ("hello <b>x</b>", "topology"), ("gpus: 7", "gpus")]
)
def test_what_is_no_capture_is_answered_with_the_sentence(client, text, said):
    answer = client.post("/boxes/inspect", data={"text": text}, headers={"HX-Request": "true"})
    assert answer.status_code == 400
    assert said in answer.text
    assert "<b>x</b>" not in answer.text


def test_a_machine_without_gpus_says_so(client):
    answer = client.post("/boxes/here", headers={"HX-Request": "true"})
    assert answer.status_code in {200, 400}
    if answer.status_code == 400:
        assert "nvidia" in answer.text.lower()
