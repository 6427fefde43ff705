"""`atoll render` as a user types it."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from typer.testing import CliRunner

from atoll.cli.main import make_app
from atoll.documents import parse_yaml
from atoll.errors import InputError
from stand_ins.layouts import two_pairs

ROOT = Path(__file__).parents[2]
LAYOUT = ROOT / "tests" / "data" / "bundles" / "h100-nvl-2xtp2.layout.yaml"


def render(*words: str):
    return CliRunner().invoke(make_app(["render"]), ["render", *words])


def test_the_files_are_written_and_the_next_step_is_said(tmp_path):
    done = render(str(LAYOUT), "--to", "process", "-o", str(tmp_path / "b"))
    assert done.exit_code == 0
    assert {p.name for p in (tmp_path / "b").iterdir()} == {"process.yaml", "nginx.conf", "layout.yaml", "README.md"}
    assert "Next: atoll up" in done.stdout


def test_the_doctor_looks_at_a_stack_and_not_at_the_source_beside_its_backend(tmp_path):
    render(str(LAYOUT), "--stack", "app", "-o", str(tmp_path / "b"))
    said = CliRunner().invoke(make_app(["doctor"]), ["doctor", str(tmp_path / "b"), "--json"])
    document = json.loads(said.stdout)
    assert (said.exit_code, document["findings"], document["not_understood"]) == (0, [], [])
    assert len(document["looked_at"]) < 10


def test_json_is_one_document_without_secrets(tmp_path):
    done = render(str(LAYOUT), "--stack", "app", "-o", str(tmp_path / "b"), "--json")
    document = json.loads(done.stdout)
    assert document["to"] == "compose"
    assert set(document["paths"]) >= {"compose.yaml", "nginx.conf", ".env", "backend/Dockerfile"}
    assert ".env" not in document["files"]
    env = (tmp_path / "b" / ".env").read_text()
    secret = next(line.split("=", 1)[1] for line in env.splitlines() if line.startswith("MONGO_PASSWORD="))
    assert len(secret) >= 40
    assert secret not in done.stdout
    assert (tmp_path / "b" / ".env").stat().st_mode & 0o777 == 0o600


def test_the_door_does_not_lead_to_the_backend_which_this_machine_alone_reaches(tmp_path):
    render(str(LAYOUT), "--stack", "app", "--bind", "0.0.0.0", "-o", str(tmp_path / "b"))
    assert "backend" not in re.sub("#.*", "", (tmp_path / "b" / "nginx.conf").read_text())
    services = parse_yaml((tmp_path / "b" / "compose.yaml").read_text(), origin="compose.yaml")["services"]
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "nginx": ["${ATOLL_BIND:-0.0.0.0}:${ATOLL_PORT:-8080}:8080"],
        "backend": ["127.0.0.1:${ATOLL_BACKEND_PORT:-8090}:8090"],
    }
    readme = (tmp_path / "b" / "README.md").read_text()
    assert "http://127.0.0.1:8090" in readme
    assert "ATOLL_TOKEN" in readme


def test_the_backends_image_has_what_it_needs(tmp_path):
    render(str(LAYOUT), "--stack", "app", "-o", str(tmp_path / "b"))
    text = (tmp_path / "b" / "backend" / "requirements.txt").read_text().replace("\\\n", "")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==\S+( +--hash=sha256:[0-9a-f]{64})+", line.rstrip()) for line in lines)
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", text, re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["web"]])
    assert [str(one) for one in wanted if not one.specifier.contains(pinned.get(one.name, ""), prereleases=True)] == []
    assert not {"pytest", "pyarrow", "atoll"} & set(pinned)
    assert "--require-hashes" in (tmp_path / "b" / "backend" / "Dockerfile").read_text()
    assert (tmp_path / "b" / "backend" / "src" / "atoll" / "web" / "app.py").exists()


def test_dry_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = render(str(LAYOUT), "--dry-run")
    assert "device_ids: ['0', '1']" in done.stdout
    assert "proxy_buffering off;" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_models_folder_is_named_by_its_absolute_path(tmp_path, monkeypatch):
    (tmp_path / "my-model").mkdir()
    card = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 128, "intermediate_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 256,
        "max_position_embeddings": 2048, "tie_word_embeddings": True}  # fmt: skip
    (tmp_path / "my-model" / "config.json").write_text(json.dumps(card))
    (tmp_path / "l.yaml").write_text(LAYOUT.read_text().replace("Qwen/Qwen2.5-32B-Instruct", "my-model"))
    monkeypatch.chdir(tmp_path)
    render("l.yaml", "-o", "b", "--to", "process")
    render("l.yaml", "-o", "c")
    assert f"- {tmp_path}/my-model\n" in Path("b/process.yaml").read_text()
    assert "- /models/my-model\n" in Path("c/compose.yaml").read_text()
    assert f"ATOLL_MODELS={tmp_path}\n" in Path("c/.env").read_text()


def test_images_version_and_folder_can_be_chosen(tmp_path):
    words = (
        "--image",
        "reg.local/vllm:x",
        "--nginx-image",
        "reg.local/nginx:y",
        "--models",
        "/data",
        "--bind",
        "0.0.0.0",
    )
    render(str(LAYOUT), "-o", str(tmp_path / "b"), *words, "--engine-version", "0.10.2")
    compose = (tmp_path / "b" / "compose.yaml").read_text()
    assert "image: reg.local/vllm:x" in compose
    assert "image: reg.local/nginx:y" in compose
    assert "--shutdown-timeout" not in compose  # 0.10.2 has none
    env = (tmp_path / "b" / ".env").read_text()
    assert "ATOLL_MODELS=/data\n" in env
    assert "ATOLL_BIND=0.0.0.0\n" in env


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--to", "swarm"), "'swarm' is no form of a bundle; there are compose, process, kubernetes."),
        (("--stack", "web"), "'web' is no stack; there is app."),
        (("--image", "-v"), "--image '-v' is no name of an image"),
        (("--nginx-image", "nginx latest"), "--nginx-image 'nginx latest' is no name of an image"),
        (("--engine", "sglang"), "'sglang' is no engine that can be started"),
        (("--engine-version", "latest"), "'latest' is no vLLM version"),
    ],
)
def test_what_cannot_be_rendered_is_refused_in_a_sentence(tmp_path, words, sentence):
    done = render(str(LAYOUT), "-o", str(tmp_path / "b"), *words)
    assert isinstance(done.exception, InputError)
    assert sentence in str(done.exception)
    assert not (tmp_path / "b").exists()


def test_a_folder_that_holds_something_is_overwritten_only_with_force(tmp_path):
    layout = two_pairs()
    (tmp_path / "layout.yaml").write_text(layout.to_yaml())
    argv = [sys.executable, "-m", "atoll"]

    def atoll(*words):
        return subprocess.run([*argv, *words], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    render = ("render", "layout.yaml", "--to", "process", "-o", "b")
    assert atoll(*render).returncode == 0
    made = (tmp_path / "b" / "layout.yaml").read_text()
    for words in (render, ("simulate", "layout.yaml", "--users", "3", "--requests", "5", "-o", "b")):
        done = atoll(*words)
        assert done.returncode == 2
        assert "b already holds something. Choose another place with -o, or overwrite it with --force." in done.stderr
    assert (tmp_path / "b" / "layout.yaml").read_text() == made
    assert not (tmp_path / "b" / "run.yaml").exists()
    assert atoll(*render, "--force").returncode == 0
