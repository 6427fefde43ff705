"""A rendered bundle on a real Docker engine: up, load, a killed replica, a moved one, down. `--docker` asks for it.

The emulated engine stands in for vLLM, since the images come from folders of this machine and there is no GPU.
"""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]
BUNDLES = Path(__file__).parents[1] / "data" / "bundles"
MODEL = "Qwen/Qwen2.5-32B-Instruct"


def load_helper():
    import importlib.util

    spec = importlib.util.spec_from_file_location("docker_engine", Path(__file__).with_name("docker_engine.py"))
    module = importlib.util.module_from_spec(spec)
    sys.modules["docker_engine"] = module
    spec.loader.exec_module(module)
    return module


helper = load_helper()


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docker")
    try:
        with helper.docker_engine(folder) as running:
            helper.make_images(running, helper.find_nginx())
            yield running
    except helper.NoDocker as reason:
        pytest.skip(f"no Docker engine here: {reason}")


def atoll(engine, *words: str, inside: bool = False, check: bool = True) -> str:
    argv = [sys.executable, "-m", "atoll", *words]
    return engine.run(*(engine.inside(*argv) if inside else argv), timeout=240, check=check)


@pytest.fixture(scope="module")
def bundle(engine, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "nvl"
    layout = BUNDLES / "h100-nvl-2xtp2.layout.yaml"
    images = ("--image", helper.ENGINE_IMAGE, "--nginx-image", helper.NGINX_IMAGE)
    atoll(engine, "render", str(layout), "--engine", "emulated", *images, "-o", str(folder))
    yield folder
    atoll(engine, "down", str(folder), check=False)


def status(engine, folder) -> dict:
    return json.loads(atoll(engine, "status", str(folder), "--json"))


def states(engine, folder) -> dict[str, str]:
    return {service["name"]: service["state"] for service in status(engine, folder)["services"]}


def bench(engine, *words: str) -> dict:
    url = ("bench", "http://127.0.0.1:8080", "--model", MODEL, "--prompt", "64", "--json")
    if "--output" not in words:
        words = (*words, "--output", "40")
    return json.loads(atoll(engine, *url, *words, inside=True))


def container(engine, folder, service: str) -> str:
    return engine.run("docker", "compose", "-f", str(folder / "compose.yaml"), "ps", "-aq", service).strip()


def address(engine, folder, service: str) -> str:
    template = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    return engine.run("docker", "inspect", "-f", template, container(engine, folder, service)).strip()


def served_by(engine, n: int = 12) -> set[str]:
    curl = ("curl", "-s", "-o", "/dev/null", "-D", "-", "--max-time", "10", "http://127.0.0.1:8080/v1/models")
    heads = [engine.run(*engine.inside(*curl)).lower() for _ in range(n)]
    assert all(head.startswith("http/1.1 200") for head in heads), heads
    return {line.split(":")[1].strip() for h in heads for line in h.splitlines() if line.startswith("x-atoll-replica")}


def test_the_life_of_a_deployment(engine, bundle):
    atoll(engine, "up", str(bundle))
    assert states(engine, bundle) == {"emulated-0": "healthy", "emulated-1": "healthy", "nginx": "healthy"}

    summary = bench(engine, "--users", "8", "--duration", "8s")
    counts = summary["requests"]
    assert counts["sent"] == counts["ok"] > 50
    assert sorted(part["replica"] for part in summary["per_replica"]) == ["0", "1"]

    seen = []
    running = threading.Thread(target=lambda: seen.append(bench(engine, "--users", "8", "--duration", "20s")))
    running.start()
    time.sleep(6)
    busy = {s["name"]: s for s in status(engine, bundle)["services"]}
    engine.run("docker", "kill", "--signal", "KILL", container(engine, bundle, "emulated-1"))
    running.join()
    assert busy["emulated-0"]["requests_running"] > 0
    assert busy["emulated-0"]["output_tokens_per_s"] > 0
    assert busy["emulated-0"]["gpus"] == [0, 1]
    counts = seen[0]["requests"]
    assert counts["sent"] == counts["ok"] + counts["failed"] + counts["cancelled"]
    assert 0 < counts["failed"] <= 8  # those that were being answered by the killed one, and no more
    assert states(engine, bundle)["emulated-1"] == "exited"
    assert served_by(engine) == {"0"}


def test_a_replica_that_comes_back_at_another_address_is_found_again(engine, bundle):
    before = address(engine, bundle, "emulated-1") or "none"
    network = engine.run("docker", "network", "ls", "-q", "--filter", "name=replicas").strip()
    old = container(engine, bundle, "emulated-1")
    engine.run("docker", "rm", "-f", old)
    squatter = engine.run("docker", "run", "-d", "--network", network, helper.ENGINE_IMAGE, "sleep", "300").strip()
    try:
        atoll(engine, "up", str(bundle))
        after = address(engine, bundle, "emulated-1")
        assert after != before
        deadline = time.monotonic() + 20
        while served_by(engine) != {"0", "1"}:
            assert time.monotonic() < deadline, "nginx does not find the moved replica"
        counts = bench(engine, "--users", "4", "--duration", "5s")["requests"]
        assert counts["failed"] == 0
    finally:
        engine.run("docker", "rm", "-f", squatter)


def test_a_process_that_dies_is_restarted_by_docker(engine, bundle):
    name = container(engine, bundle, "emulated-0")
    engine.run("docker", "exec", name, "pkill", "-9", "-f", "atoll emulate")
    deadline = time.monotonic() + 60
    while states(engine, bundle)["emulated-0"] != "healthy" or served_by(engine) != {"0", "1"}:
        assert time.monotonic() < deadline
        time.sleep(1)


def test_logs_and_dry_run(engine, bundle):
    text = atoll(engine, "logs", str(bundle), "--lines", "20")
    assert "nginx | " in text
    assert "emulated-0 | " in text
    printed = atoll(engine, "up", str(bundle), "--dry-run")
    assert "docker compose up --detach" in printed


def updated(engine, folder, *words: str, check: bool = True) -> dict:
    """What a load of 64 users with long answers saw while the deployment was updated."""
    seen = []
    load = ("--users", "64", "--output", "1500", "--duration", "60s")
    running = threading.Thread(target=lambda: seen.append(bench(engine, *load)))
    running.start()
    time.sleep(15)
    atoll(engine, "update", str(folder), *words, check=check)
    running.join()
    return seen[0]["requests"]


def test_an_update_under_load_loses_nothing(engine, bundle, tmp_path):
    atoll(engine, "up", str(bundle))
    nginx, first = container(engine, bundle, "nginx"), container(engine, bundle, "emulated-0")
    layout = tmp_path / "new.yaml"
    text = (bundle / "layout.yaml").read_text()
    layout.write_text(text.replace("max_num_seqs: 32", "max_num_seqs: 48"))
    assert layout.read_text() != text
    counts = updated(engine, bundle, str(layout))
    assert counts["sent"] == counts["ok"] > 64
    assert states(engine, bundle) == {"emulated-0": "healthy", "emulated-1": "healthy", "nginx": "healthy"}
    assert container(engine, bundle, "nginx") == nginx
    second = container(engine, bundle, "emulated-0")
    assert second != first
    atoll(engine, "update", str(bundle), "--policy", "round_robin")
    assert container(engine, bundle, "emulated-0") == second
    assert served_by(engine) == {"0", "1"}


def test_a_bad_new_image_is_taken_back(engine, bundle):
    before = (bundle / "compose.yaml").read_text()
    engine.run("docker", "tag", helper.NGINX_IMAGE, "local/bad:test")
    counts = updated(engine, bundle, "--image", "local/bad:test", check=False)
    assert counts["sent"] == counts["ok"] > 64
    assert (bundle / "compose.yaml").read_text() == before
    assert states(engine, bundle) == {"emulated-0": "healthy", "emulated-1": "healthy", "nginx": "healthy"}
    assert served_by(engine) == {"0", "1"}


def test_down_leaves_nothing(engine, bundle):
    atoll(engine, "down", str(bundle))
    assert engine.run("docker", "ps", "-aq").strip() == ""
    assert engine.run("docker", "network", "ls", "--filter", "name=atoll", "-q").strip() == ""
    assert states(engine, bundle) == {"emulated-0": "gone", "emulated-1": "gone", "nginx": "gone"}
    atoll(engine, "down", str(bundle))  # a second time there is nothing to do


def failed_up(engine, folder) -> str:
    argv = [sys.executable, "-m", "atoll", "up", str(folder)]
    env = {**__import__("os").environ, **engine.env}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, env=env, check=False)
    assert done.returncode == 1
    return done.stderr


def test_what_does_not_come_up_says_why_and_leaves_nothing(engine, tmp_path):
    nginx = ("--nginx-image", helper.NGINX_IMAGE)
    ours = (*nginx, "--image", helper.ENGINE_IMAGE)

    def rendered(name: str, layout: str, *words: str) -> Path:
        atoll(engine, "render", str(BUNDLES / f"{layout}.layout.yaml"), *words, "-o", str(tmp_path / name))
        return tmp_path / name

    other_box = rendered("other-box", "h100-nvl-2xtp2", *ours, "--models", str(tmp_path))
    assert "The layout wants CPU cores" in failed_up(engine, other_box)
    no_gpu = rendered("no-gpu", "h100-nvl-1xtp4", *ours, "--models", str(tmp_path))
    assert "nvidia-container-toolkit" in failed_up(engine, no_gpu)
    no_image = rendered("no-image", "h100-nvl-1xtp4", *nginx)
    assert "vllm/vllm-openai:v0.32.0 is not on this machine and could not be pulled" in failed_up(engine, no_image)

    bad = rendered("bad", "h100-nvl-2xtp2", "--engine", "emulated", *ours)
    conf = bad / "nginx.conf"
    conf.write_text(conf.read_text().replace("least_conn;", "least_con;"))
    assert 'unknown directive "least_con"' in failed_up(engine, bad)
    assert engine.run("docker", "ps", "-aq").strip() == ""


def test_the_app_stack_comes_up_with_its_backend(engine, tmp_path):
    """Log in, chat, and load from the page. Without MongoDB's own image the backend keeps its runs and conversations in
    SQLite, and its workspace where that image may write; everything else is as rendered.
    """
    folder = tmp_path / "app"
    layout = BUNDLES / "h100-nvl-2xtp2.layout.yaml"
    images = ("--image", helper.ENGINE_IMAGE, "--nginx-image", helper.NGINX_IMAGE)
    atoll(engine, "render", str(layout), "--engine", "emulated", "--stack", "app", *images, "-o", str(folder))
    override = {
        "services": {
            "backend": {
                "image": helper.ENGINE_IMAGE,
                "environment": {"ATOLL_CATALOG": "sqlite:/tmp/runs.db", "ATOLL_WORKSPACE": "/tmp/workspace"},
                "command": [
                    "python",
                    "-m",
                    "uvicorn",
                    "--factory",
                    "atoll.web.serving:app_from_environment",
                    "--host",
                    "0.0.0.0",
                    "--port",
                    "8090",
                ],
            }
        }
    }
    (folder / "override.yaml").write_text(json.dumps(override))
    compose = ("docker", "compose", "-f", str(folder / "compose.yaml"), "-f", str(folder / "override.yaml"))
    kept = dict(line.split("=", 1) for line in (folder / ".env").read_text().splitlines() if "=" in line)
    try:
        engine.run(
            *compose,
            "up",
            "-d",
            "--no-build",
            "--no-deps",
            "--wait",
            "emulated-0",
            "emulated-1",
            "nginx",
            "backend",
            timeout=180,
        )

        def ask(path: str, *words: str, port: int = 8080) -> str:
            return engine.run(
                *engine.inside("curl", "-s", "-w", " %{http_code}", *words, f"http://127.0.0.1:{port}{path}")
            )

        with_key = ("-H", f"Authorization: Bearer {kept['VLLM_API_KEY']}")
        with_token = ("-H", f"Authorization: Bearer {kept['ATOLL_TOKEN']}")
        entry = {"run_id": "r1", "name": "2xTP2", "engine": "emulated"}
        post = ("-X", "POST", "-H", "Content-Type: application/json", "-d", json.dumps(entry))
        assert ask("/api/runs", *post, port=8090).endswith(" 401")
        assert ask("/api/runs", *post, *with_key, port=8090).endswith(" 401")  # the engines' key opens nothing here
        assert ask("/api/runs", *post, *with_token, port=8090).endswith(" 201")
        assert '"run_id":"r1"' in ask("/api/runs", *with_token, port=8090)
        assert ask("/api/runs", *with_token, "-H", "Host: backend", port=8090).endswith(" 421")
        assert ask("/api/runs", *with_key).endswith(" 404")  # the door does not lead there
        assert ask("/v1/models").endswith(" 401")
        assert ask("/v1/models", *with_key).endswith(" 200")

        def page(path: str, *words: str) -> str:
            return ask(path, *with_token, *words, port=8090)

        def form(**fields: str) -> tuple[str, ...]:
            pairs = [word for name, value in fields.items() for word in ("--data-urlencode", f"{name}={value}")]
            return ("-o", "/dev/null", "-w", "%{redirect_url}", *pairs)

        login = ask(f"/?token={kept['ATOLL_TOKEN']}", "-o", "/dev/null", "-D", "-", port=8090)
        assert "HttpOnly" in login
        assert login.endswith(" 303")
        begun = (
            page("/chat/begin", *form(door="door", model=MODEL, max_tokens="8")).rpartition(":8090")[2].split(" ")[0]
        )
        said = page(f"{begun}/say", "--data-urlencode", "text=hello")
        assert "event: answer" in said
        assert '"failure"' not in said
        assert '"emulated": true' in said
        assert "hello" in page(begun)
        job = page("/jobs/bench", *form(users="4", duration="3s", prompt="32", output="8", name="night"))
        job = job.rpartition(":8090")[2].split(" ")[0]
        deadline = time.monotonic() + 90
        while '"night"' not in page("/api/runs"):
            assert time.monotonic() < deadline, page(job)
            time.sleep(1)
        assert '"source":"emulated"' in page("/api/runs")
        assert "on the host" in page("/deployments")
    finally:
        engine.run(*compose, "down", "-v", timeout=180)
