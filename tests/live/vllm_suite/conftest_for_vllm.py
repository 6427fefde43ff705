"""Stands where vLLM's tests/conftest.py stands: leaves out what asks no server, writes a line of JSON for each result."""

import inspect
import json
import os
import re
import types
from pathlib import Path

import pytest
import stubs  # noqa: F401 - before any of vLLM's modules

LocalAssetServer = HfRunner = VllmRunner = object
IMAGE_ASSETS: list[object] = []
NO_SERVERS = {"server_args", "default_server_args", "mock_client"}


def why_unfit(item: pytest.Item) -> str | None:
    source, names = inspect.getsource(item.function), set(item.fixturenames) - NO_SERVERS
    asks = "RemoteOpenAIServer(" in source or "RemoteLaunchRenderServer(" in source
    asks = asks or any(re.search("server|client|remote", name) for name in names)
    if not asks or "TestClient" in source:
        return "a unit test of vLLM's own code"
    return "LoRA" if re.search("lora", item.name, re.IGNORECASE) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        why = why_unfit(item)
        if why:
            item.add_marker(pytest.mark.skip(reason=why))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        words = str(call.excinfo.value)[:300] if report.outcome == "failed" else ""
        line = json.dumps({"test": item.nodeid, "outcome": report.outcome, "words": words})
        with Path(os.environ["SUITE_RESULTS"]).open("a") as results:
            results.write(line + "\n")


@pytest.fixture(scope="session")
def local_asset_server():
    return types.SimpleNamespace(url_for=lambda name: f"http://127.0.0.1:9/{name}", get_image_asset=lambda *_: None)


@pytest.fixture(scope="session")
def hf_runner():
    pytest.skip("it compares with real weights")
