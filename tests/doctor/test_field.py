"""Files as they stand in the field, in every form: the true fault is found, or what was not understood is said."""

from pathlib import Path

import pytest

from atoll.doctor.coverage import understood_all
from atoll.workflows.diagnose import ask, diagnose

FIELD = Path(__file__).parents[1] / "data" / "doctor" / "field"

# The folder -> (rule, file, line, words that carry the cause), and rules that must be silent.
FAULTS: dict[str, tuple[list[tuple[str, str, int, str]], set[str]]] = {
    "01-serve-word-and-item-with-space": (
        [
            ("VL003", "docker-compose.yml", 18, "`serve` is read as arguments"),
            ("VL040", "docker-compose.yml", 20, "`--dtype auto` is one item; it should be 2"),
            ("VL040", "docker-compose.yml", 21, "`--max-model-len 8192` is one item; it should be 2"),
        ],
        {"VL008"},
    ),
    "05-docker-run-script": (
        [
            ("TP007", "start.sh", 13, "gets 1 GPU and its flags ask for 2"),
            ("VL014", "start.sh", 18, "0.6 and 0.6 of GPU 1"),
            ("DC004", "start.sh", 13, "2 workers and 64 MiB"),
        ],
        {"DC005", "DC009", "DC017"},
    ),
    "09-k8s-command-one-string": (
        [("VL040", "deploy.yaml", 17, "is one item; it should be 14"), ("K8006", "deploy.yaml", 14, "qwen")],
        {"K8001"},
    ),
    "10-nginx-api-key-adapter": (
        [
            ("NG001", "nginx.conf", 6, "60 s"),
            ("NG018", "nginx.conf", 6, "1 MiB"),
            ("NG041", "nginx.conf", 7, "asks nobody for one"),
        ],
        {"NG020"},
    ),
    "22-nginx-conf-without-http": (
        [
            ("NG040", "nginx.conf", 1, "`upstream` stands outside of http {}"),
            ("VL003", "docker-compose.yml", 5, "`vllm serve` is read as arguments"),
            ("VL003", "docker-compose.yml", 12, "`vllm serve` is read as arguments"),
        ],
        set(),
    ),
    "26-wrapper-exec-at": (
        [("VL001", "compose.yaml", 31, "--swap-space"), ("VL015", "compose.yaml", 33, "--enforce-eager")],
        {"TP010", "TP007"},
    ),
    "39-deep-folder": ([("VL001", "deploy/sites/lab/hosts/rack1/llm/compose.yaml", 5, "--swap-space")], set()),
    "41-build-from-engine": (
        [
            ("TP007", "compose.yaml", 6, "gets 1 GPU and its flags ask for 2"),
            ("DC004", "compose.yaml", 2, "64 MiB of shared memory"),
        ],
        set(),
    ),
    "f04-cdi-devices": (
        [("TP007", "compose.yaml", 4, "ask for 2"), ("TP008", "compose.yaml", 10, "GPU 0 is given to a and to b")],
        set(),
    ),
    "f06-runtime-nvidia-env": (
        [("TP007", "compose.yaml", 5, "ask for 2"), ("TP008", "compose.yaml", 12, "GPU 0 is given to a and to b")],
        set(),
    ),
    "f08-anchors-profiles": (
        [("TP008", "compose.yaml", 8, "GPU 0 is given to a and to b"), ("VL001", "compose.yaml", 14, "--swap-space")],
        set(),
    ),
    "f09-extends-include": (
        [
            ("TP007", "engines/compose.yaml", 7, "c gets 1 GPU and its flags ask for 2"),
            ("VL001", "engines/compose.yaml", 6, "--disable-log-requests is gone in vLLM 0.24"),
            ("VL001", "compose.yaml", 7, "--swap-space"),
            ("TP008", "base.yaml", 6, "GPU 0 is given to c and to a"),
        ],
        set(),
    ),
    "f10-quadlet": (
        [
            ("TP007", "vllm.container", 5, "gets 1 GPU and its flags ask for 2"),
            ("VL001", "vllm.container", 8, "--swap-space"),
            ("DC004", "vllm.container", 4, "64 MiB"),
        ],
        set(),
    ),
    "f12-caddy": (
        [
            ("PX007", "Caddyfile", 2, "Caddy asks a on port 8001; it listens on 8000"),
            ("PX008", "Caddyfile", 4, "30 s (response_header_timeout)"),
        ],
        {"AT001", "AT002"},
    ),
    "f16-litellm": (
        [
            ("PX007", "litellm.yaml", 5, "port 8000; it listens on 8001"),
            ("PX008", "litellm.yaml", 6, "30 s"),
            ("PX009", "litellm.yaml", 8, "master key"),
            ("PX010", "litellm.yaml", 4, "it serves qwen"),
        ],
        set(),
    ),
    "f18-kserve": (
        [
            ("VL001", "isvc.yaml", 9, "--swap-space"),
            ("K8001", "isvc.yaml", 7, "64 MiB"),
            ("K8002", "isvc.yaml", 11, "killed"),
            ("K8008", "isvc.yaml", 7, "on port 8080"),
        ],
        set(),
    ),
    "f19-helm": (
        [("TP007", "values.yaml", 8, "gets 1 GPU"), ("VL001", "values.yaml", 11, "--swap-space")],
        set(),
    ),
    "f20-others": (
        [
            ("TP007", "compose.yaml", 6, "sg gets 2 GPUs and its flags ask for 4"),
            ("TP007", "compose.yaml", 11, "tgi gets 2 GPUs and its flags ask for 4"),
            ("TP008", "compose.yaml", 11, "GPUs 0 and 1"),
            ("TP008", "compose.yaml", 15, "GPU 1"),
            ("VL023", "compose.yaml", 4, "port 30000"),
        ],
        set(),
    ),
}


@pytest.mark.parametrize("case", FAULTS)
def test_the_true_fault_is_found(case: str):
    folder = FIELD / case
    wanted, silent = FAULTS[case]
    diagnosis = diagnose(ask([str(folder)]))
    found = [(one.rule, str(Path(one.file).relative_to(folder)), one.line, one.what) for one in diagnosis.findings]
    for rule, file, line, words in wanted:
        assert any((rule, file, line) == one[:3] and words in one[3] for one in found), (rule, file, line, found)
    assert {one[0] for one in found} & silent == set()
    assert understood_all(diagnosis.facts)


def test_nothing_of_the_field_is_passed_over_in_silence():
    for folder in sorted(path for path in FIELD.iterdir()):
        facts = diagnose(ask([str(folder)])).facts
        assert facts.services or facts.nginx or facts.not_understood, folder.name


KINDS = FIELD.parent / "kinds"
SERVICES = {
    "gpustack": 2, "kserve": 2, "litellm-stack": 4, "llm-d": 3, "nim": 3, "open-webui": 3, "production-stack": 2,
    "quadlet": 2, "systemd": 2,
}  # fmt: skip


@pytest.mark.parametrize("kind", sorted(SERVICES))
def test_what_public_repositories_are_made_of_is_understood(kind: str):
    diagnosis = diagnose(ask([str(KINDS / kind)]))
    facts = diagnosis.facts
    assert {one.rule for one in diagnosis.findings} & {"K8008", "PX007", "PX008", "PX010", "NG040", "VL040"} == set()
    assert len(facts.services) == SERVICES[kind]
    unknown = [one.why for one in facts.not_understood]
    assert unknown == (
        ["worker takes GPUs; what gpustack/gpustack:v2.0.1 runs is not known"] if kind == "gpustack" else []
    )
