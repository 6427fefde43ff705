"""Siblings of the usual forms: what people also write."""

import pytest

from atoll.doctor.coverage import understood_all
from atoll.doctor.files import HeldFiles
from atoll.workflows.diagnose import ask, diagnose

ENGINE = "vllm serve org/m --tensor-parallel-size 2 --swap-space 4"
RUN = "docker run --gpus '\"device=0\"' vllm/vllm-openai:v0.33.0 org/m --tensor-parallel-size 2 --swap-space 4"

FORMS: dict[str, dict[str, str]] = {
    "a Makefile": {"Makefile": "TP ?= 2\nIMAGE := vllm/vllm-openai:v0.33.0\nup: ## start\n\t@docker run $(IMAGE) org/m \\\n\t\t--tensor-parallel-size $(TP) --swap-space 4\n"},
    "a justfile": {"justfile": "tp := '2'\nup:\n    docker run vllm/vllm-openai:v0.33.0 org/m --tensor-parallel-size {{tp}} --swap-space 4\n"},
    "a command over ssh": {"up.sh": f'ssh -p 22 gpu01 "cd /srv && {ENGINE} > log 2>&1 &"\n'},
    "ssh without quotes": {"up.sh": f"ssh gpu01 {RUN}\n"},
    "a script handed to a shell": {"up.sh": f"ssh gpu01 bash -s <<'EOF'\ncd /srv\n{ENGINE}\nEOF\n"},
    "a unit that a script writes": {"up.sh": f"sudo tee /etc/systemd/system/llm.service <<EOF\n[Service]\nExecStart=/opt/{ENGINE}\nEOF\n"},
    "a job of Slurm": {"job.sbatch": f"#!/bin/bash\n#SBATCH --gres=gpu:2\nsrun --gpus=2 {ENGINE}\n"},
    "a script by its first line": {"start": f"#!/usr/bin/env bash\nset -e\nexec {ENGINE}\n"},
    "tmux and nohup": {"up.sh": f"nohup bash -c '{ENGINE}' > log &\n"},
    "a Procfile": {"Procfile": f"web: {ENGINE}\n"},
    "supervisord": {"supervisord.conf": f'[program:llm]\ncommand=/opt/bin/{ENGINE}\nenvironment=A="1",CUDA_VISIBLE_DEVICES="0,1"\n'},
    "a unit that runs a script": {"llm.service": "[Service]\nExecStart=/srv/llm/run.sh 2\n", "run.sh": "exec vllm serve org/m --tensor-parallel-size $1 --swap-space 4\n"},
    "an image of one's own": {"compose.yaml": "services:\n  a:\n    image: registry.local/llm:7\n    command: [--model, org/m, --tensor-parallel-size, '2', --swap-space, '4']\n"},
    "the old api server": {"compose.yaml": "services:\n  a:\n    image: own/x:1\n    entrypoint: python3\n    command: -m vllm.entrypoints.openai.api_server --model org/m --tensor-parallel-size 2 --swap-space 4\n"},
    "a folded script": {"compose.yaml": f'services:\n  a:\n    image: own/x:1\n    command: >\n      bash -c "pip install x &&\n      {ENGINE}"\n'},
    "a literal script": {"compose.yaml": f'services:\n  a:\n    image: own/x:1\n    entrypoint: /bin/bash\n    command:\n      - -lc\n      - |\n        if [ -n "$$X" ]; then\n          {ENGINE}\n        fi\n'},
    "values with an image as text": {"values.yaml": "llm:\n  image: vllm/vllm-openai:v0.33.0\n  args: [org/m, --tensor-parallel-size, '2', --swap-space, '4']\n"},
    "a stateful set with sh": {"x.yaml": f"apiVersion: apps/v1\nkind: StatefulSet\nmetadata: {{name: a}}\nspec: {{template: {{spec: {{containers: [{{name: v, image: own/x, command: [sh, -c], args: ['{ENGINE}']}}]}}}}}}\n"},
    "variables of the container": {"compose.yaml": "services:\n  a:\n    image: own/x:1\n    environment: {MODEL: org/m, TP: 2}\n    command: [sh, -c, 'vllm serve $$MODEL --tensor-parallel-size $${TP} --swap-space 4']\n"},
    "variables of a pod": {"x.yaml": "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec: {containers: [{name: v, image: own/x, env: [{name: TP, value: '2'}], command: [sh, -c], args: ['vllm serve org/m --tensor-parallel-size $TP --swap-space 4']}]}\n"},
    "a Swarm stack": {"stack.yaml": "services:\n  a:\n    image: vllm/vllm-openai:v0.33.0\n    command: org/m --tensor-parallel-size 2 --swap-space 4\n    deploy: {resources: {reservations: {generic_resources: [{discrete_resource_spec: {kind: NVIDIA-GPU, value: 1}}]}}}\n"},
    "a Compose file by another name": {"docker-compose.gpu.yml": f"services:\n  a:\n    image: own/x:1\n    command: {ENGINE}\n"},
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_engine_is_read_in_every_form(form, facts_of):
    facts = facts_of(FORMS[form])
    (service,) = (one for one in facts.services if one.vllm is not None)
    command = service.vllm
    assert (command.model, command.tensor_parallel, command.text("--swap-space")) in {
        ("org/m", 2, "4"),
        ("org/m", None, "4") if form == "a unit that runs a script" else ("org/m", 2, "4"),
    }
    line = command.option("--swap-space").word
    assert "--swap-space" in line.source.line(line.line)
    assert facts.not_understood == ()


def test_traefik_in_toml(facts_of):
    text = '[http.services.a.loadBalancer]\n  [[http.services.a.loadBalancer.servers]]\n    url = "http://a:9000"\n[http.serversTransports.t.forwardingTimeouts]\n  responseHeaderTimeout = "60s"\n'
    (door,) = facts_of({"dynamic.toml": text}).doors
    assert [(one.host, one.port, one.node.line) for one in door.backends] == [("a", 9000, 3)]
    assert [(one.seconds, one.node.line) for one in door.waits] == [(60.0, 5)]


CHECKS = (
    ('[CMD, curl, -f, "http://localhost:8000/healthz"]', True),
    ('"wget -qO- http://127.0.0.1:8000/ready || exit 1"', True),
    ('[CMD, curl, "http://localhost:8000/healthz"]', False),  # without -f curl is content with 404
    ('[CMD, curl, -f, "http://localhost:8000/v1/models"]', False),
)


@pytest.mark.parametrize(("test", "told"), CHECKS)
def test_a_path_that_vllm_does_not_have(test, told):
    text = (
        f"services:\n  a:\n    image: vllm/vllm-openai:v0.33.0\n    command: org/m\n    healthcheck: {{test: {test}}}\n"
    )
    found = diagnose(ask(["."], select=["DC024"]), HeldFiles({"compose.yaml": text})).findings
    assert ["which vLLM does not have: 404 for ever" in one.what for one in found] == [True] * told


@pytest.mark.parametrize(
    "start", ["entrypoint: [/opt/run.sh]\n    command: [--foo]", "entrypoint: [vllm]\n    command: [org/m]"]
)
def test_an_engine_started_by_what_is_not_here_is_not_understood(start, facts_of):
    facts = facts_of({"compose.yaml": f"services:\n  a:\n    image: vllm/vllm-openai:v0.33.0\n    {start}\n"})
    assert [one.why for one in facts.not_understood] == ["how a starts vLLM was not found"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        (
            "kustomization.yaml",
            "resources: [../base]\npatches:\n  - target: {kind: Deployment}\n    patch: '[]'\n",
            "a kustomization; what it patches is not put in",
        ),
        (
            "app.yaml",
            "apiVersion: argoproj.io/v1alpha1\nkind: Application\nmetadata: {name: v}\nspec: {source: {chart: vllm-stack}}\n",
            "Application, whose chart is not here",
        ),
        (
            "release.yaml",
            "apiVersion: helm.toolkit.fluxcd.io/v2\nkind: HelmRelease\nmetadata: {name: v}\nspec: {values: {image: x}}\n",
            "HelmRelease, whose chart is not here",
        ),
    ],
)
def test_what_changes_manifests_elsewhere_is_named(name, text, why):
    facts = diagnose(ask(["."]), HeldFiles({name: text})).facts
    assert [(one.file, one.why) for one in facts.not_understood] == [(name, why)]
    assert not understood_all(facts)


def test_a_manifest_of_nothing_that_is_looked_at_is_not_understood():
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {a: b}\n"
    assert not understood_all(diagnose(ask(["."]), HeldFiles({"c.yaml": text})).facts)
