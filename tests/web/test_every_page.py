"""Every page in a real browser: what axe finds, the keyboard alone, nothing in the console, nobody else asked."""

from importlib import resources
from pathlib import Path

import httpx
import pytest

from atoll.model.read import read_model
from atoll.outside.files import read_text
from atoll.run.process import prepare
from atoll.web.pages.boxes import EXAMPLE, EXAMPLE_GPU
from atoll.web.pages.runs import compare_link
from atoll.web.site import PAGES
from atoll.web.workspace import Kind, Workspace
from stand_ins.control_plane import start_server
from stand_ins.layouts import two_pairs

PATHS = tuple("/" if name == "home" else f"/{name}" for name in PAGES)
MODEL = "Qwen/Qwen2.5-7B-Instruct"
FOREIGN = Path(__file__).parents[1] / "data" / "foreign"
SERIOUS = {"serious", "critical"}
REACHED = """() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  const style = getComputedStyle(one), box = one.getBoundingClientRect();
  const seen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0 || style.boxShadow !== "none";
  one.dataset.reached = "yes";
  return {name: one.outerHTML.slice(0, 120), seen, shown: box.width > 0 && box.height > 0};
}"""
LEFT = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']")]
  .filter((one) => !one.dataset.reached && !one.disabled && one.type !== "hidden" && one.checkVisibility()
    && !(one.type === "radio" && !one.checked)).map((one) => one.outerHTML.slice(0, 120))"""


@pytest.fixture(scope="module")
def axe():
    """The text of axe-core, which a test dependency brings; it is MPL-2.0 and not in this repository."""
    return resources.files("axe_playwright_python").joinpath("axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    made = start_server(place / "workspace", place / "state")
    yield made
    made.stop()


@pytest.fixture(scope="module")
def paths(served):
    """The pages of the bar, and one of each kind below them that can be made without a GPU."""
    stack = {"text": "services:\n  vllm:\n    image: vllm/vllm-openai:latest\n    privileged: true\n"}
    capture = read_text(EXAMPLE)
    prepare(two_pairs(model=MODEL), read_model(MODEL), folder=served.workspace / "pair", free_router_port=True)
    workspace = Workspace(served.workspace)
    deployment = workspace.thing_at(served.workspace / "pair", Kind.BUNDLE).id
    with httpx.Client(base_url=served.url, headers={"Authorization": f"Bearer {served.secret}"}) as client:
        made = [
            client.post("/doctor/check", data=stack),
            client.post("/boxes", data={"name": "office", "text": capture, "gpu": EXAMPLE_GPU}),
            client.post(
                "/jobs/bench", data={"target": deployment, "duration": "1s"}
            ),  # it is down, and the job says so
            client.post("/chat/begin", data={"door": "pair", "model": MODEL, "system": "짧게"}),
        ]
        for name in ("one", "two"):
            file = ("result.json", (FOREIGN / "vllm-detailed.json").read_bytes())
            client.post("/runs/import", data={"name": name}, files={"file": file})
        runs = [run["run_id"] for run in client.get("/api/runs").json()["runs"]]
    below = [f"/runs/{runs[0]}", compare_link(runs), f"/deployments/{deployment}"]
    return (*PATHS, *(answer.headers["location"] for answer in made), *below)


LOOKS = [{"lang": "en-US", "scheme": "light", "width": 1440}, {"lang": "ko-KR", "scheme": "dark", "width": 390}]


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look["lang"])
def test_axe_finds_nothing_serious_on_any_page(served, paths, open_page, axe, look):
    page = open_page(served.link, **look)
    found = {}
    for path in paths:
        page.goto(served.url + path)
        page.evaluate(axe)
        violations = page.evaluate("axe.run()")["violations"]
        bad = [f"{one['id']}: {one['nodes'][0]['html'][:150]}" for one in violations if one["impact"] in SERIOUS]
        found |= {path: bad} if bad else {}
    assert found == {}


def test_no_page_is_wider_than_a_phone(served, paths, open_page):
    page = open_page(served.link, lang="ko-KR", width=390)
    wide = {}
    for path in paths:
        page.goto(served.url + path)
        width = page.evaluate("document.documentElement.scrollWidth")
        wide |= {path: width} if width > 390 else {}
    assert wide == {}


def test_everything_is_reached_by_the_keyboard_and_its_focus_is_seen(served, paths, open_page):
    page = open_page(served.link)
    unseen, left = {}, {}
    for path in paths:
        page.goto(served.url + path)
        for _ in range(120):
            page.keyboard.press("Tab")
            reached = page.evaluate(REACHED)
            if reached is None:
                break
            if not (reached["seen"] and reached["shown"]):
                unseen.setdefault(path, []).append(reached["name"])
        missed = page.evaluate(LEFT)
        left |= {path: missed} if missed else {}
    assert (unseen, left) == ({}, {})


def test_the_skip_link_is_first_and_leads_to_the_content(served, open_page):
    page = open_page(served.link)
    page.goto(f"{served.url}/runs")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().left") >= 0
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('main').contains(document.activeElement)")
