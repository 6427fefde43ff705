"""Where the tag of an image comes from, and what may be concluded where it does not say which vLLM it carries."""

import pytest

from atoll.doctor.files import HeldFiles
from atoll.doctor.finding import FixClass
from atoll.workflows.diagnose import ask, correct, diagnose

GONE = "--swap-space"  # of releases before 0.18


def compose(image: str) -> str:
    return f"services:\n  a:\n    image: {image}\n    ipc: host\n    command: [org/m, {GONE}, '4']\n"


def deployment(image: str) -> str:
    container = f"{{name: vllm, image: '{image}', args: [org/m, {GONE}, '4']}}"
    pod = f"spec: {{template: {{spec: {{containers: [{container}]}}}}}}"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\n{pod}\n"


def values(image: str) -> str:
    return f"image: {image}\nargs: [org/m, {GONE}, '4']\n"


def overlay(tag: str) -> str:
    return f"resources: [../base]\nimages:\n  - name: vllm/vllm-openai\n    newTag: {tag}\n"


BASE = {"base/kustomization.yaml": "resources: [d.yaml]\n", "base/d.yaml": deployment("vllm/vllm-openai")}
SAFE, RISKY, SILENT = FixClass.SAFE, FixClass.RISKY, None
OWN_BUILD = """services:
  a:
    image: {image}
    ipc: host
    command: [vllm, serve, Qwen/Qwen3-8B]
"""


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("vllm/vllm-openai:v0.33.0", SAFE),
        ("registry.example:5000/vllm/vllm-openai:v0.33.0", SAFE),
        ("ghcr.io/somebody/vllm-openai:v0.33.0", RISKY),
    ],
)
def test_what_starts_somebodys_own_build_is_not_taken_for_certain(image, expected):
    """Its entrypoint may be another, and it may hold the weights right where a volume would hide them."""
    findings = diagnose(ask(["."]), HeldFiles({"compose.yaml": OWN_BUILD.format(image=image)})).findings
    by_rule = {finding.rule: finding for finding in findings}
    assert by_rule["VL003"].fix_class is expected
    assert bool(by_rule["DC011"].edits) is (expected is SAFE)


FILES = {
    "a release": ({"compose.yaml": compose("vllm/vllm-openai:v0.33.0")}, SAFE),
    "an older one": ({"compose.yaml": compose("vllm/vllm-openai:v0.8.5")}, SILENT),
    "latest": ({"compose.yaml": compose("vllm/vllm-openai:latest")}, RISKY),
    "no tag": ({"compose.yaml": compose("vllm/vllm-openai")}, RISKY),
    "a default": ({"compose.yaml": compose("vllm/vllm-openai:${TAG:-v0.33.0}")}, RISKY),
    "a default of the newest": ({"compose.yaml": compose("vllm/vllm-openai:${TAG:-latest}")}, RISKY),
    "a variable": ({"compose.yaml": compose("vllm/vllm-openai:${TAG}")}, SILENT),
    "one that must be set": ({"compose.yaml": compose("vllm/vllm-openai:${TAG:?say which}")}, SILENT),
    ".env": ({"compose.yaml": compose("vllm/vllm-openai:${TAG:-v0.8.5}"), ".env": "TAG=v0.33.0\n"}, SAFE),
    "an older .env": ({"compose.yaml": compose("vllm/vllm-openai:${TAG:-v0.33.0}"), ".env": "TAG=v0.8.5\n"}, SILENT),
    "a manifest": ({"d.yaml": deployment("vllm/vllm-openai:v0.33.0")}, SAFE),
    "a manifest without": ({"d.yaml": deployment("vllm/vllm-openai")}, SILENT),
    "kustomize": ({**BASE, "prod/kustomization.yaml": overlay("v0.33.0")}, SAFE),
    "an older kustomize": ({**BASE, "prod/kustomization.yaml": overlay("v0.8.5")}, SILENT),
    "kustomize over latest": (
        {
            "base/kustomization.yaml": "resources: [d.yaml]\n",
            "base/d.yaml": deployment("vllm/vllm-openai:latest"),
            "prod/kustomization.yaml": overlay("v0.8.5"),
        },
        SILENT,
    ),
    "two that differ": (
        {**BASE, "prod/kustomization.yaml": overlay("v0.33.0"), "test/kustomization.yaml": overlay("v0.8.5")},
        SILENT,
    ),
    "values": ({"values.yaml": values("{repository: vllm/vllm-openai, tag: v0.33.0}")}, SAFE),
    "values without": ({"values.yaml": values("{repository: vllm/vllm-openai}")}, SILENT),
}


@pytest.mark.parametrize("name", FILES)
def test_what_hangs_on_the_release_is_mended_safely_only_where_the_files_name_it(name: str):
    files, wanted = FILES[name]
    findings = diagnose(ask(["."]), HeldFiles(files)).findings
    told = [found.fix_class for found in findings if found.rule == "VL001"]
    assert told == ([] if wanted is None else [wanted])
    unknown = wanted is None and not any("0.8" in text for text in files.values())
    if unknown or name == "two that differ":
        assert any(found.rule == "VL036" for found in findings)


@pytest.mark.parametrize("image", ["vllm/vllm-openai", "vllm/vllm-openai:latest", "vllm/vllm-openai:${TAG:-v0.33.0}"])
def test_safe_fixes_leave_a_command_alone_that_an_older_vllm_may_run(image: str):
    """What the newest calls gone, new, short for something or on by default."""
    command = "[--model, org/m, --swap-space, '4', --enable-prefix-caching, --max-num-s, '9', --enforce-eager=False]"
    text = f"services:\n  a:\n    image: {image}\n    ipc: host\n    command: {command}\n"
    made = correct(ask(["."]), HeldFiles({"compose.yaml": text}))
    assert all(f"command: {command}\n" in one.after for one in made.files)
    assert {found.rule for found in made.left.findings} >= {"VL001", "VL004", "VL005", "VL007", "VL012", "VL018"}
