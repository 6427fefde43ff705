"""A user's own backend in the app stack: what its files say is kept, and what they got wrong is put right."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from atoll.errors import InputError
from atoll.render.app import MONGO_IMAGE
from atoll.workflows.backend import read_backend
from atoll.workflows.diagnose import diagnose_folder
from atoll.workflows.render import render_layout, render_settings
from stand_ins.layouts import two_pairs
from stand_ins.patience import PATIENCE_S

STACK = Path(__file__).parents[1] / "data" / "doctor" / "stack-b" / "docker-compose.yml"
DOCKERFILE = """FROM python:3.12-slim AS build
EXPOSE 1
FROM python:3.12-slim
ENV APP_MODE=production
EXPOSE 9000
CMD ["uvicorn", "app:app", "--host", "0.0.0.0", \\
     "--port", "8080"]
"""
MODEL = "Qwen/Qwen2.5-7B-Instruct"


def project(tmp_path, compose=None, dockerfile=DOCKERFILE):
    """A project as people have it: a Compose file, and the backend's folder beside it."""
    folder = tmp_path / "project" / "backend"
    folder.mkdir(parents=True)
    (folder / "Dockerfile").write_text(dockerfile)
    if compose is not None:
        (folder.parent / "docker-compose.yml").write_text(compose)
    return folder


def rendered(tmp_path, given, **settings):
    made = render_settings(stack="app", backend=str(given), secret=lambda: "made-for-the-test", **settings)
    folder = tmp_path / "bundle"
    render_layout(two_pairs(model=MODEL).replace(engine="vllm"), folder=folder, settings=made)
    return folder, yaml.safe_load((folder / "compose.yaml").read_text())


def test_a_stack_with_faults_is_put_right(tmp_path):
    backend = project(tmp_path, STACK.read_text())
    folder, document = rendered(tmp_path, backend)
    services = document["services"]
    assert set(services) == {"vllm-0", "vllm-1", "nginx", "backend", "mongo"}
    own = services["backend"]
    assert own["build"] == {"context": "${ATOLL_BACKEND:?set it in .env to the folder of the backend's Dockerfile}"}
    assert own["environment"] == {
        "APP_MODE": "production",
        "MONGO_URL": "mongodb://atoll:${MONGO_PASSWORD:?is made by atoll render and stands in .env}@mongo:27017/chat"
        "?authSource=admin",
        "OPENAI_BASE_URL": "http://nginx:8080/v1",
        "OPENAI_API_KEY": "${VLLM_API_KEY:-EMPTY}",
    }
    assert own["ports"] == ["${ATOLL_BACKEND_BIND:-127.0.0.1}:${ATOLL_BACKEND_PORT:-8090}:8080"]  # 8080 is the door's
    assert own["depends_on"] == {name: {"condition": "service_healthy"} for name in ("mongo", "nginx")}
    assert "8080" in str(own["healthcheck"]["test"])
    assert own["logging"]["options"] == {"max-size": "50m", "max-file": "3"}
    assert (own["restart"], "cap_drop" in own) == ("unless-stopped", False)
    assert services["mongo"]["image"] == MONGO_IMAGE  # `latest` was asked for
    assert services["mongo"]["volumes"][0] == "mongo-data:/data/db"
    assert not any("ports" in services[name] for name in ("mongo", "vllm-0", "vllm-1"))
    env = (folder / ".env").read_text()
    assert f"ATOLL_BACKEND={backend.resolve()}\n" in env
    assert "ATOLL_TOKEN" not in env
    said = (folder / "README.md").read_text()
    for words in (
        "MONGO_URL was mongodb://mongo:27017/chat",
        "open to every network",
        "/data/mongo, where MongoDB keeps nothing",
    ):
        assert words in said
    assert not (folder / "backend").exists()
    found = [finding for finding in diagnose_folder(folder) if finding.severity.value in {"error", "warning"}]
    assert [finding for finding in found if not finding.rule.startswith(("TP", "VL", "MF"))] == []


def test_what_a_compose_file_says_of_the_service_is_kept(tmp_path):
    compose = """
services:
  api:
    build: {context: ./backend, dockerfile: Dockerfile, args: {VARIANT: slim}}
    command: [gunicorn, "app:app", -b, "0.0.0.0:5000"]
    user: "1000"
    expose: ["5000"]
    environment:
      - MODEL_NAME=mine
      - MONGO_HOST=db
      - MONGO_PASSWORD=hunter2
      - LLM_URL=http://gateway/v1
      - HF_TOKEN=hf_0123456789abcdef
      - PRICE=5$$
      - FROM_OUTSIDE
    networks: [front, data]
    volumes: ["./prompts:/prompts:ro", "uploads:/uploads"]
    healthcheck: {test: [CMD, "true"]}
  db: {image: "mongo:7.0", volumes: ["db:/data/db"]}
  cache: {image: "redis:7"}
  gateway: {image: "nginx:1.31.3-alpine"}
  llm:
    image: vllm/vllm-openai:v0.32.0
    command: [--model, Qwen/Qwen2.5-7B-Instruct, --served-model-name, mine]
networks: {front: {external: true}, data: {}}
volumes: {db: {}, uploads: {}}
"""
    backend = project(tmp_path, compose, DOCKERFILE.replace("8080", "5000"))
    folder, document = rendered(tmp_path, backend)
    own = document["services"]["backend"]
    assert own["build"]["args"] == {"VARIANT": "slim"}
    assert own["command"] == ["gunicorn", "app:app", "-b", "0.0.0.0:5000"]
    assert (own["user"], own["healthcheck"]["test"]) == ("1000", ["CMD", "true"])
    assert own["environment"]["MODEL_NAME"] == MODEL
    assert own["environment"]["LLM_URL"] == "http://nginx:8080/v1"
    assert own["environment"]["MONGO_HOST"] == "mongo"
    assert own["environment"]["MONGO_PASSWORD"].startswith("${MONGO_PASSWORD:?")
    assert own["environment"]["FROM_OUTSIDE"] == "${FROM_OUTSIDE:-}"
    assert own["environment"]["PRICE"] == "5$$"
    assert own["networks"] == {name: {"aliases": ["api"]} for name in ("desk", "replicas", "data", "front", "own-data")}
    assert document["networks"]["front"] == {"external": True}
    assert document["services"]["mongo"]["image"] == "mongo:7.0"
    assert own["volumes"] == [f"{backend.parent.resolve()}/prompts:/prompts:ro", "uploads:/uploads"]
    assert "uploads" in document["volumes"]
    text = (folder / "compose.yaml").read_text() + (folder / "README.md").read_text()
    assert "hf_0123456789abcdef" not in text
    assert "hunter2" not in text
    assert "HF_TOKEN=hf_0123456789abcdef" in (folder / ".env").read_text()
    assert "cache is left out; put it into compose.override.yaml" in text
    composer = shutil.which("docker-compose") or os.environ.get("ATOLL_TEST_COMPOSE")
    if composer is not None:
        argv = [composer, "-f", "compose.yaml", "config", "--quiet"]
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_an_image_or_a_dockerfile_alone_gets_the_usual_names(tmp_path):
    image = read_backend("registry.lan/team/api:1.4")
    assert (image.image, image.port, image.context) == ("registry.lan/team/api:1.4", 8000, None)
    alone = read_backend(str(project(tmp_path)))
    assert (alone.image, alone.port) == (None, 8080)
    for made in (image, alone):
        assert made.environment["OPENAI_BASE_URL"] == "http://nginx:8080/v1"
        assert "No Compose file says how it is set up" in made.notes[0]
    exposed = tmp_path / "other"
    exposed.mkdir()
    (exposed / "Dockerfile").write_text("FROM x\nEXPOSE 7000/tcp\nHEALTHCHECK CMD true\nCMD run\n")
    assert (read_backend(str(exposed)).port, read_backend(str(exposed)).checks_itself) == (7000, True)


@pytest.mark.parametrize(
    ("compose", "words"),
    [
        ("services:\n  a: {build: .}\n  b: {build: .}\n", r"builds several services \(a, b\)"),
        ("services:\n  a: {build: ./none}\n", "there is no Dockerfile in"),
        ("services: [", "compose.yaml"),
    ],
)
def test_what_cannot_be_told_is_one_sentence(tmp_path, compose, words):
    (tmp_path / "compose.yaml").write_text(compose)
    with pytest.raises(InputError, match=words):
        read_backend(str(tmp_path))


def test_a_backend_needs_its_stack_and_a_folder_that_is_there(tmp_path):
    with pytest.raises(InputError, match="--stack app"):
        render_settings(backend=str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        read_backend(str(tmp_path / "none"))
    with pytest.raises(InputError, match="there is no Dockerfile"):
        read_backend(str(tmp_path))
