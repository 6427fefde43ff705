"""A study in a real browser: a mistake is shown at its line, mended, kept, run in virtual time, reported."""

import re

from playwright.sync_api import expect

from stand_ins.control_plane import STUDY, start_server


def restarted(server, state):
    """Another server over the same workspace; the fixture stops it."""
    made = start_server(server.workspace, state)
    return made.process, made.link


def test_a_study_is_mended_run_and_reported_though_the_server_is_killed(tmp_path, server, open_page):
    page = open_page(server.link)
    page.get_by_role("link", name="Studies").click()
    text = page.get_by_label("study.yaml")
    text.fill(STUDY.replace("output: 16", "outputs: 16"))
    page.get_by_role("button", name="Check").click()
    expect(page.locator("mark")).to_contain_text("outputs: 16")
    text.fill(STUDY)
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_text("It can be run: 2 variants.")).to_be_visible()
    page.get_by_role("button", name="Keep it").click()
    page.get_by_label("How to run it").select_option("simulated")
    page.get_by_role("button", name="Run it").click()
    expect(page.locator("#command")).to_contain_text("atoll study run studies/cards.yaml --engine simulated")
    assert list(server.workspace.glob(".atoll/jobs/*/end.yaml")) == []
    address = page.url.removeprefix(server.url)
    page.goto("about:blank")
    server.kill()
    server.process, server.link = restarted(server, tmp_path / "state")
    page = open_page(server.link)
    page.goto(server.url + address)
    expect(page.locator("#ranking").get_by_role("cell", name="two")).to_be_visible()
    expect(page.get_by_text(re.compile(r"2 of 2 variants"))).to_be_visible()
    with page.expect_popup() as opened:
        page.get_by_role("button", name="Report of 2 of 2").click()
    expect(opened.value.get_by_role("heading", level=1)).to_be_visible()
    opened.value.close()

    cut = server.workspace / "runs" / "cards-simulated" / "two" / "run.yaml"
    cut.write_text(cut.read_text().replace("complete: true", "complete: false"))
    page.reload()
    expect(page.get_by_text("1 of 2 variants")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#command")).to_contain_text("atoll study resume runs/cards-simulated")
    expect(page.get_by_text("2 of 2 variants")).to_be_visible()
    expect(page.get_by_text("done", exact=True)).to_be_visible()
