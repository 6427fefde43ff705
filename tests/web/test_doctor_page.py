"""The doctor in a real browser: a stack with faults uploaded, two of three fixes accepted, the mended files taken away."""

import zipfile

from playwright.sync_api import expect

COMPOSE = """services:
  vllm:
    image: vllm/vllm-openai:v0.32.0
    privileged: true
    command: ["--model", "Qwen/Qwen2.5-7B-Instruct"]
    gpus: all
"""


def test_two_of_three_fixes_are_accepted_and_only_those_are_in(server, open_page, tmp_path):
    stack = tmp_path / "stack.zip"
    with zipfile.ZipFile(stack, "w") as archive:
        archive.writestr("compose.yaml", COMPOSE)
    page = open_page(server.link)
    page.get_by_role("link", name="Check my files").click()
    page.get_by_label("… or choose files, or a .zip").set_input_files(stack)
    page.get_by_role("button", name="Look at them").click()
    expect(page.get_by_role("heading", name="stack.zip")).to_be_visible()
    for number, said in enumerate(("vllm is privileged", "vllm has no health check"), start=1):
        finding = page.get_by_role("article").filter(has_text=said)
        finding.get_by_role("button", name="Accept this fix").click()
        expect(finding).to_have_count(0)
        expect(page.locator("ol li")).to_have_count(number)
    left = page.get_by_role("article").filter(has_text="killed 10 s after it is told to stop")
    expect(left.locator("pre.diff")).to_contain_text("+    stop_grace_period")
    with page.expect_download() as coming:
        page.get_by_role("button", name="Download the files (.zip)").click()
    with zipfile.ZipFile(coming.value.path()) as archive:
        mended = archive.read("compose.yaml").decode()
    assert "privileged" not in mended
    assert "healthcheck:" in mended
    assert "stop_grace_period" not in mended
    page.get_by_role("button", name="Take back the last one").click()
    expect(page.locator("ol li")).to_have_count(1)
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("None. What you upload")).to_be_visible()
