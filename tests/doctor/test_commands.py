"""vLLM's command lines in every form in which compose files write them."""

import pytest

from atoll.doctor.compose import Service
from atoll.doctor.vllm import is_listed
from atoll.engines.vllm.versions import tag_version


@pytest.fixture
def service_of(facts_of):
    """The only service of a compose file."""

    def make(body: str, env: str = "") -> Service:
        files = {"compose.yaml": "services:\n  vllm:\n" + "".join(f"    {line}\n" for line in body.splitlines())}
        return facts_of({**files, **({".env": env} if env else {})}).services[0]

    return make


FORMS = {
    "list": 'image: vllm/vllm-openai:v0.32.0\ncommand: ["org/m", "--tensor-parallel-size", "2", "--max-model-len=8192"]',
    "block list": "image: vllm/vllm-openai:v0.32.0\ncommand:\n  - org/m\n  - -tp\n  - '2'\n  - --max_model_len\n  - 8k",
    "string": "image: vllm/vllm-openai:v0.32.0\ncommand: --model org/m -tp 2 --max-model-len 8192",
    "quoted": "image: vllm/vllm-openai:v0.32.0\ncommand: \"org/m -tp 2 --max-model-len '8192'\"",
    "folded": "image: vllm/vllm-openai:v0.32.0\ncommand: >-\n  org/m\n  --tensor-parallel-size 2\n  --max-model-len 8192",
    "backslashes": "image: vllm/vllm-openai:v0.32.0\ncommand: |\n  org/m \\\n  --tensor-parallel-size=2 \\\n  --max-model-len 8192",
    "shell": "image: own/image:1\nentrypoint: [bash, -c]\ncommand: ['export A=1; exec vllm serve org/m -tp 2 --max-model-len 8192']",
    "shell in one": 'image: own/image:1\ncommand: bash -lc "vllm serve org/m -tp 2 --max-model-len 8192 | tee log"',
    "module": "build: .\ncommand: python3 -m vllm.entrypoints.openai.api_server --model org/m -tp 2 --max-model-len 8192",
    "entrypoint": "image: vllm/vllm-openai:v0.32.0\nentrypoint: vllm serve\ncommand: org/m -tp 2 --max-model-len 8192",
    "variables": "image: vllm/vllm-openai:v0.32.0\ncommand: ${MODEL} -tp ${TP:-2} ${EXTRA:---max-model-len 8192}",
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read_alike(form, service_of):
    command = service_of(FORMS[form], env="MODEL=org/m\n").vllm
    assert command is not None
    assert (command.model, command.tensor_parallel) == ("org/m", 2)
    assert command.integer("--max-model-len") in {8192, 8000}


def test_an_option_knows_its_line(service_of):
    command = service_of(FORMS["folded"]).vllm
    assert command.option("--max-model-len").word.line == 7


def test_what_is_not_known_is_not_guessed(service_of):
    command = service_of("image: vllm/vllm-openai:${TAG}\ncommand: org/m -tp ${TP}").vllm
    assert command is None or command.tensor_parallel is None


def test_numbers_are_read_as_vllm_reads_them(service_of):
    command = service_of(
        "image: vllm/vllm-openai:v0.32.0\ncommand: m --max-model-len 32k --max-num-batched-tokens 8K"
    ).vllm
    assert command.integer("--max-model-len") == 32000
    assert command.integer("--max-num-batched-tokens") == 8192


def test_lists_of_values_do_not_swallow_what_follows(service_of):
    command = service_of("image: vllm/vllm-openai:v0.32.0\ncommand: m --served-model-name a b -tp 4").vllm
    assert (command.model, command.tensor_parallel, command.text("--served-model-name")) == ("m", 4, "a b")


@pytest.mark.parametrize(
    ("tag", "version"),
    [
        ("v0.8.5.post1", (0, 8, 5)),
        ("0.32.0-cu129", (0, 32, 0)),
        ("latest", None),
        ("nightly", None),
        (None, None),
        ("v0.9", (0, 9)),
        ("1.27-alpine", (1, 27)),
        ("v0.9.2sha1234", None),
    ],
)
def test_versions_of_tags(tag, version):
    assert tag_version(tag) == version


def test_a_version_without_a_list_of_its_own_accuses_nobody():
    assert is_listed((0, 32, 5))
    assert is_listed(None)
    assert not is_listed((0, 7, 3))
    assert not is_listed((0, 99, 0))


@pytest.mark.parametrize(
    "image",
    [
        "nginx:1.27",
        "ghcr.io/example/web:1",
        "vllm/vllm-router:0.1.17",
        "lmcache/lmstack-router:latest",
        "ollama/ollama",
    ],
)
def test_other_images_are_not_taken_for_vllm(image, service_of):
    assert service_of(f"image: {image}\ncommand: --port 80").vllm is None
