"""systemd units, quadlets and Dockerfiles are read as the services that they keep running or build."""

from atoll.doctor.files import HeldFiles
from atoll.workflows.diagnose import ask, diagnose

QUADLET = """\
[Unit]
Description=vLLM
[Container]
Image=docker.io/vllm/vllm-openai:v0.33.0
AddDevice=nvidia.com/gpu=0
PublishPort=127.0.0.1:8000:8000
Volume=/srv/hf:/root/.cache/huggingface:Z
Environment=A=1 "B=two words"
PodmanArgs=--ipc=host --restart on-failure
Exec=org/m \\
  --tensor-parallel-size 2 \\
  # a comment between
  --swap-space 4
[Service]
Restart=always
[Install]
WantedBy=multi-user.target
"""
UNIT = """\
[Service]
Environment="CUDA_VISIBLE_DEVICES=2,3" TP=2
EnvironmentFile=-model.env
ExecStart=-/opt/venv/bin/vllm serve ${MODEL} --tensor-parallel-size $TP --port 8100
Restart=always
"""


def test_a_quadlet(facts_of):
    (service,) = facts_of({"vllm.container": QUADLET}).services
    assert (service.name, service.image.engine_version, service.gpus.ids) == ("vllm", (0, 33, 0), ("0",))
    assert (service.vllm.model, service.vllm.world_size) == ("org/m", 2)
    assert (service.vllm.option("--swap-space").word.line, service.string("ipc")) == (13, "host")
    assert (service.string("restart"), service.ports[0].host_ip) == ("always", "127.0.0.1")
    assert {name: setting.value for name, setting in service.environment.items()} == {"A": "1", "B": "two words"}


def test_a_unit_of_a_program(facts_of):
    (service,) = facts_of({"llm.service": UNIT, "model.env": "MODEL=org/m\n"}).services
    assert (service.name, service.on_host, service.gpus.ids) == ("llm", True, ("2", "3"))
    assert (service.vllm.model, service.vllm.world_size, service.listen_port) == ("org/m", 2, 8100)


def test_a_unit_of_a_container_and_one_of_something_else(facts_of):
    run = "[Service]\nExecStart=/usr/bin/docker run --rm --name %n --gpus all vllm/vllm-openai:v0.33.0 org/m\n"
    facts = facts_of({"a.service": run, "b.service": "[Service]\nExecStart=/usr/bin/true\n"})
    assert [(service.name, service.gpus.count) for service in facts.services] == [("a", -1)]
    assert [(one.file, one.why) for one in facts.not_understood] == [("b.service", "a unit whose program is not known")]


def test_units_of_a_folder_share_its_cards():
    texts = {f"{name}.service": UNIT.replace("8100", port) for name, port in (("a", "8100"), ("b", "8101"))}
    found = diagnose(ask(["."], select=["TP008"]), HeldFiles(texts)).findings
    assert [one.what for one in found] == ["GPUs 2 and 3 are given to a and to b"]


DOCKERFILE = """\
# syntax=docker/dockerfile:1
ARG TAG=v0.33.0
FROM ubuntu:22.04 AS tools
CMD ["false"]
FROM vllm/vllm-openai:${TAG} AS base
RUN <<EOF
ENTRYPOINT false
EOF
FROM base
ENV VLLM_X=1 \\
    MODEL="org/m"
COPY run.sh /app/
ENTRYPOINT ["vllm", "serve"]
CMD ["org/m", "--swap-space", "4"]
"""


def test_what_is_built_is_the_engine_that_it_comes_from(facts_of):
    compose = "services:\n  a:\n    build: {context: img, args: {TAG: v0.24.0}}\n    gpus: all\n"
    facts = facts_of({"compose.yaml": compose, "img/Dockerfile": DOCKERFILE})
    (service,) = facts.services
    assert (service.image.text, service.image.engine_version) == ("vllm/vllm-openai:v0.24.0", (0, 24, 0))
    assert service.vllm.option("--swap-space").word.file == "img/Dockerfile"
    assert (service.vllm.option("--swap-space").word.line, service.environment["VLLM_X"].value) == (14, "1")
    assert facts.not_understood == ()


def test_a_command_of_compose_takes_the_place_of_the_images(facts_of):
    compose = "services:\n  a:\n    build: .\n    command: [org/other, -tp, '2']\n"
    (service,) = facts_of({"compose.yaml": compose, "Dockerfile": DOCKERFILE}).services
    assert (service.vllm.model, service.vllm.world_size, service.image.tag) == ("org/other", 2, "v0.33.0")


def test_a_script_that_the_image_or_a_mount_brings_is_followed(facts_of):
    script = '#!/bin/sh\nexec vllm serve org/m "$@"\n'
    image = DOCKERFILE.replace('["vllm", "serve"]', '["/app/run.sh"]').replace('"org/m", ', "")
    built = {"compose.yaml": "services:\n  a:\n    build: .\n", "Dockerfile": image, "run.sh": script}
    mounted = "services:\n  a:\n    image: own/llm:1\n    command: bash /x/run.sh -tp 2\n    volumes: ['./run.sh:/x/run.sh']\n"
    (a,) = facts_of(built).services
    (b,) = facts_of({"compose.yaml": mounted, "run.sh": script}).services
    assert (a.vllm.model, a.vllm.option("--swap-space").value) == ("org/m", "4")
    assert (b.vllm.model, b.vllm.world_size) == ("org/m", 2)


def test_a_dockerfile_alone_and_one_that_is_not_here(facts_of):
    alone = facts_of({"llm/Dockerfile": DOCKERFILE})
    assert [(service.name, service.vllm.model) for service in alone.services] == [("llm", "org/m")]
    facts = facts_of({"compose.yaml": "services:\n  a:\n    build: llm\n    gpus: all\n"})
    assert [(one.file, one.why) for one in facts.not_understood] == [
        ("llm/Dockerfile", "the image of a is built of it, and it is not here")
    ]


def test_an_included_file_is_filled_in_by_its_own_variables(facts_of):
    compose = (
        "include:\n  - {path: engines/compose.yaml, env_file: engines/prod.env}\n  - other/compose.yaml\nservices: {}\n"
    )
    inner = "services:\n  {0}:\n    image: vllm/vllm-openai:v0.33.0\n    command: org/m -tp ${{TP}}\n"
    files = {
        "compose.yaml": compose,
        "engines/compose.yaml": inner.format("a"),
        "engines/prod.env": "TP=2\n",
        "other/compose.yaml": inner.format("b"),
        "other/.env": "TP=4\n",
    }
    assert {service.name: service.vllm.world_size for service in facts_of(files).services} == {"a": 2, "b": 4}
    files[".env"] = "TP=8\n"
    assert {service.vllm.world_size for service in facts_of(files).services} == {8}


def test_configurations_in_the_compose_file_itself(facts_of):
    compose = """\
services:
  a: {image: "vllm/vllm-openai:v0.33.0", command: org/m}
  door:
    image: nginx:1.29
    configs: [{source: site, target: /etc/nginx/conf.d/default.conf}]
configs:
  site:
    content: |
      server {
        location /v1/ { proxy_pass http://a:8000; proxy_set_header Host $$host; }
      }
"""
    (config,) = facts_of({"compose.yaml": compose}).nginx
    (location,) = config.locations
    assert (location.directive.line, location.headers(), location.hosts) == (10, {"host": "$host"}, (("a", 8000),))
