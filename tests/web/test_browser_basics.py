"""Home and settings in a real browser."""

from playwright.sync_api import expect


def test_the_printed_link_opens_home_and_settings(server, open_page):
    page = open_page(server.link)
    expect(page.get_by_role("heading", name="What would you like to do?")).to_be_visible()
    assert "token" not in page.url
    page.get_by_role("link", name="Settings").click()
    page.get_by_label("Whose").fill("김 팀장")
    page.get_by_role("button", name="Make a token").click()
    expect(page.get_by_role("status")).to_contain_text("김 팀장")
    page.get_by_role("button", name="한국어").click()
    expect(page.get_by_role("heading", name="설정")).to_be_visible()
    page.get_by_role("button", name="회수").click()
    expect(page.get_by_role("button", name="회수")).to_have_count(0)
