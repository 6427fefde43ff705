"""Containers and engines that scripts and READMEs start are services like any other."""

import pytest

from atoll.doctor.coverage import coverage_line, understood_all
from atoll.doctor.facts import Facts
from atoll.doctor.files import HeldFiles
from atoll.workflows.diagnose import ask, diagnose

RUN = """\
#!/bin/bash
port=5001
docker run -d --runtime=nvidia --gpus '"device=0,1"' --name one \\
    -p 127.0.0.1:$port:$port -e HF_TOKEN -v $HOME/.cache:/root/.cache --ipc=host \\
    vllm/vllm-openai:v0.33.0 org/m --port=$port --tensor-parallel-size 2
sudo podman run -itd --device nvidia.com/gpu=2 --shm-size 8g --restart always -p8001:8000 \\
    docker.io/vllm/vllm-openai:v0.33.0 --model org/m
"""


def services_of(facts: Facts):
    return {service.name: service for service in facts.services}


def test_docker_run_is_read_as_compose_would_be(facts_of):
    facts = facts_of({"run.sh": RUN})
    one, two = facts.services
    assert (one.name, one.line, one.image.version, one.listen_port) == ("one", 3, (0, 33, 0), 5001)
    assert (one.gpus.ids, one.string("ipc"), one.vllm.world_size) == (("0", "1"), "host", 2)
    assert [(port.host_ip, port.published, port.target) for port in one.ports] == [("127.0.0.1", "5001", "5001")]
    assert [(mount.kind, mount.target) for mount in one.mounts] == [("bind", "/root/.cache")]
    assert one.environment["HF_TOKEN"].value is None
    assert (two.name, two.gpus.ids, two.string("restart"), two.ports[0].published) == (
        "vllm-openai",
        ("2",),
        "always",
        "8001",
    )


@pytest.mark.parametrize(
    ("line", "ids", "count"),
    [
        ("--gpus all", None, -1),
        ("--gpus=2", None, 2),
        ("--gpus '\"device=1,3\"'", ("1", "3"), None),
        ("--gpus device=GPU-aaaa", ("GPU-aaaa",), None),
        ('--gpus "$GPUS"', None, None),
        ("--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=0", ("0",), None),
        ("--device nvidia.com/gpu=all", None, -1),
    ],
)  # fmt: skip
def test_gpus_of_docker_run(facts_of, line, ids, count):
    (service,) = facts_of({"run.sh": f"docker run {line} vllm/vllm-openai org/m\n"}).services
    assert (service.gpus.ids, service.gpus.count) == (ids, count)


def test_options_in_a_variable_are_no_image(facts_of):
    text = 'docker run $GPU_FLAGS --rm "${OPTS[@]}" ${IMAGE:-vllm/vllm-openai:v0.33.0} org/m -tp 2\n'
    (service,) = facts_of({"run.sh": text}).services
    assert (service.image.text, service.vllm.world_size) == ("vllm/vllm-openai:v0.33.0", 2)


def test_programs_of_the_host_take_the_first_cards_unless_told_which(facts_of):
    text = "export VLLM_X=1\nvllm serve org/a &\nCUDA_VISIBLE_DEVICES=1,2 nohup vllm serve org/b -tp 2 > log &\n"
    a, b = facts_of({"serve.sh": text}).services
    assert (a.name, a.on_host, a.gpus.count, a.environment["VLLM_X"].value) == ("a", True, 1, "1")
    assert (b.name, b.gpus.ids) == ("b", ("1", "2"))


def test_arms_of_an_if_do_not_meet_and_rounds_of_a_loop_do():
    apart = "if [ x ]; then vllm serve org/a; else vllm serve org/b; fi\n"
    far = "ssh -p 22 gpu01 'vllm serve org/a'\nssh ops@gpu02 'vllm serve org/a'\n"
    loop = "for i in 0 1; do CUDA_VISIBLE_DEVICES=0 vllm serve org/a --port 800$i & done\n"

    def rules(text: str) -> set[str]:
        return {one.rule for one in diagnose(ask(["x.sh"]), HeldFiles({"x.sh": text})).findings}

    assert "TP009" not in rules(apart)
    assert "TP009" not in rules(far)
    assert "TP009" in rules(far.replace("ops@gpu02", "gpu01"))
    assert "TP008" in rules(loop)


def test_a_readme_gives_one_project_for_each_block(facts_of):
    text = "# Try\n```bash\n$ docker run --gpus all vllm/vllm-openai m\n```\nor\n```\nvllm serve m -tp 2\n```\n```yaml\nvllm serve: 1\n```\n"
    facts = facts_of({"README.md": text})
    assert [(p.name, p.services[0].line) for p in facts.projects] == [("README.md:3", 3), ("README.md:7", 7)]


def test_a_compose_file_that_a_script_writes_is_read_where_it_stands():
    text = 'cat > compose.yaml <<"EOF"\nservices:\n  a:\n    image: vllm/vllm-openai:v0.33.0\n    command: m --swap-space 4\nEOF\n'
    found = diagnose(ask(["x.sh"]), HeldFiles({"x.sh": text})).findings
    assert [(one.line, one.what) for one in found if one.rule == "VL001"] == [(5, "--swap-space is gone in vLLM 0.33")]


def test_only_what_was_understood_whole_has_nothing_to_report(facts_of):
    good = {"compose.yaml": "services: {web: {image: 'ghcr.io/example/web:1.4.2'}}\n"}
    facts = facts_of(good)
    assert understood_all(facts)
    assert coverage_line(facts) == "Looked at 1 service."
    held = HeldFiles(good | {"main.tf": 'image = "vllm/vllm-openai"\n', ".git/config": "", "a/b/c.txt": ""})
    facts = diagnose(ask(["."]), held).facts
    assert not understood_all(facts)
    assert (
        coverage_line(facts) == "Looked at 1 service; not understood: main.tf (Terraform or Nomad); not entered: .git."
    )
