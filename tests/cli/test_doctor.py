"""atoll doctor as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

DATA = Path(__file__).parents[1] / "data" / "doctor"


def run(*argv: str, cwd: Path = DATA) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atoll", "doctor", *argv], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_json_is_one_document_and_errors_exit_with_1():
    done = run("stack-b", "--json")
    assert done.returncode == 1
    findings = json.loads(done.stdout)["findings"]
    assert set(findings[0]) >= {"rule", "severity", "file", "line", "places", "what", "why", "fix", "fix_class"}
    assert {finding["fix_class"] for finding in findings} == {"safe", "risky", "by_hand"}
    assert all(finding["risk"] for finding in findings if finding["fix_class"] == "risky")
    assert "MG001" in {finding["rule"] for finding in findings}


def test_warnings_alone_exit_with_0():
    done = run("corpus/14-rag-stack", "--all")
    assert done.returncode == 0
    assert "2 warnings, 2 infos." in done.stdout
    assert "1 info." in run("corpus/14-rag-stack").stdout


def test_bad_usage_exits_with_2():
    assert run().returncode == 2
    assert run("nowhere.yaml").returncode == 2
    done = run("stack-a", "--select", "XX")
    assert (done.returncode, done.stdout) == (2, "")
    assert "XX is no rule" in done.stderr


def test_an_unreadable_file_is_one_finding_and_the_others_are_read(tmp_path):
    (tmp_path / "a.yaml").write_text("services:\n  x: [\n")
    (tmp_path / "nginx.conf").write_text("http {\n")
    (tmp_path / "b.yaml").write_text((DATA / "stack-b" / "docker-compose.yml").read_text())
    done = run("a.yaml", "nginx.conf", "b.yaml", "--json", cwd=tmp_path)
    findings = json.loads(done.stdout)["findings"]
    assert [finding["file"] for finding in findings if finding["rule"] == "AT001"] == ["a.yaml", "nginx.conf"]
    assert any(finding["rule"] == "MG001" for finding in findings)


@pytest.mark.parametrize(("option", "start"), [("github", "::"), ("sarif", "{"), ("json", "{"), ("text", "stack-b/")])
def test_formats(option, start):
    assert run("stack-b", "--format", option).stdout.startswith(start)


def test_fix_writes_beside_and_shows_the_diff(tmp_path):
    (tmp_path / "compose.yaml").write_text((DATA / "stack-b" / "docker-compose.yml").read_text())
    done = run("compose.yaml", "--fix", "--risky", cwd=tmp_path)
    assert done.returncode == 0
    assert "MG001 changes behaviour: MongoDB starts with an empty volume" in done.stderr
    assert "+      - mongo_data:/data/db" in done.stderr
    assert "Written: compose.fixed.yaml" in done.stderr
    assert "mongo_data:/data/db" in (tmp_path / "compose.fixed.yaml").read_text()
    assert "mongo_data:/data/mongo" in (tmp_path / "compose.yaml").read_text()


def test_fix_alone_leaves_what_changes_behaviour_and_says_so(tmp_path):
    (tmp_path / "compose.yaml").write_text((DATA / "stack-b" / "docker-compose.yml").read_text())
    done = run("compose.yaml", "--fix", cwd=tmp_path)
    assert done.returncode == 1
    assert "mongo_data:/data/mongo" in (tmp_path / "compose.fixed.yaml").read_text()
    assert "more fixes change behaviour and wait for --risky: " in done.stderr
    done = run("compose.yaml", "--risky", cwd=tmp_path)
    assert (done.returncode, "--risky goes with --fix" in done.stderr) == (2, True)


def test_a_rule_is_explained():
    assert "**Fix:** mongo_data:/data/db." in run("--explain", "mg001").stdout
    assert len(run("--explain", "all").stdout.splitlines()) > 100
    assert run("--explain", "MG999").returncode == 2


def test_standard_input_is_read():
    text = (DATA / "stack-b" / "docker-compose.yml").read_text()
    argv = [sys.executable, "-m", "atoll", "doctor", "-", "--json"]
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert "MG001" in {finding["rule"] for finding in json.loads(done.stdout)["findings"]}
