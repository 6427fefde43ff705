"""Clients that are too large for every run: `--clients PYTHON` for those of Python, `--node-clients FOLDER` for npm's.

PYTHON is an interpreter with litellm, anthropic, instructor, openai-agents and pydantic-ai; FOLDER one in which
`npm install ai @ai-sdk/openai-compatible @ai-sdk/openai openai zod` was run.
"""

import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
MODEL = "Qwen/Qwen2.5-32B-Instruct"


@pytest.fixture
def url(tmp_path) -> Iterator[str]:
    port = 18461
    argv = [sys.executable, "-m", "atoll", "emulate", "--gpu", "H100-NVL-94GB", "--tp", "2", "--model", MODEL]
    server = subprocess.Popen([*argv, "--port", str(port), "--speed", "20"], stderr=subprocess.DEVNULL)
    where = f"http://127.0.0.1:{port}"
    for _ in range(100):
        try:
            urllib.request.urlopen(f"{where}/health", timeout=2)
            break
        except OSError:
            time.sleep(0.2)
    yield where
    server.terminate()
    server.wait(30)


def lines_of(argv: list[object]) -> list[str]:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    return [line for line in done.stdout.splitlines() if ": " in line]


@pytest.mark.clients
@pytest.mark.parametrize("client", ["litellm", "anthropic", "instructor", "agents", "pydantic_ai"])
def test_a_large_client_finds_what_it_asks_for(request, url, client):
    python = request.config.getoption("clients")
    lines = lines_of([python, "-W", "ignore", HERE / "clients.py", url, client])
    assert lines
    assert [line for line in lines if not line.endswith(": works")] == []


@pytest.mark.node_clients
def test_clients_from_npm_find_what_they_ask_for(request, url, tmp_path):
    folder = Path(request.config.getoption("node_clients"))
    script = folder / "clients.mjs"  # node looks for packages beside the script
    shutil.copy(HERE / "clients.mjs", script)
    lines = lines_of(["node", script, url])
    assert len(lines) == 12
    assert [line for line in lines if not line.endswith(": works")] == []
