"""run/compose.py against a Docker that answers from a script; tests/live/test_docker.py has the real one."""

import asyncio
import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.errors import BadRun, CommandFailed, InputError, MissingProgram, StartFailed
from atoll.outside.shell import Finished
from atoll.run import compose
from atoll.workflows.door import find_door
from stand_ins.clock import ManualClock

BUNDLE = Path(__file__).parents[1] / "data" / "bundles" / "h100-nvl-2xtp2" / "compose"
METRICS = """# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{{model_name="q"}} 3.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{{model_name="q"}} 1.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{{model_name="q"}} 0.25
# TYPE vllm:generation_tokens_total counter
vllm:generation_tokens_total{{model_name="q"}} {tokens}
"""


@dataclass
class FakeDocker:
    """Docker as a shell sees it. `looks` are what successive `ps` show: service -> (state, health, exit code)."""

    looks: list[dict[str, tuple[str, str, int]]] = field(default_factory=list)
    images: set[str] = field(default_factory=lambda: {"vllm/vllm-openai:v0.32.0", "nginx:1.31.3-alpine"})
    programs: tuple[str, ...] = ("docker",)
    answers: dict[str, tuple[int, str, str]] = field(default_factory=dict)  # words in the command -> code, out, err
    ran: list[str] = field(default_factory=list)

    def which(self, program: str) -> str | None:
        return f"/usr/bin/{program}" if program in self.programs else None

    def run(self, argv, *, env=None, cwd=None, timeout_s=60.0, stdin=None) -> Finished:
        line = " ".join(argv)
        self.ran.append(line)
        for words, (code, out, err) in self.answers.items():
            if words in line:
                return Finished(argv=tuple(argv), exit_code=code, stdout=out, stderr=err)
        code, out = self._answer(line)
        return Finished(argv=tuple(argv), exit_code=code, stdout=out, stderr="")

    def _answer(self, line: str) -> tuple[int, str]:
        if " ps " in line:
            look = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0] if self.looks else {}
            return 0, "\n".join(json.dumps(row(service, *what)) for service, what in look.items())
        if "image inspect" in line:
            return (0, "sha256:1") if line.rsplit(maxsplit=1)[-1] in self.images else (1, "")
        if "docker pull" in line:
            self.images.add(line.rsplit(maxsplit=1)[-1])
        return 0, ""


def row(service: str, state: str, health: str, code: int, folder: str = "") -> dict:
    labels = f"com.docker.compose.oneoff=False,com.docker.compose.project.working_dir={folder},com.docker.compose.x=1"
    return {
        "Labels": labels,
        "Service": service,
        "Name": f"atoll-{service}-1",
        "State": state,
        "Health": health,
        "ExitCode": code,
    }


UP, LOADING = ("running", "healthy", 0), ("running", "starting", 0)
ALL_UP = {"vllm-0": UP, "vllm-1": UP, "nginx": UP}


@pytest.fixture
def bundle(tmp_path):
    shutil.copytree(BUNDLE, tmp_path / "b")
    return tmp_path / "b"


def up(bundle, docker, **words):
    said: list[str] = []
    made = asyncio.run(compose.up(bundle, shell=docker, clock=ManualClock(flows=True), say=said.append, **words))
    return made, said


def test_up_waits_until_all_are_healthy_and_says_who_answers(bundle):
    docker = FakeDocker(
        looks=[{}, {"vllm-0": LOADING, "vllm-1": LOADING, "nginx": UP}, {**ALL_UP, "vllm-1": LOADING}, ALL_UP]
    )
    deployment, said = up(bundle, docker)
    assert deployment.url == "http://127.0.0.1:8080"
    assert deployment.model == "Qwen/Qwen2.5-32B-Instruct"
    assert [(r.number, r.gpus, r.url) for r in deployment.replicas] == [(0, (0, 1), None), (1, (2, 3), None)]
    assert said == [
        "starting the containers",
        "nginx answers after 0 s",
        "vllm-0 answers after 1 s",
        "vllm-1 answers after 2 s",
    ]
    assert not any(" down " in line for line in docker.ran)


def test_missing_images_are_pulled_and_said(bundle):
    docker = FakeDocker(looks=[{}, ALL_UP], images=set())
    _, said = up(bundle, docker)
    assert said[:2] == ["pulling nginx:1.31.3-alpine", "pulling vllm/vllm-openai:v0.32.0"]


def test_an_image_that_cannot_be_pulled_tells_how_to_bring_it(bundle):
    docker = FakeDocker(
        images=set(), answers={"docker pull": (1, "", "dial tcp: lookup registry-1.docker.io: no such host")}
    )
    with pytest.raises(StartFailed, match=r"nginx:1.31.3-alpine is not on this machine .*no such host.*docker save"):
        up(bundle, docker)


def failure(bundle, docker) -> str:
    with pytest.raises(StartFailed) as caught:
        up(bundle, docker)
    assert any("down --remove-orphans" in line for line in docker.ran), "what was started must be ended"
    return str(caught.value)


def test_a_container_that_docker_still_made_when_up_gave_up_is_taken_down_as_well(bundle):
    cores = "Error response from daemon: Requested CPUs are not available - requested 64-95, available: 0-1"
    late = {"nginx": ("created", "", 0)}
    docker = FakeDocker(looks=[{}, late, {}], answers={" up ": (1, "", cores)})
    assert "wants CPU cores 64-95 and this machine has 0-1" in failure(bundle, docker)
    assert sum(" down " in line for line in docker.ran) == 2


def test_a_container_that_ended_is_explained_by_its_log(bundle):
    log = "(EngineCore) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    docker = FakeDocker(looks=[{}, {**ALL_UP, "vllm-1": ("exited", "", 1)}], answers={"logs": (0, log, "")})
    assert failure(bundle, docker).startswith(
        "vllm-1 (GPUs 2, 3) ended with exit code 1: the GPU is out of memory. Use more GPUs"
    )


def test_an_unhealthy_container_shows_its_last_check(bundle):
    docker = FakeDocker(
        looks=[{}, {**ALL_UP, "vllm-0": ("running", "unhealthy", 0)}],
        answers={"State.Health.Log": (0, "\ncurl: (7) Failed to connect\n", ""), "logs": (0, "nothing known", "")},
    )
    words = failure(bundle, docker)
    assert "vllm-0 (GPUs 0, 1) fails its health check (curl: (7) Failed to connect)" in words
    assert "nothing known" in words


def test_a_container_that_is_restarted_is_not_waited_for(bundle):
    looks = [{}, {**ALL_UP, "vllm-0": LOADING}]
    docker = FakeDocker(looks=looks, answers={"RestartCount": (0, "2\n", "")})
    assert "vllm-0 (GPUs 0, 1) keeps ending" in failure(bundle, docker)


def test_nobody_is_waited_for_for_ever(bundle):
    docker = FakeDocker(looks=[{}, {**ALL_UP, "vllm-0": LOADING}])
    with pytest.raises(StartFailed, match=r"vllm-0 .* did not become healthy in 30 s"):
        up(bundle, docker, timeout_s=30)


def test_what_ran_before_is_left_running_when_a_new_start_fails(bundle):
    docker = FakeDocker(looks=[ALL_UP, {**ALL_UP, "vllm-1": ("exited", "", 1)}])
    with pytest.raises(StartFailed):
        up(bundle, docker)
    assert not any(" down " in line for line in docker.ran)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "install nvidia-container-toolkit"),
        ("Bind for 127.0.0.1:8080 failed: port is already allocated", "127.0.0.1:8080 is taken by another program"),
        (
            "Requested CPUs are not available - requested 0-31, available: 0-1",
            "wants CPU cores 0-31 and this machine has 0-1",
        ),
        ("something else", "docker compose up failed: something else"),
    ],
)
def test_what_docker_says_becomes_a_sentence(bundle, words, sentence):
    docker = FakeDocker(looks=[{}], answers={"up --detach": (1, "", words)})
    assert sentence in failure(bundle, docker)


def test_no_docker_and_no_daemon_are_told_apart(bundle):
    with pytest.raises(MissingProgram, match="`docker` is not installed"):
        up(bundle, FakeDocker(programs=()))
    with pytest.raises(MissingProgram, match=r"`docker compose` .version 2. is not installed"):
        up(bundle, FakeDocker(answers={"compose version": (1, "", "")}))
    with pytest.raises(StartFailed, match=r"Docker does not answer .Cannot connect"):
        up(bundle, FakeDocker(answers={"docker version": (1, "", "Cannot connect to the Docker daemon")}))


def test_a_standalone_compose_of_version_2_will_do(bundle):
    docker = FakeDocker(
        looks=[{}, ALL_UP], programs=("docker", "docker-compose"),
        answers={"docker compose version": (1, "", ""), "version --short": (0, "2.40.3\n", "")},
    )  # fmt: skip
    up(bundle, docker)
    assert any(line.startswith("docker-compose up") for line in docker.ran)
    docker.answers["version --short"] = (0, "1.29.2\n", "")
    with pytest.raises(MissingProgram):
        up(bundle, docker)


def status(bundle, docker):
    return asyncio.run(compose.status(bundle, shell=docker, clock=ManualClock(flows=True), between_s=0.0))


def test_status_reads_the_counters_from_within(bundle):
    said = f"{METRICS.format(tokens=100)}\n---atoll---\n2.0\n---atoll---\n{METRICS.format(tokens=300)}"
    docker = FakeDocker(looks=[{**ALL_UP, "vllm-1": ("exited", "", 137)}], answers={"exec -T vllm-0": (0, said, "")})
    found = status(bundle, docker)
    assert found.state == "degraded"
    first, second, door = found.services
    assert (first.gpus, first.healthy, first.requests_running, first.requests_waiting) == ((0, 1), True, 3, 1)
    assert (first.kv_usage, first.output_tokens_per_s) == (0.25, 100)
    assert (second.state, second.why, second.requests_running) == ("exited", "exit code 137", None)
    assert (door.name, door.url) == ("nginx", "http://127.0.0.1:8080")


def test_status_of_what_is_not_up_is_down(bundle):
    found = status(bundle, FakeDocker(looks=[{}]))
    assert found.state == "down"
    assert {service.why for service in found.services} == {"there is no container"}


def test_older_composes_print_a_list(bundle):
    rows = json.dumps([row("vllm-0", *UP), row("vllm-1", *UP), row("nginx", *UP)])
    assert status(bundle, FakeDocker(answers={" ps ": (0, rows, "")})).state == "up"


def test_of_a_copy_status_says_that_nothing_runs_and_down_and_up_leave_the_original_alone(bundle, tmp_path):
    original = tmp_path / "the, original=1"
    shutil.copytree(bundle, original)
    looks = [{service: (*how, str(original)) for service, how in ALL_UP.items()}]
    docker, said = FakeDocker(looks=looks), []
    assert asyncio.run(compose.status(bundle, shell=docker, clock=ManualClock(flows=True))).state == "down"
    assert asyncio.run(compose.down(bundle, shell=docker, clock=ManualClock(flows=True), say=said.append)) == ()
    assert said == [f"what is called as {bundle} was started in {original} and is left alone"]
    with pytest.raises(BadRun, match="end that first with `atoll down '"):
        up(bundle, docker)
    assert not any(" down " in line or " up " in line for line in docker.ran)
    with pytest.raises(InputError, match="is not up; `atoll up "):  # a load would measure the original
        find_door(str(bundle)).refuse_if_down(docker)
    shutil.move(original, tmp_path / "elsewhere")  # and what was moved is still itself
    find_door(str(bundle)).refuse_if_down(docker)
    assert asyncio.run(compose.status(bundle, shell=docker, clock=ManualClock(flows=True))).state == "up"


def test_down_names_what_ran_and_refuses_to_leave_something(bundle):
    docker = FakeDocker(looks=[ALL_UP, {}])
    assert asyncio.run(compose.down(bundle, shell=docker, clock=ManualClock(flows=True))) == (
        "vllm-0",
        "vllm-1",
        "nginx",
    )
    with pytest.raises(CommandFailed, match="left atoll-vllm-0-1"):
        asyncio.run(compose.down(bundle, shell=FakeDocker(looks=[{"vllm-0": UP}]), clock=ManualClock(flows=True)))


def logs(bundle, docker, **words) -> list[str]:
    said: list[str] = []
    asyncio.run(compose.logs(bundle, shell=docker, clock=ManualClock(flows=True), say=said.append, **words))
    return said


def test_logs_of_one_replica_and_of_all(bundle):
    docker = FakeDocker(answers={"logs": (0, "2026-11-22T10:00:00.1Z one\n2026-11-22T10:00:00.2Z two\n", "")})
    assert logs(bundle, docker, replica=1) == ["one", "two"]
    assert docker.ran[-1].endswith("--tail 200 vllm-1")
    assert logs(bundle, docker)[:2] == ["vllm-0 | one", "vllm-0 | two"]
    with pytest.raises(InputError, match="has replicas 0-1; there is no replica 7"):
        logs(bundle, docker, replica=7)


def test_following_says_each_line_once_and_ends_with_the_containers(bundle):
    docker = FakeDocker(
        looks=[ALL_UP, ALL_UP, {}],
        answers={"logs": (0, "2026-11-22T10:00:00.1Z one\n2026-11-22T10:00:00.2Z two\n", "")},
    )
    assert logs(bundle, docker, replica=0, follow=True) == ["one", "two"]


def test_dry_run_prints_what_up_would_run(bundle):
    files = {path.name: path.read_text() for path in bundle.iterdir()}
    assert compose.dry_run(bundle, files) == [
        f"cd {bundle}",
        "docker pull nginx:1.31.3-alpine  # unless it is here",
        "docker pull vllm/vllm-openai:v0.32.0  # unless it is here",
        "docker compose up --detach --no-build --pull never --remove-orphans",
        "docker compose ps --all --format json  # until every service is healthy",
    ]


def test_a_folder_without_a_bundle_is_refused(tmp_path):
    with pytest.raises(BadRun, match=r"holds no compose.yaml of atoll"):
        compose.read_bundle(tmp_path)


def test_the_door_is_where_env_says(bundle):
    (bundle / ".env").write_text("ATOLL_BIND=0.0.0.0\nATOLL_PORT=9000\n")
    assert compose.door_url(bundle) == "http://127.0.0.1:9000"
    (bundle / ".env").write_text("ATOLL_BIND=10.0.0.5\n")
    assert compose.door_url(bundle) == "http://10.0.0.5:8080"
