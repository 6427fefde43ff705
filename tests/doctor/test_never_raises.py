"""Any YAML and any nginx text gives findings or one clear parse finding, never a traceback."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atoll.doctor.examine import examine
from atoll.doctor.files import HeldFiles
from atoll.doctor.gather import gather
from atoll.doctor.mend import RISKY_TOO, mend
from atoll.doctor.show import show_github, show_text, to_sarif

QUICK = settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

words = st.sampled_from(
    [
        "vllm",
        "nginx",
        "mongo",
        "a",
        "0",
        "8000:8000",
        "vllm/vllm-openai:latest",
        "nginx:1.25",
        "mongo:7",
        "${X:-1}",
        "$",
        "",
        "é",
    ]
)
scalars = st.one_of(words, st.text(max_size=12), st.integers(), st.floats(), st.booleans(), st.none())
keys = st.sampled_from(
    [
        "services",
        "image",
        "command",
        "entrypoint",
        "environment",
        "ports",
        "volumes",
        "deploy",
        "resources",
        "reservations",
        "devices",
        "device_ids",
        "count",
        "capabilities",
        "healthcheck",
        "test",
        "interval",
        "start_period",
        "depends_on",
        "networks",
        "shm_size",
        "ipc",
        "restart",
        "gpus",
        "driver",
        "x-a",
        "extends",
        "include",
        "env_file",
        "profiles",
        "container_name",
        "replicas",
        "labels",
        "logging",
        "options",
        "runtime",
        "privileged",
        "configs",
        "apiVersion",
        "kind",
        "spec",
        "template",
        "containers",
        "args",
        "metadata",
        "version",
        "static_resources",
        "applications",
    ]
)
trees = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(keys, words), inner, max_size=5)),
    max_leaves=30,
)
services = st.dictionaries(words, st.dictionaries(keys, trees, max_size=8), max_size=4)


def look(files: dict[str, str]):
    facts = gather(sorted(files), HeldFiles(files))
    return facts, examine(facts)


def everything(files: dict[str, str]) -> None:
    """Findings, every way to show them, and the fixes."""
    facts, findings = look(files)
    assert all(finding.line >= 1 and finding.what and finding.why and finding.fix for finding in findings)
    list(show_text(findings, facts.sources))
    list(show_github(findings))
    json.dumps(to_sarif(findings, facts.sources))
    mend(lambda texts: look({**files, **texts})[1], lambda path: files[path], RISKY_TOO)


@QUICK
@given(st.text(max_size=300))
def test_any_text_as_compose_file(text):
    everything({"compose.yaml": text})


@QUICK
@given(trees)
def test_any_tree_as_yaml(plain):
    everything({"docker-compose.yml": json.dumps(plain)})


@QUICK
@given(services)
def test_any_services(plain):
    everything({"compose.yaml": json.dumps({"services": plain}, indent=1)})


lines = st.sampled_from(
    [
        "services:",
        "  vllm: &v",
        "    image: vllm/vllm-openai:latest",
        "    command: >-",
        "      --model m --tensor-parallel-size 2 '",
        "    <<: *v",
        "    - a",
        "    ports: [8000:8000,",
        "    ports:",
        '      - "8001:8000"',
        "    image: 'x",
        "\t",
        "    environment: {A: b, ",
        "---",
        "? [a]: b",
        "    deploy: *v",
        "  !!binary x: y",
        "    gpus: [{device_ids: [0]}]",
        "#",
        "    healthcheck: {test: x, start_period: 9}",
    ]
)


@QUICK
@given(st.lists(lines, max_size=14))
def test_any_pile_of_compose_lines(parts):
    everything({"compose.yaml": "\n".join(parts)})


nginx_words = st.sampled_from(
    [
        "events",
        "http",
        "server",
        "upstream",
        "location",
        "proxy_pass",
        "listen",
        "zone",
        "least_conn",
        "keepalive",
        "gzip",
        "gzip_types",
        "include",
        "map",
        "if",
        "proxy_set_header",
        "proxy_read_timeout",
        "proxy_http_version",
        "worker_processes",
        "worker_connections",
        "http://vllm",
        "http://vllm:8000/",
        "/v1",
        "/v1/",
        "/",
        "=",
        "~",
        "80",
        "1.0",
        "off",
        "on",
        "$x",
        "${x}",
        "{",
        "}",
        ";",
        "{",
        "}",
        ";",
        ";",
        "'",
        '"',
        "\\",
        "#",
        "\n",
    ]
)


@QUICK
@given(st.text(max_size=200))
def test_any_text_as_nginx_file(text):
    everything({"nginx.conf": text})


@QUICK
@given(st.lists(nginx_words, max_size=40).map(" ".join))
def test_any_pile_of_nginx_words(text):
    everything({"nginx.conf": text})


@QUICK
@given(st.lists(nginx_words, max_size=25).map(" ".join), st.lists(lines, max_size=10).map("\n".join))
def test_both_side_by_side(nginx, compose):
    everything({"nginx.conf": nginx, "compose.yaml": compose, "topo.txt": nginx, "x.json": compose, "notes": nginx})


@QUICK
@given(
    st.text(max_size=200), st.sampled_from(["a.json", "haproxy.cfg", "topo.txt", "lspci.txt", "x", "layout.yaml", "-"])
)
def test_any_text_under_any_name(text, name):
    everything({name: text} if name != "-" else {"dash": text})


DATA = Path(__file__).parents[1] / "data" / "doctor"
REAL = sorted(
    path
    for path in (*(DATA / "corpus").rglob("*"), *(DATA / "stack-a").iterdir(), *(DATA / "stack-b").iterdir())
    if path.suffix in {".yaml", ".yml", ".conf", ".cfg"}
)


@QUICK
@given(st.data())
def test_damaged_real_files(data):
    """A real file with a piece cut out, doubled or replaced."""
    path = data.draw(st.sampled_from(REAL))
    text = path.read_text()
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 60)))
    piece = data.draw(
        st.sampled_from(["", text[start:end] * 2, ": ", "\n", "'", "{", "}", "- ", "null", "[]", "${X}", "é\t"])
    )
    everything({path.name: text[:start] + piece + text[end:]})


@pytest.mark.parametrize(
    "body",
    [
        "command: Qwen/Qwen2.5-32B-Instruct -tp 0\n    gpus: all",
        "command: Qwen/Qwen2.5-32B-Instruct -tp 4000000000\n    gpus: all",
        "command: Qwen/Qwen2.5-32B-Instruct\n    gpus: [{count: 99999999999999999999}]",
        "command: Qwen/Qwen2.5-32B-Instruct -tp ²\n    gpus: [{count: ²}]",
    ],
)
def test_sizes_that_no_box_has(body, facts_of):
    head = "services:\n  a:\n    image: vllm/vllm-openai:v0.32.0\n    "
    topo = "        GPU0 GPU1\nGPU0 X NV12\nGPU1 NV12 X\n"
    other = "\n  b:\n    image: vllm/vllm-openai:v0.32.0\n    command: m/x\n    gpus: [{count: 1}]\n"
    assert examine(facts_of({"compose.yaml": head + body + other, "topo.txt": topo}, gpu="H100-NVL-94GB"))
