"""The clients that people use, those that install small; the others are in tests/live/test_clients.py."""

import subprocess
import sys
from pathlib import Path

from stand_ins.patience import PATIENCE_S

SCRIPT = Path(__file__).parents[1] / "live" / "clients.py"
MODEL = "Qwen/Qwen2.5-32B-Instruct"


def test_clients_find_what_they_ask_for(replica):
    """In one interpreter of their own: they share most of what they import, and warn of much."""
    url = replica(step_s=0.0, max_model_len=4096, model=MODEL).url
    argv = [sys.executable, "-W", "ignore", SCRIPT, url, "openai", "langchain", "llm"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.endswith(": works")] == []
    assert len(lines) == 20, done.stdout + done.stderr
