"""Options of the whole suite: what needs a real engine is run only when asked for, and says so otherwise."""

import os
import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("atoll", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("atoll")  # laws hold on a busy machine too

LIVE = {
    "vllm": "needs a real vLLM: ask with --vllm PATH_OF_VLLM",
    "docker": "needs a real Docker engine and root: ask with --docker",
    "gpu": "needs a GPU: ask with --gpu",
    "prometheus": "needs a real Prometheus: ask with --prometheus PATH",
    "clients": "needs large clients: ask with --clients PYTHON",
    "node_clients": "needs clients from npm: ask with --node-clients FOLDER",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("atoll")
    group.addoption("--vllm", metavar="PATH", help="run the tests on this vLLM program, such as /opt/vllm/bin/vllm")
    group.addoption("--docker", action="store_true", help="run the tests that start a Docker engine of their own")
    group.addoption("--prometheus", metavar="PATH", help="run the tests of monitoring on this Prometheus program")
    group.addoption("--gpu", action="store_true", help="run the tests that need a GPU")
    group.addoption("--clients", metavar="PYTHON", help="run the tests of large clients with this interpreter's")
    group.addoption("--node-clients", metavar="FOLDER", help="run the tests of clients installed by npm in this folder")
    group.addoption("--regenerate", action="store_true", help="write the golden bundles of tests/data/bundles anew")


def pytest_configure() -> None:
    # Whoever is started in the background of a script ignores Ctrl-C, and so would all that the tests start and stop.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for name, reason in LIVE.items():
            if item.get_closest_marker(name) is not None and not config.getoption(name):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a browser test may not be skipped, whatever was missing: nobody would see that the pages are untested."""
    report = yield
    if os.environ.get("CI") == "true" and report.skipped and "browser" in getattr(item, "fixturenames", ()):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"{item.nodeid} is a browser test and was skipped in CI: {reason}"
    return report


@pytest.fixture
def regenerate(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("regenerate"))
