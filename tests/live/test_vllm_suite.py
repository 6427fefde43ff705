"""vLLM's own tests of its server, against `atoll emulate`: what each gives is in vllm_suite/expected.csv.

    mkdir sdist && TMPDIR=$PWD/sdist pip download vllm==0.32.0 --no-deps --no-binary vllm --no-build-isolation --no-clean
    python -m venv suite && suite/bin/pip install openai anthropic pytest pytest-asyncio pytest-timeout jsonschema regex \\
        prometheus_client fastapi pybase64 httpx requests numpy
    ATOLL_VLLM_SOURCE=$(echo sdist/pip-download-*/vllm_*) ATOLL_VLLM_PYTHON=suite/bin/python pytest tests/live/test_vllm_suite.py

The download ends with an error and leaves the source. A test whose outcome is another one than expected is named; change
the list when that is right.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest

HERE = Path(__file__).parent / "vllm_suite"
SOURCE, PYTHON = (os.environ.get(f"ATOLL_VLLM_{name}", "") for name in ("SOURCE", "PYTHON"))
EXPECTED = {row["test"]: row["outcome"] for row in csv.DictReader(StringIO((HERE / "expected.csv").read_text()))}
MODULES = sorted({test.split("::")[0] for test in EXPECTED})
SETTINGS = """[pytest]
asyncio_mode = strict
asyncio_default_fixture_loop_scope = function
addopts = -p no:cacheprovider -q --timeout 60
"""

pytestmark = [
    pytest.mark.skipif(not SOURCE or not PYTHON, reason="needs vLLM's source: ATOLL_VLLM_SOURCE and ATOLL_VLLM_PYTHON"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="session")
def run(tmp_path_factory) -> Path:
    work = tmp_path_factory.mktemp("suite")
    (work / "hub").mkdir()
    shutil.copytree(Path(SOURCE) / "tests", work / "run" / "tests")
    (work / "run" / "tests" / "v1" / "conftest.py").unlink(missing_ok=True)
    shutil.copy(HERE / "stubs.py", work / "run" / "stubs.py")
    shutil.copy(HERE / "conftest_for_vllm.py", work / "run" / "tests" / "conftest.py")
    shutil.copy(HERE / "utils_for_vllm.py", work / "run" / "tests" / "utils.py")
    for name in ("config.json", "base.json"):
        shutil.copy(HERE / name, work / "run" / "tests" / name)
    (work / "run" / "pytest.ini").write_text(SETTINGS)
    return work


@pytest.mark.parametrize("module", MODULES)
def test_a_module_of_vllms_suite_gives_what_is_expected(run, module):
    results = run / "results.jsonl"
    results.unlink(missing_ok=True)
    settings = {
        "SUITE_WORK": str(run),
        "SUITE_RESULTS": str(results),
        "SUITE_ATOLL": f"env PYTHONPATH={os.environ.get('PYTHONPATH', '')} {sys.executable} -m atoll",
        "PYTHONPATH": ".",
    }
    argv = [str(Path(PYTHON).absolute()), "-m", "pytest", module]
    done = subprocess.run(
        argv, cwd=run / "run", env=os.environ | settings, capture_output=True, text=True, timeout=1500, check=False
    )
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    found = {line["test"]: line["outcome"] for line in lines if line["outcome"] != "skipped"}
    expected = {test: outcome for test, outcome in EXPECTED.items() if test.startswith(f"{module}::")}
    words = {line["test"]: line["words"] for line in lines}
    changed = [
        f"{test}: {found.get(test)} {words.get(test, '')}" for test in expected if found.get(test) != expected[test]
    ]
    assert changed == [], done.stdout[-2000:]
    assert found == expected
