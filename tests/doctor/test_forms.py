"""Faults in the forms in which the field has them: what must be found, and what must not be said.

A case of tests/data/doctor/forms.txt is a line `== name | rules that come | rules that stay silent` (`A|B`: either), then
its files, each after `--- name`.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.doctor.files import DiskFiles, HeldFiles
from atoll.workflows.diagnose import ask, correct, diagnose

DATA = Path(__file__).parents[1] / "data" / "doctor"


def cases() -> Iterator[object]:
    text = (DATA / "forms.txt").read_text()
    for part in re.split(r"^== ", text, flags=re.MULTILINE)[1:]:
        head, *parts = re.split(r"^--- (\S+)\n", part, flags=re.MULTILINE)
        name, wanted, silent = (words.strip() for words in re.split(r" \| | \|$", head.strip() + " ", maxsplit=2))
        files = dict(zip(parts[::2], parts[1::2], strict=True))
        yield pytest.param(wanted.split(), silent.split(), files, id=name.replace(" ", "-"))


@pytest.mark.parametrize(("wanted", "silent", "files"), list(cases()))
def test_the_fault_is_found_and_nothing_else_is_said(wanted: list[str], silent: list[str], files: dict[str, str]):
    found = {one.rule for one in diagnose(ask(["."]), HeldFiles(files)).findings}
    assert [rules for rules in wanted if not set(rules.split("|")) & found] == []
    assert found & set(silent) == set()


def test_included_files_are_laid_over_each_other_and_filled_in_from_all_their_env_files():
    files = {
        "compose.yaml": "include: [{path: [e.yaml, over.yaml], env_file: [a.env, {path: b.env}]}]\n",
        "a.env": "TAG=v0.8.5\nTP=1\n",
        "b.env": "TAG=v0.33.0\nIMAGE=vllm/vllm-openai:${TAG}\n",
        "e.yaml": "services:\n  e:\n    image: ${IMAGE}\n    command: org/m -tp ${TP}\n    gpus: [{device_ids: ['0']}]\n",
        "over.yaml": "services:\n  e:\n    command: org/m -tp 4\n",
    }
    facts = diagnose(ask(["compose.yaml"]), HeldFiles(files)).facts
    (engine,) = facts.engines
    assert engine.command.release == "0.33.0"
    assert engine.command.tensor_parallel == 4


def test_files_that_are_no_text_of_one_byte_a_character_are_named(tmp_path: Path):
    stack = "services:\n  e: {image: 'vllm/vllm-openai:v0.33.0', command: org/m}\n"
    (tmp_path / "compose.yaml").write_bytes(stack.encode("utf-16"))
    (tmp_path / "nginx.conf").write_bytes(bytes(range(256)) * 4)
    unknown = {Path(one.file).name: one.why for one in diagnose(ask([str(tmp_path)])).facts.not_understood}
    assert unknown == {
        "compose.yaml": "this is UTF-16; save it as UTF-8 to have it read",
        "nginx.conf": "this is a binary file",
    }


def test_safe_fixes_go_in_beside_risky_ones_of_services_that_are_alike():
    folder = DATA / "field" / "17-cvd-words"
    safe, both = (correct(ask([str(folder)]), DiskFiles(), risky=risky).mending for risky in (False, True))
    assert {found.rule for found in safe.applied} <= {found.rule for found in both.applied}
    assert {"SE001", "TP017"} <= {found.rule for found in both.applied}
    assert [one.finding.rule for one in both.left_out] == ["TP017"]


def test_a_folder_that_holds_atoll_itself_is_not_searched_for_faults(tmp_path: Path):
    package = tmp_path / "backend" / "src" / "atoll"
    for name in ("doctor/rules/DC018/fails/compose.yaml", "render/x", "workflows/x", "__init__.py", "__main__.py"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("services:\n  e: {image: 'vllm/vllm-openai:v0.33.0', privileged: true}\n")
    diagnosis = diagnose(ask([str(tmp_path)]))
    assert diagnosis.findings == ()
    assert diagnosis.facts.not_entered == ("atoll (atoll itself)",)


def test_an_asked_port_is_mended_where_the_address_stands():
    files = {
        "compose.yaml": "services:\n  e: {image: 'vllm/vllm-openai:v0.33.0', command: org/m --port 8080}\n"
        "  w:\n    image: example/app:1\n    environment: ['OPENAI_BASE_URL=http://e:8000/v1']\n"
    }
    (made,) = correct(ask(["."], select=["DC026"]), HeldFiles(files), risky=True).files
    assert "OPENAI_BASE_URL=http://e:8080/v1" in made.after


@pytest.mark.parametrize("option", ["--limit-mm-per-prompt image=4", "--swap-space 4", "--task generate"])
def test_a_newer_vllm_is_not_offered_where_it_refuses_what_the_file_says(option: str):
    stack = f"services:\n  e: {{image: 'vllm/vllm-openai:v0.8.5', command: --model org/m {option}}}\n"
    (told,) = diagnose(ask(["."], select=["SE001"]), HeldFiles({"compose.yaml": stack})).findings
    assert told.edits == ()
