"""Compose projects: overrides, includes, extends, env files, GPUs, ports."""

import pytest

COMPOSE = "services:\n  a:\n    image: one:1\n    ports: ['80:80']\n    environment: [X=1, Y=2]\n    command: old\n"


def test_an_override_adds_replaces_and_joins(facts_of):
    override = "services:\n  a:\n    ports: ['81:81']\n    environment: {Y: 3, Z: 4}\n    command: new\n"
    service = facts_of({"compose.yaml": COMPOSE, "compose.override.yaml": override}).services[0]
    assert [port.published for port in service.ports] == ["80", "81"]
    assert {name: setting.value for name, setting in service.environment.items()} == {"X": "1", "Y": "3", "Z": "4"}
    assert service.string("command") == "new"


def test_a_file_that_only_adds_is_laid_over_its_base(facts_of):
    facts = facts_of({"compose.yaml": COMPOSE, "compose.gpu.yaml": "services:\n  a:\n    gpus: all\n"})
    assert len(facts.projects) == 1
    assert facts.services[0].gpus.all


def test_two_files_with_services_of_their_own_are_two_projects(facts_of):
    facts = facts_of({"compose.yaml": COMPOSE, "docker-compose.other.yml": COMPOSE})
    assert len(facts.projects) == 2


def test_env_files_and_dotenv_give_values(facts_of):
    files = {
        ".env": "TAG=v0.32.0\nQUOTED='a b'\n",
        "vllm.env": "# comment\nexport VLLM_LOGGING_LEVEL=DEBUG\n",
        "compose.yaml": "services:\n  v:\n    image: vllm/vllm-openai:${TAG}\n    env_file: vllm.env\n    command: ${QUOTED}\n",
    }
    service = facts_of(files).services[0]
    assert service.image.tag == "v0.32.0"
    assert service.string("command") == "a b"
    setting = service.environment["VLLM_LOGGING_LEVEL"]
    assert (setting.value, setting.node.file, setting.node.line) == ("DEBUG", "vllm.env", 2)


REQUESTS = {
    "deploy:\n      resources: {reservations: {devices: [{driver: nvidia, device_ids: ['0', '1'], capabilities: [gpu]}]}}": (
        0,
        1,
    ),
    "gpus: [{device_ids: ['2']}]": (2,),
    "devices: ['nvidia.com/gpu=1', 'nvidia.com/gpu=3']": (1, 3),
    "runtime: nvidia\n    environment: [NVIDIA_VISIBLE_DEVICES=1]": (1,),
}


@pytest.mark.parametrize("body", REQUESTS)
def test_gpu_ids_of_every_spelling(body, facts_of):
    service = facts_of({"compose.yaml": f"services:\n  v:\n    image: x:1\n    {body}\n"}).services[0]
    assert service.gpus.indices == REQUESTS[body]


@pytest.mark.parametrize(
    "body",
    [
        "gpus: all",
        "runtime: nvidia",
        "deploy: {resources: {reservations: {devices: [{driver: nvidia, capabilities: [gpu]}]}}}",
    ],
)
def test_all_gpus_of_every_spelling(body, facts_of):
    assert facts_of({"compose.yaml": f"services:\n  v:\n    image: x:1\n    {body}\n"}).services[0].gpus.all


@pytest.mark.parametrize(
    ("text", "parts", "open_to_all"),
    [
        ("8000", (None, None, "8000"), False),
        ("8001:8000", (None, "8001", "8000"), True),
        ("127.0.0.1:8001:8000/tcp", ("127.0.0.1", "8001", "8000"), False),
        ("0.0.0.0:80:80", ("0.0.0.0", "80", "80"), True),
        ("[::1]:80:80", ("[::1]", "80", "80"), False),
        ("8000-8003:8000-8003", (None, "8000-8003", "8000-8003"), True),
        ("127.0.0.1::80", ("127.0.0.1", None, "80"), False),
    ],
)
def test_ports_of_every_spelling(text, parts, open_to_all, facts_of):
    port = facts_of({"compose.yaml": f"services:\n  v:\n    image: x:1\n    ports: ['{text}']\n"}).services[0].ports[0]
    assert ((port.host_ip, port.published, port.target), port.open_to_all) == (parts, open_to_all)


def test_an_image_keeps_its_registrys_port(facts_of):
    text = "services:\n  v:\n    image: registry.local:5000/vllm/vllm-openai:v0.31.0@sha256:abc\n"
    image = facts_of({"compose.yaml": text}).services[0].image
    assert (image.path, image.tag, image.digest) == ("registry.local:5000/vllm/vllm-openai", "v0.31.0", "sha256:abc")


INSPECT = """[{"Id": "abc", "Name": "/stack-vllm-1",
  "Config": {"Image": "vllm/vllm-openai:v0.32.0", "Cmd": ["org/m", "-tp", "2"], "Entrypoint": ["vllm", "serve"],
             "Env": ["HF_TOKEN=x"], "Labels": {"com.docker.compose.service": "vllm"}},
  "HostConfig": {"ShmSize": 67108864, "IpcMode": "private", "RestartPolicy": {"Name": "no"},
                 "PortBindings": {"8000/tcp": [{"HostIp": "", "HostPort": "8001"}]},
                 "DeviceRequests": [{"Driver": "nvidia", "Count": 0, "DeviceIDs": ["0", "1"], "Capabilities": [["gpu"]]}]},
  "Mounts": [{"Type": "volume", "Name": "hf", "Source": "/var/lib/x", "Destination": "/root/.cache"}],
  "NetworkSettings": {"Networks": {"stack_default": {}}}}]"""


def test_docker_inspect_is_read_like_a_compose_file(facts_of):
    service = facts_of({"inspect.json": INSPECT}).services[0]
    assert (service.name, service.vllm.tensor_parallel, service.gpus.indices) == ("vllm", 2, (0, 1))
    assert (service.ports[0].published, service.mounts[0].target, service.networks) == (
        "8001",
        "/root/.cache",
        ("stack_default",),
    )
    assert service.get("shm_size") is None
    assert service.get("restart") is None
