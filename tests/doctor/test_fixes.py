"""Fixes do no harm: safe ones touch nothing that serves, none brings an error, and what must stay stays."""

import re
from collections import Counter
from collections.abc import Iterator
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from atoll.doctor.files import HeldFiles
from atoll.doctor.finding import Finding, FixClass, Severity
from atoll.documents import parse_yaml
from atoll.workflows.diagnose import Correction, ask, correct, diagnose

DATA = Path(__file__).parents[1] / "data" / "doctor"
FIELD = DATA / "field"
STACKS = [DATA / "stack-a", DATA / "stack-b"]
FOLDERS = [*sorted(FIELD.iterdir()), *sorted((DATA / "kinds").iterdir()), *STACKS, *sorted((DATA / "corpus").iterdir())]
WHAT_SERVES = ("image", "ports", "environment", "restart", "deploy", "gpus", "runtime", "devices", "networks", "build")
ROUTES = re.compile(r"^\s*(location\b.*?\{|listen\b.*?;|.*\bproxy_pass\b[^;]*;|server\s+[^\s{;]+)", re.MULTILINE)


@cache
def corrected(folder: Path, *, risky: bool) -> Correction:
    return correct(ask([str(folder)]), risky=risky)


def errors(findings: tuple[Finding, ...]) -> Counter[tuple[str, str, str]]:
    """What is an error, figures left out: a share of 0.92 in place of 0.9 is the same one."""
    return Counter(
        (found.rule, found.file, re.sub(r"\d+", "", found.what))
        for found in findings
        if found.severity is Severity.ERROR
    )


def serving_parts(text: str) -> Any:
    """Of each service of a Compose file that of which a change is felt, its command apart."""
    plain = parse_yaml(text, origin="file")
    assert isinstance(plain, dict)
    return {
        name: {key: _quoted_ids(service.get(key)) for key in WHAT_SERVES}
        for name, service in (plain.get("services") or {}).items()
        if isinstance(service, dict)
    }


def _quoted_ids(value: Any) -> Any:
    """Ids of GPUs as the strings that Compose wants: with numbers it refuses the whole file (TP015)."""
    if isinstance(value, list):
        return [_quoted_ids(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {k: [str(i) for i in v] if k == "device_ids" else _quoted_ids(v) for k, v in value.items()}


COMMANDS = ("command", "entrypoint", "args")


def commands_in(node: Any, path: str = "") -> Iterator[tuple[str, list[str]]]:
    """Every command, entrypoint and args of a Compose file or a manifest, by its place."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in children:
        if key in COMMANDS and value is not None:
            yield f"{path}{key}", [str(item) for item in value] if isinstance(value, list) else str(value).split()
        else:
            yield from commands_in(value, f"{path}{key}.")


def changed_words(before: str, after: str) -> list[tuple[str, str]]:
    """What went out of the commands of a YAML file and what came, items parted by a bar."""
    old, new = (dict(commands_in(list(YAML(typ="safe").load_all(text)))) for text in (before, after))
    assert old.keys() == new.keys()
    return [
        ("|".join(old[place][a:b]), "|".join(new[place][c:d]))
        for place in sorted(old)
        for kind, a, b, c, d in SequenceMatcher(None, old[place], new[place], autojunk=False).get_opcodes()
        if kind != "equal"
    ]


# All that safe fixes change of a command: VL018's option, which every release that gets it has, and in these folders
# words that the very release of the image refuses, so that nothing started with them (VL001, VL003, VL008, VL031,
# VL040), and --model before the model, which stays (VL004).
ENDS_IN_PEACE = ("", "--shutdown-timeout|120")
ONE_STRING = (
    "python3 -m vllm.entrypoints.openai.api_server --port 8080 --trust-remote-code --served-model-name qwen"
    " --model /mnt/m/Qwen-14B-Chat --gpu-memory-utilization 0.95 --tensor-parallel-size 2"
)
OLD_OPTIONS = (
    "--swap-space|16|--max-seq-len-to-capture|8192|--use-v2-block-manager|--num-scheduler-steps|8"
    "|--guided-decoding-backend|outlines"
)
ALLOWED: dict[str, list[tuple[str, str]]] = {
    "04-litellm-vllm": [("--model", "")],
    "08-vllm-old-flags": [
        ("--model", ""),
        (OLD_OPTIONS, """--structured-outputs-config|'{"backend":"outlines"}'"""),
    ],
    "25-k8s-vllm": [("--enable-metrics", "")],
    "45-rag-shared-gpu": [("--model", "")] * 2,
    "01-serve-word-and-item-with-space": [
        ("serve", ""),
        ("--dtype auto|--max-model-len 8192", "--dtype|auto|--max-model-len|8192"),
    ],
    "09-k8s-command-one-string": [(ONE_STRING, ONE_STRING.replace(" ", "|"))],
    "22-nginx-conf-without-http": [("vllm|serve", "")] * 2,
    "38-option-values": [("95", "0.95|--shutdown-timeout|120")],
    "39-deep-folder": [("--swap-space|4", "--shutdown-timeout|120")],
    "f08-anchors-profiles": [("--swap-space|4", "--shutdown-timeout|120")],
    "f09-extends-include": [("--swap-space|4", "--shutdown-timeout|120"), ("--disable-log-requests", "")],
    "f18-kserve": [("--model", ""), ("--swap-space|4", "")],
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_safe_fixes_change_a_command_only_as_is_listed(folder: Path):
    files = [one for one in corrected(folder, risky=False).files if one.path.endswith((".yaml", ".yml"))]
    changes = [change for one in files for change in changed_words(one.before, one.after)]
    assert sorted(change for change in changes if change != ENDS_IN_PEACE) == sorted(ALLOWED.get(folder.name, []))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_safe_fixes_touch_nothing_that_serves(folder: Path):
    made = corrected(folder, risky=False)
    assert {found.fix_class for found in made.mending.applied} <= {FixClass.SAFE}
    for one in made.files:
        if "services:" in one.before:
            assert serving_parts(one.after) == serving_parts(one.before)
        elif one.path.endswith(".conf"):
            assert Counter(ROUTES.findall(one.after)) >= Counter(ROUTES.findall(one.before))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_no_fix_brings_an_error(folder: Path):
    before = errors(diagnose(ask([str(folder)])).findings)
    for risky in (False, True):
        made = corrected(folder, risky=risky)
        assert errors(made.left.findings) - before == Counter()
        assert all(found.risk for found in made.mending.applied if found.fix_class is FixClass.RISKY)


# The folder -> words that stay in its files whatever is put in, and words that never come.
STAYS: dict[str, tuple[list[str], list[str]]] = {
    "03-util-1-mixed-underscores": (["v0.8.4", "'image=1'"], []),
    "10-nginx-api-key-adapter": (["http://10.0.0.20:8000/v1/"], ["127.0.0.11"]),
    "14-ngc-image-old-flag": (
        ["nvcr.io/nvidia/vllm:25.11-py3", "VLLM_API_KEY", "VLLM_LOGGING_LEVEL", "VLLM_NO_USAGE_STATS"],
        ["--shutdown-timeout"],
    ),
    "19-comma-device-ids": (["'0,1,2,3,4,5,6,7'"], []),
    "23-nginx-connection-upgrade-and-close": ([], ["127.0.0.11", "resolve"]),
    "24-vllm-and-tei-count-1": (["count: 1"], ["device_ids"]),
    "26-wrapper-exec-at": (["${VLLM_IMAGE:-vllm/vllm-openai:v0.33.0}", "${RESTART:-unless-stopped}"], ["device_ids"]),
    "27-same-card-flag-not-in-release": (["v0.7.1", "--task", "${MODELS}:/root/.cache/huggingface/hub/"], []),
    "34-restart-no-on-demand": (['restart: "no"'], ["unless-stopped"]),
    "35-one-server-two-on-line": ([], ["127.0.0.11", "resolve"]),
    "36-hub-folder-mounted": ([], ["~/.cache/huggingface:"]),
    "37-litellm-behind-nginx": (["location / {"], ["return 404", "127.0.0.11"]),
    "f21-tags": (["VLLM_LOGGING_LEVEL=INFO", "VLLM_USE_V1=1"], []),
}


@pytest.mark.parametrize("case", STAYS)
def test_what_must_stay_stays(case: str):
    folder = FIELD / case
    kept, never = STAYS[case]
    for risky in (False, True):
        mended = {one.path: one.after for one in corrected(folder, risky=risky).files}
        files = [path for path in folder.rglob("*") if path.is_file()]
        text = "".join(mended.get(str(path), path.read_text()) for path in files)
        assert [words for words in kept if words not in text] == []
        assert [words for words in never if words in text] == []


def test_both_servers_of_a_line_get_what_one_gets():
    stack = (
        "services:\n"
        '  vllm-0: {image: "vllm/vllm-openai:v0.33.0", command: m}\n'
        '  vllm-1: {image: "vllm/vllm-openai:v0.33.0", command: m}\n'
        '  nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}\n'
    )
    conf = (FIELD / "35-one-server-two-on-line" / "nginx.conf").read_text()
    made = correct(ask(["."]), HeldFiles({"compose.yaml": stack, "nginx.conf": conf}), risky=True)
    after = next(one.after for one in made.files if one.path == "nginx.conf")
    assert "server vllm-0:8000 resolve; server vllm-1:8000 resolve;" in after


MODEL_BY_OPTION = (
    ("vllm/vllm-openai:v0.10.0", "", False),  # its entrypoint is the module, which does not read a first argument
    ("vllm/vllm-openai:v0.33.0", "", True),
    ("vllm/vllm-openai:v0.33.0", "entrypoint: [python3, -m, vllm.entrypoints.openai.api_server]", False),
    ("vllm/vllm-openai:v0.10.0", "entrypoint: [vllm, serve]", True),
)


@pytest.mark.parametrize(("image", "entrypoint", "moved"), MODEL_BY_OPTION)
def test_the_model_becomes_the_first_argument_only_where_vllm_serve_reads_it(image, entrypoint, moved):
    text = f"services:\n  a:\n    image: {image}\n    ipc: host\n    command: [--model, org/m]\n    {entrypoint}\n"
    (made,) = correct(ask(["."]), HeldFiles({"compose.yaml": text})).files
    assert ("--model, org/m" not in made.after) is moved


def test_a_volume_is_declared_in_the_file_that_uses_it():
    base = "services:\n  a:\n    image: vllm/vllm-openai:v0.33.0\n    command: org/m\n    volumes: ['./m:/m']\n"
    over = "services:\n  a:\n    ipc: host\n"
    made = correct(ask(["."]), HeldFiles({"compose.yaml": base, "compose.override.yaml": over}))
    after = {one.path: one.after for one in made.files}
    assert "volumes:\n  a-cache: {}" in after["compose.yaml"]
    assert "a-cache" not in after.get("compose.override.yaml", over)


def test_the_fixes_mend_something():
    """A doctor that mends nothing does no harm either."""
    applied = Counter(found.fix_class for folder in FOLDERS for found in corrected(folder, risky=True).mending.applied)
    assert applied[FixClass.SAFE] > 150
    assert applied[FixClass.RISKY] > 150
