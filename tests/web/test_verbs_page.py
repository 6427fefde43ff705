"""Every verb of the pages is clicked in some browser test: those that no other story needs are clicked here."""

import json
from pathlib import Path

import pytest
from playwright.sync_api import expect

from atoll.model.read import read_model
from stand_ins.control_plane import routes_of, start_server

FOREIGN = Path(__file__).parents[1] / "data" / "foreign"
HERE = Path(__file__).parent
CONFIG = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864,
    "num_attention_heads": 14, "num_hidden_layers": 24, "num_key_value_heads": 2, "vocab_size": 151936,
    "max_position_embeddings": 32768, "torch_dtype": "bfloat16",
}  # fmt: skip

# What a person can change -> the browser test that does it, and what it clicks there.
CLICKED = {
    "/boxes": ("test_verbs_page.py", 'name="Keep it"'),
    "/boxes/here": ("test_verbs_page.py", 'name="This machine"'),
    "/boxes/inspect": ("test_plan_page.py", 'name="Draw it"'),
    "/boxes/{box_id}/delete": ("test_verbs_page.py", 'name="Delete"'),
    "/chat/begin": ("test_chat_page.py", 'name="Begin"'),
    "/chat/{key}/delete": ("test_chat_page.py", 'name="Delete"'),
    "/chat/{key}/say": ("test_chat_page.py", 'name="Send"'),
    "/deployments/{bundle_id}/down": ("test_deployments_page.py", 'name="Down"'),
    "/deployments/{bundle_id}/update": ("test_deployments_page.py", 'name="Update"'),
    "/deployments/{bundle_id}/up": ("test_deployments_page.py", 'name="Up"'),
    "/doctor/check": ("test_doctor_page.py", 'name="Look at them"'),
    "/doctor/{upload_id}/accept": ("test_doctor_page.py", 'name="Accept this fix"'),
    "/doctor/{upload_id}/delete": ("test_doctor_page.py", 'name="Delete"'),
    "/doctor/{upload_id}/undo": ("test_doctor_page.py", 'name="Take back the last one"'),
    "/jobs/bench": ("test_deployments_page.py", 'name="Start the load test"'),
    "/jobs/{job_id}/delete": ("test_deployments_page.py", 'name="Forget"'),
    "/jobs/{job_id}/resume": ("test_verbs_page.py", 'name="Resume"'),
    "/jobs/{job_id}/stop": ("test_deployments_page.py", 'name="Stop"'),
    "/jobs/{job_id}/users": ("test_deployments_page.py", 'name="Change"'),
    "/plan/deploy": ("test_plan_page.py", 'name="Deploy"'),
    "/plan/model": ("test_verbs_page.py", 'name="Upload"'),
    "/plan/study": ("test_plan_page.py", 'name="Make a study of these"'),
    "/runs/import": ("test_verbs_page.py", 'name="Import"'),
    "/runs/{run_id}/forget": ("test_verbs_page.py", 'name="Forget"'),
    "/runs/{run_id}/tag": ("test_verbs_page.py", 'name="Tag it"'),
    "/settings/tokens": ("test_verbs_page.py", 'name="Make a token"'),
    "/settings/tokens/{token_id}/revoke": ("test_verbs_page.py", 'name="회수"'),
    "/studies": ("test_studies_page.py", 'name="Keep it"'),
    "/studies/check": ("test_studies_page.py", 'name="Check"'),
    "/studies/{study_id}/delete": ("test_plan_page.py", 'name="Delete"'),
    "/studies/{study_id}/resume": ("test_studies_page.py", 'name="Resume"'),
    "/studies/{study_id}/run": ("test_studies_page.py", 'name="Run it"'),
}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    place = tmp_path_factory.mktemp("verbs")
    made = start_server(place / "workspace", place / "state")
    yield made
    made.stop()


def test_every_change_is_clicked_in_some_browser_test(site):
    changes = {path for method, path in routes_of(site) if method == "POST"}
    assert changes - {"/api/runs"} == set(CLICKED)
    for file, words in CLICKED.values():
        assert words in (HERE / file).read_text(encoding="utf-8"), (file, words)


def test_the_printed_link_opens_home_and_settings(served, open_page):
    page = open_page(served.link)
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


def test_runs_are_imported_tagged_found_exported_compared_and_forgotten(served, open_page):
    page = open_page(served.link)
    page.get_by_role("link", name="Runs", exact=True).click()
    for file, name in (("vllm-detailed.json", "night"), ("guidellm.json", "day")):
        page.get_by_text("Take in a result of another load generator").click()
        page.locator("input[type=file]").set_input_files(FOREIGN / file)
        page.get_by_label("Name", exact=True).fill(name)
        page.get_by_role("button", name="Import").click()
        expect(page.get_by_role("link", name=name, exact=True)).to_be_visible()
    page.get_by_role("link", name="night", exact=True).click()
    page.get_by_label("Tag").fill("운영")
    page.get_by_role("button", name="Tag it").click()
    expect(page.locator(".label", has_text="운영")).to_be_visible()
    with page.expect_download() as coming:
        page.get_by_role("link", name="csv", exact=True).click()
    assert coming.value.path().read_text().count("\n") > 40
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_label("Tag").select_option("운영")
    page.get_by_role("button", name="Show").click()
    expect(page.get_by_role("link", name="day", exact=True)).to_have_count(0)
    page.get_by_role("link", name="Runs", exact=True).click()
    page.get_by_role("button", name="TTFT p50").click()  # sorted
    for name in ("night", "day"):
        page.get_by_label(f"Compare {name}").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator("td", has_text="ms").first).to_be_visible()
    page.go_back()
    page.get_by_role("link", name="day", exact=True).click()
    page.get_by_role("button", name="Forget").click()
    expect(page.get_by_role("link", name="night", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="day", exact=True)).to_have_count(0)


def test_boxes_and_models_are_kept_and_a_file_that_is_too_large_is_told_of_before_it_is_sent(
    served, open_page, tmp_path
):
    page = open_page(served.link)
    page.goto(f"{served.url}/boxes")
    large = tmp_path / "large.txt"
    large.write_bytes(b"x" * (2 << 20))
    page.locator("input[type=file]").set_input_files(large)
    page.get_by_role("button", name="Draw it").click()
    assert "larger than the 1 MiB" in page.locator("input[type=file]").evaluate("(one) => one.validationMessage")
    page.locator("input[type=file]").set_input_files([])
    page.get_by_role("button", name="Try the example").click()
    page.get_by_label("Name", exact=True).fill("office")
    page.get_by_role("button", name="Keep it").click()
    expect(page.get_by_role("heading", name="boxes/office.yaml")).to_be_visible()
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_text("office.yaml")).to_have_count(0)

    page.get_by_role("link", name="Plan", exact=True).click()
    page.get_by_text("A model that is not in the list").click()
    config = tmp_path / "config.json"
    config.write_text(json.dumps(CONFIG))
    page.locator("input[type=file]").set_input_files(config)
    page.get_by_label("Name", exact=True).fill("our-model")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_label("Model", exact=True)).to_have_value("models/our-model")
    assert read_model(str(served.workspace / "models" / "our-model")).weight_bytes > 1e8


def test_a_study_that_was_cut_is_resumed_from_its_job(served, open_page):
    """The job of a study whose keeper was killed; the study itself had not begun, and the command says so."""
    folder = served.workspace / ".atoll" / "jobs" / "1-abc"
    folder.mkdir(parents=True)
    (folder / "job.yaml").write_text(
        "id: 1-abc\ntitle: cut\nargv: [study, run, studies/x.yaml]\ntarget: runs/x\nstarted_at: 1.0\npid: 1\n"
        "process_started: 1\nboot: another\n"
    )
    page = open_page(served.link)
    page.get_by_role("link", name="Jobs").click()
    page.get_by_role("link", name="cut").click()
    expect(page.get_by_text("Its process is gone")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#command")).to_contain_text("atoll study resume runs/x")
    expect(page.get_by_text("failed", exact=True)).to_be_visible()
    expect(page.locator("#words")).to_contain_text("No study was started")


def test_this_machine_is_drawn_or_the_page_says_why_not(client):
    """Without a browser: an answer of 400 would stand in its console. The button is `name="This machine"`."""
    answer = client.post("/boxes/here", headers={"HX-Request": "true"})
    assert (answer.status_code == 200 and "<svg" in answer.text) or "on this machine" in answer.text
