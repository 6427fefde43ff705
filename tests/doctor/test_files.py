"""Files as they lie on disks: links, odd bytes, other encodings, templates, files of another kind."""

import codecs
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.doctor.files import HeldFiles
from atoll.doctor.walk import MOST_FILES, MOST_NAMES
from atoll.documents import write_yaml
from atoll.errors import InputError
from atoll.workflows.diagnose import ask, correct, diagnose, write_corrected
from stand_ins.layouts import two_pairs

COMPOSE = "services:\n  vllm:\n    image: vllm/vllm-openai:v0.32.0\n    command: m/x -tp 2\n"
NGINX = "events {}\nhttp { server {\nlocation /v1 { proxy_pass http://vllm:8000; }\n} }\n"


def fix_in_place(path: Path) -> None:
    mended = correct(ask([str(path)])).files
    write_corrected(mended, in_place=True)


def rules(*paths: Path) -> list[str]:
    return [finding.rule for finding in diagnose(ask([str(path) for path in paths])).findings]


def test_a_link_stays_a_link_and_its_file_is_mended(tmp_path):
    real, link = tmp_path / "real.yaml", tmp_path / "compose.yaml"
    real.write_text(COMPOSE)
    real.chmod(0o640)
    link.symlink_to(real)
    fix_in_place(link)
    assert link.is_symlink()
    assert "shm_size: 16gb" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640


def test_a_byte_order_mark_stays(tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_bytes(codecs.BOM_UTF8 + COMPOSE.encode())
    fix_in_place(path)
    assert path.read_bytes().startswith(codecs.BOM_UTF8 + b"services:")


def test_a_file_that_is_not_utf8_is_never_rewritten(tmp_path):
    path = tmp_path / "nginx.conf"
    path.write_bytes(b"# caf\xe9\n" + NGINX.encode())
    assert "NG024" in rules(path)
    assert correct(ask([str(path)])).files == ()


def test_yaml_that_is_not_utf8_is_said_to_be_so(tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_bytes(COMPOSE.encode() + b"# caf\xe9\n")
    found = [finding for finding in diagnose(ask([str(path)])).findings if finding.rule == "AT001"]
    assert [(finding.line, finding.what) for finding in found] == [(5, "a byte here is not UTF-8, which YAML must be")]


def test_a_file_reached_by_two_paths_is_looked_at_once(tmp_path, monkeypatch):
    path = tmp_path / "compose.yaml"
    path.write_text(COMPOSE)
    (tmp_path / "link.yaml").symlink_to(path)
    monkeypatch.chdir(tmp_path)
    once = rules(Path("compose.yaml"))
    assert rules(Path("compose.yaml"), path, tmp_path, Path("link.yaml")) == once


def test_a_template_is_told_apart_from_damaged_yaml(tmp_path):
    path = tmp_path / "deployment.yaml"
    path.write_text(
        "kind: Deployment\nmetadata:\n  name: {{ .Values.name }}\n{{- if .Values.x }}\n  a: 1\n{{- end }}\n"
    )
    found = diagnose(ask([str(path)])).findings
    assert [(one.rule, one.line, one.what) for one in found] == [
        ("AT002", 3, "this is a template ({{ .Values.name }}), to be filled in first")
    ]


@pytest.mark.parametrize("name", ["notes.txt", "package.json", ".github"])
def test_a_folder_without_our_files_is_said_to_have_none(tmp_path, name):
    (tmp_path / name).write_text('{"name": "x"}\n')
    diagnosis = diagnose(ask([str(tmp_path)]))
    assert diagnosis.saw_nothing
    assert diagnosis.findings == ()


@pytest.mark.parametrize(
    ("comment", "silenced", "said"),
    [
        ("# atoll: ignore NG024 the lab's own", True, None),
        ("#atoll:ignore NG024: the lab's own", True, None),
        ("# atoll: ignore NG, DC the lab's own", True, None),
        ("# atoll: ignore NG024", True, "nobody can tell later why NG024 is silenced here"),
        ("# atoll: ignore NG999 gone", False, "NG999 is no rule and no family of rules, so this silences nothing"),
        ("# atoll: ignore", False, "this comment names no rule, so it silences nothing"),
    ],
)
def test_a_comment_silences_and_says_when_it_is_careless(tmp_path, comment, silenced, said):
    path = tmp_path / "nginx.conf"
    path.write_text(NGINX.replace("location", f"{comment}\nlocation"))
    found = diagnose(ask([str(path)], select=["NG024", "AT003"])).findings
    assert [one.rule for one in found if one.rule == "NG024"] == ([] if silenced else ["NG024"])
    assert {one.what for one in found if one.rule == "AT003"} == ({said} if said else set())


@contextmanager
def as_an_ordinary_user() -> Iterator[None]:
    """Root may read everything, so the tests of what may not be read are run as nobody."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("shut", ["folder", "file"])
def test_what_may_not_be_read_is_one_finding_and_the_rest_is_looked_at(shut):
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        top.chmod(0o755)
        (top / "compose.yaml").write_text(COMPOSE)
        (top / "db").mkdir()
        (top / "db" / "nginx.conf").write_text(NGINX)
        closed = top / "db" if shut == "folder" else top / "db" / "nginx.conf"
        closed.chmod(0)
        with as_an_ordinary_user():
            findings = diagnose(ask([name])).findings
            explicit = pytest.raises(InputError, match=r"cannot be read: Permission denied\.$")
            with explicit:
                diagnose(ask([str(closed)]))
        closed.chmod(0o755)
    said = [(one.file, one.what) for one in findings if one.rule == "AT002"]
    assert said == [(str(closed), f"{closed} cannot be read: Permission denied")]
    assert {one.file for one in findings} == {str(closed), str(top / "compose.yaml")}


def test_links_that_lead_out_of_the_folder_are_not_followed_and_nothing_beside_it_is_mended(tmp_path):
    top, outside = tmp_path / "top", tmp_path / "outside"
    top.mkdir()
    outside.mkdir()
    (outside / "nginx.conf").write_text(NGINX)
    (outside / "base.yaml").write_text(COMPOSE)
    (top / "link").symlink_to(outside)
    (top / "nginx.conf").symlink_to(outside / "nginx.conf")
    (top / "loop").symlink_to(top)
    (top / "nowhere.yaml").symlink_to(tmp_path / "nowhere")
    (top / "compose.yaml").write_text("services:\n  a:\n    extends: {file: ../outside/base.yaml, service: vllm}\n")
    findings = diagnose(ask([str(top)])).findings
    assert {(one.file, one.what) for one in findings if one.rule == "AT002"} == {
        (str(top / name), "this link leads out of the folder and was not followed")
        for name in ("link", "nginx.conf", "nowhere.yaml")
    }
    mended = correct(ask([str(top)])).files
    assert [one.path for one in mended if "outside" in one.path] == []
    assert "VL" in {one.rule[:2] for one in findings}  # what compose.yaml itself names is read


def test_a_name_that_no_file_can_have_is_that_of_no_file(tmp_path):
    compose = f"services:\n  a:\n    extends: {{file: '{'x' * 5000}', service: b}}\n  b:\n    env_file: 'a\\0b'\n"
    (tmp_path / "compose.yaml").write_text(compose)
    assert isinstance(rules(tmp_path), list)
    with pytest.raises(InputError, match="There is no file"):
        diagnose(ask(["x" * 5000]))


def test_a_huge_folder_is_looked_at_in_part_and_that_is_said():
    held = {f"a/{number:03}/compose.yaml": COMPOSE for number in range(MOST_FILES + 20)}
    findings = diagnose(ask(["."], select=["AT"]), HeldFiles(held)).findings
    assert [(one.file, one.rule, one.what.partition(";")[2]) for one in findings] == [
        (".", "AT002", " the rest of this folder was not looked at")
    ]
    names = {f"pile/{number}": "" for number in range(MOST_NAMES + 20)} | {"a/compose.yaml": COMPOSE}
    found = [one.file for one in diagnose(ask(["."], select=["AT", "DC002"]), HeldFiles(names)).findings]
    assert found == ["."]
    assert {one.file for one in diagnose(ask(["."]), HeldFiles(held | {"b": ""})).findings} > {"."}


@pytest.mark.parametrize("change", [("engine", "toy"), ("engine_version", "new"), ("engine_version", "9" * 400)])
def test_a_layout_for_an_engine_that_is_not_known_is_one_finding_and_the_rest_is_looked_at(change):
    odd = two_pairs().to_plain() | dict([change])
    held = {"compose.yaml": COMPOSE, "odd.yaml": write_yaml(odd)}
    found = {(one.file, one.rule) for one in diagnose(ask(["."]), HeldFiles(held)).findings}
    assert ("odd.yaml", "AT001") in found
    assert ("compose.yaml", "DC004") in found


def test_figures_that_no_machine_has_are_said():
    text = (
        "services:\n  a:\n    image: web:1\n    cpuset: 0-99999999999\n    ports: ['80:80', '0-9999999999:1', '70000']\n"
        "  b: {image: 'web:1', cpuset: 9-1, ports: ['127.0.0.1:65535:65535/tcp', '${PORT}:80']}\n"
        "  c: {image: 'web:1', cpuset: '${CORES}', ports: [{target: 80, published: 123456}]}\n"
    )
    findings = diagnose(ask(["compose.yaml"], select=["AT"]), HeldFiles({"compose.yaml": text})).findings
    assert [(one.line, one.rule, one.what) for one in findings] == [
        (4, "AT004", "cpuset of a: no machine has a processor 99999999999"),
        (5, "AT004", "ports of a: there is no port 70000"),
        (5, "AT004", "ports of a: there is no port 9999999999"),
        (6, "AT004", "cpuset of b: the processors 9-1 run backwards"),
        (7, "AT004", "ports of c: there is no port 123456"),
    ]


def test_a_file_mended_in_place_keeps_its_owner_and_mode(tmp_path):
    path = tmp_path / "compose.yaml"
    path.write_text("services:\n  vllm:\n    image: vllm/vllm-openai:v0.33.0\n    command: m --swap-space 4\n")
    path.chmod(0o640)
    root = os.geteuid() == 0
    if root:
        os.chown(path, 12345, 23456)
    made = correct(ask([str(path)]))
    write_corrected(made.files, in_place=True)
    kept = path.stat()
    assert "--swap-space" not in path.read_text()
    assert (kept.st_mode & 0o777, kept.st_uid) == (0o640, 12345 if root else os.geteuid())
