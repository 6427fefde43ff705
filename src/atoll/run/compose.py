"""docker compose through the door: the same four verbs as run/process.py, on a bundle with a compose.yaml.

Everything that Docker is asked stands in `dry_run`. Replicas are not published, so their counters are read by a small
Python in their own containers; both vLLM's image and ours have one.
"""

import asyncio
import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.documents import parse_yaml
from atoll.engines import find_engine, read_counters
from atoll.errors import AtollError, BadDocument, BadRun, CommandFailed, InputError, MissingProgram, StartFailed
from atoll.layout.layout import Layout, Replica
from atoll.layout.ports import give_ports
from atoll.layout.stack import Stack
from atoll.outside.clock import Clock
from atoll.outside.files import read_text
from atoll.outside.shell import Finished, Shell
from atoll.render.compose import COMPOSE_FILE, service_name, service_of
from atoll.render.dotenv import read_settings
from atoll.render.stack import STACK_FILE
from atoll.run.deployment import Deployment, DeploymentStatus, ReplicaAddress, ServiceState, update_note
from atoll.run.door_tls import door_scheme
from atoll.run.health import explain_log
from atoll.run.look import BETWEEN_LOOKS_S, with_counters

name = "compose"
bundle_file = COMPOSE_FILE
LAYOUT_FILE = "layout.yaml"
START_TIMEOUT_S = 3600.0  # pulled images and a large model on a slow disk; a container that ends is noticed at once
PULL_TIMEOUT_S = 7200.0
DOWN_TIMEOUT_S = 300.0  # above every stop_grace_period that we render
LOOK_EVERY_S = 1.0
MOST_DOWNS = 5  # of a start that failed; one is nearly always enough
DOOR_LINES = 2000  # of nginx's log, for who answered how often
WHOLE_LOG_LINES = 10_000_000  # that are asked for where one line of it is looked for
RESTARTS_THAT_TELL = 1  # a program that has ended by itself once while starting will do it again
_SPLIT = "---atoll---"

Say = Callable[[str], None]


def _silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ComposeBundle:
    """A bundle's folder, what it serves, and how compose is called for it."""

    folder: Path
    name: str
    engine: str
    model: str
    served: tuple[Replica, ...]  # by number
    services: tuple[str, ...]
    images: dict[str, str]  # service -> image
    built: frozenset[str]  # services whose image is built from the bundle
    ports: dict[str, int]  # replica's service -> where it listens

    @property
    def replicas(self) -> dict[str, int]:
        """Service -> number of the replica."""
        return {service_of(self.engine, number): number for number in range(len(self.served))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """What `docker compose ps` says of a service's container. Every service that we render has a health check."""

    service: str
    name: str
    state: str  # created, running, restarting, exited, dead
    health: str  # healthy, unhealthy, starting; nothing at all for a moment after the start
    exit_code: int
    folder: str = ""  # that it was started in; not told by every release of Compose

    @property
    def healthy(self) -> bool:
        return self.state == "running" and self.health == "healthy"


# The verbs of a runner (run/runner.py)


def settle(layout: Layout, *, folder: Path) -> Layout:  # noqa: ARG001
    """As it is: containers have their own network, and the door's port stands in .env."""
    return layout


async def up(
    folder: Path,
    *,
    shell: Shell,
    clock: Clock,
    timeout_s: float = START_TIMEOUT_S,
    say: Say = _silent,
) -> Deployment:
    """Fetch what images are missing, start the containers, wait until all of them are healthy.

    On a deployment that is up already it brings back what is missing and replaces what was rendered anew.

    Raises:
        BadRun: the folder holds no bundle for Compose, or what bears its name was started in another folder.
        MissingProgram: there is no docker, or no compose for it.
        StartFailed: Docker does not answer, an image is not to be had, or a service did not become healthy; the
            sentence has the reason from its log. Nothing is left running, unless something ran before.
    """
    project = read_bundle(folder)
    compose = Compose(project, shell)
    await ask_docker(shell)
    await fetch_images(project, compose, shell, say)
    there = await compose.containers()
    elsewhere = _started_elsewhere(folder, there)
    if elsewhere is not None:
        raise BadRun(
            f"{folder} is called as what was started in {elsewhere}; end that first with"
            f" `atoll down {shlex.quote(elsewhere)}`, or change `name:` in {folder / COMPOSE_FILE}."
        )
    ran_before, began = bool(there), clock.now()
    try:
        await _start(compose, say)
        await wait_until_healthy(project, compose, shell, clock=clock, began=began, timeout_s=timeout_s, say=say)
    except BaseException:
        if not ran_before:
            await asyncio.shield(_leave_nothing(compose, clock))
        raise
    return Deployment(
        name=project.name,
        kind=name,
        folder=folder,
        engine=project.engine,
        model=project.model,
        url=door_url(folder),
        replicas=tuple(
            ReplicaAddress(number=number, gpus=replica.gpus) for number, replica in enumerate(project.served)
        ),
    )


async def down(folder: Path, *, shell: Shell, clock: Clock, say: Say = _silent) -> tuple[str, ...]:  # noqa: ARG001
    """Stop and remove containers and networks; volumes stay, since they hold data and compiled kernels.

    Gives the services that were running until now; a second time there are none.

    Raises:
        BadRun: the folder holds no bundle for Compose.
        CommandFailed: Docker does not answer or could not remove something.
    """
    project = read_bundle(folder)
    compose = Compose(project, shell)
    there = await compose.containers()
    elsewhere = _started_elsewhere(folder, there)
    if elsewhere is not None:
        say(f"what is called as {folder} was started in {elsewhere} and is left alone")
        return ()
    running = tuple(c.service for c in there if c.state in {"running", "restarting"})
    done = await compose.run("down", "--remove-orphans", timeout_s=DOWN_TIMEOUT_S)
    done.check()
    left = await compose.containers()
    if left:
        names = ", ".join(container.name for container in left)
        raise CommandFailed(f"docker compose down left {names}; see `docker ps -a` and remove them by hand.")
    for service in running:
        say(f"{service} ended")
    return running


async def status(
    folder: Path,
    *,
    shell: Shell,
    clock: Clock,  # noqa: ARG001 - the seconds between two looks pass in the containers
    between_s: float = BETWEEN_LOOKS_S,
) -> DeploymentStatus:
    """How every container is right now, and what the replicas' counters say.

    Raises:
        BadRun: the folder holds no bundle for Compose.
        CommandFailed: Docker does not answer.
    """
    project = read_bundle(folder)
    compose = Compose(project, shell)
    containers = await compose.containers()
    if _started_elsewhere(folder, containers) is not None:
        containers = []
    there = {container.service: container for container in containers}
    looks = [_look(service, there.get(service), compose, between_s) for service in project.services]
    services = await asyncio.gather(*looks)
    return DeploymentStatus(
        name=project.name,
        kind=name,
        folder=folder,
        engine=project.engine,
        model=project.model,
        url=door_url(folder),
        state=_overall(services, there),
        services=tuple(services),
        note=update_note(folder) if there else None,
    )


async def logs(
    folder: Path,
    *,
    shell: Shell,
    clock: Clock,
    say: Say,
    replica: int | None = None,
    follow: bool = False,
    lines: int = 200,
) -> None:
    """Say the last lines of the logs, of one replica or of all services, and with `follow` what comes after.

    Following ends when no container runs any more, or by Ctrl-C.

    Raises:
        BadRun: the folder holds no bundle for Compose, or what bears its name was started in another folder.
        InputError: there is no such replica.
    """
    project = read_bundle(folder)
    services = _asked_services(project, replica)
    compose = Compose(project, shell)
    elsewhere = _started_elsewhere(folder, await compose.containers())
    if elsewhere is not None:
        raise BadRun(f"What is called as {folder} was started in {elsewhere}; `atoll logs {shlex.quote(elsewhere)}`.")
    seen = dict.fromkeys(services, "")
    while True:
        for service in services:
            prefix = f"{service} | " if len(services) > 1 else ""
            for stamp, text in await compose.lines(service, since=seen[service], last=lines):
                seen[service] = stamp
                say(prefix + text)
        if not follow or not any(c.state == "running" for c in await compose.containers()):
            return
        await clock.sleep(LOOK_EVERY_S)


async def door_lines(folder: Path, *, shell: Shell, naming: str | None = None) -> tuple[str, ...]:
    last = DOOR_LINES if naming is None else WHOLE_LOG_LINES
    lines = await Compose(read_bundle(folder), shell).lines("nginx", since="", last=last)
    return tuple(text for _, text in lines if naming is None or naming in text)


async def _leave_nothing(compose: "Compose", clock: Clock) -> None:
    """Take down what a failed start left, until a look finds nothing.

    A container that Docker was still making when `docker compose up` gave up appears after the first `down`.
    """
    for _ in range(MOST_DOWNS):
        await compose.run("down", "--remove-orphans", timeout_s=DOWN_TIMEOUT_S)
        await clock.sleep(LOOK_EVERY_S)
        if not await compose.containers():
            return


def dry_run(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The commands that `up` would run for these files, as one would type them."""
    project = parse_bundle(folder, files)
    pulls = [f"docker pull {image}  # unless it is here" for image in sorted(_pulled_images(project))]
    builds = [f"docker compose build {service}" for service in sorted(project.built)]
    return [
        f"cd {shlex.quote(str(folder))}",
        *pulls,
        *builds,
        "docker compose up --detach --no-build --pull never --remove-orphans",
        "docker compose ps --all --format json  # until every service is healthy",
    ]


# The bundle


def read_bundle(folder: Path) -> ComposeBundle:
    """What a bundle's folder says.

    Raises:
        BadRun: there is no compose.yaml or no layout.yaml.
        BadDocument: one of them cannot be read.
    """
    names = (COMPOSE_FILE, STACK_FILE if (folder / STACK_FILE).exists() else LAYOUT_FILE)
    if not all((folder / name).exists() for name in names):
        raise BadRun(f"{folder} holds no {COMPOSE_FILE} of atoll; write one with `atoll render LAYOUT --to compose`.")
    return parse_bundle(folder, {name: read_text(folder / name) for name in names})


def parse_bundle(folder: Path, files: Mapping[str, str]) -> ComposeBundle:
    """What a bundle's files say; raises BadDocument for one that cannot be read."""
    document = parse_yaml(files[COMPOSE_FILE], origin=str(folder / COMPOSE_FILE))
    if not isinstance(document, dict) or not isinstance(document.get("services"), dict):
        raise BadDocument(f"{folder / COMPOSE_FILE}: services is missing.")
    services, about = document["services"], document.get("x-atoll", {})
    found = _served(folder, files)
    ports = [one.port or 0 for one in give_ports(found).replicas] if isinstance(found, Layout) else []
    return ComposeBundle(
        folder=folder,
        name=found.name,
        engine=found.engine if isinstance(found, Layout) else found.layouts[0].engine,
        model=about.get("model", found.name),
        served=found.replicas if isinstance(found, Layout) else tuple(placed.replica for placed in found.replicas),
        services=tuple(services),
        images={name: service.get("image", "") for name, service in services.items()},
        built=frozenset(name for name, service in services.items() if "build" in service),
        ports={service_name(found, n): port for n, port in enumerate(ports)} if isinstance(found, Layout) else {},
    )


def _served(folder: Path, files: Mapping[str, str]) -> Layout | Stack:
    if STACK_FILE in files:
        return Stack.parse(files[STACK_FILE], origin=str(folder / STACK_FILE))
    return Layout.parse(files[LAYOUT_FILE], origin=str(folder / LAYOUT_FILE))


def door_url(folder: Path) -> str:
    """Where nginx is published, as .env says."""
    settings = read_settings(read_text(folder / ".env")) if (folder / ".env").exists() else {}
    bind = settings.get("ATOLL_BIND") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(bind, bind)  # noqa: S104 - compared, not bound
    return f"{door_scheme(folder)}://{host}:{settings.get('ATOLL_PORT') or 8080}"


def is_down(folder: Path, *, shell: Shell) -> bool:
    """Whether what bears its name was started in another folder.

    No more is said: Docker may not answer, and a stack that was started by hand may have another name.
    """
    try:
        argv = [*_find_compose(shell), "ps", "--all", "--format", "json"]
        rows = _json_rows(shell.run(argv, cwd=folder).check().stdout)
    except AtollError:
        return False
    return _started_elsewhere(folder, [_container(row) for row in rows]) is not None


def metrics_urls(folder: Path) -> tuple[str, ...] | None:  # noqa: ARG001
    """Only nginx is published."""
    return None


def _asked_services(project: ComposeBundle, replica: int | None) -> list[str]:
    if replica is None:
        return list(project.services)
    found = [service for service, number in project.replicas.items() if number == replica]
    if not found:
        last = len(project.replicas) - 1
        raise InputError(f"{project.folder} has replicas 0-{last}; there is no replica {replica}.")
    return found


# Talking to Docker


class Compose:
    """`docker compose` for one bundle."""

    def __init__(self, project: ComposeBundle, shell: Shell) -> None:
        self.project = project
        self._shell = shell
        self._program = _find_compose(shell)

    async def run(self, *words: str, timeout_s: float = 60.0) -> Finished:
        """Run one command in the bundle's folder, beside the event loop."""
        argv = [*self._program, *words]
        return await asyncio.to_thread(self._shell.run, argv, cwd=self.project.folder, timeout_s=timeout_s)

    async def containers(self) -> list[Container]:
        """Every container of the project, running or not; raises CommandFailed when Docker does not answer."""
        done = (await self.run("ps", "--all", "--format", "json")).check()
        return [_container(row) for row in _json_rows(done.stdout)]

    async def lines(self, service: str, *, since: str, last: int) -> list[tuple[str, str]]:
        """Time stamp and text of the log lines later than `since`; without one the last lines.

        Stamps of one log sort as text.
        """
        which = ("--since", since) if since else ("--tail", str(last))
        done = await self.run("logs", "--no-color", "--no-log-prefix", "--timestamps", *which, service)
        pairs = [(stamp, text) for stamp, _, text in (line.partition(" ") for line in done.stdout.splitlines())]
        return [(stamp, text) for stamp, text in pairs if stamp > since]

    async def tail(self, service: str, *, lines: int) -> str:
        done = await self.run("logs", "--no-color", "--no-log-prefix", "--tail", str(lines), service)
        return done.stdout or done.stderr


def _find_compose(shell: Shell) -> tuple[str, ...]:
    """`docker compose` where the plugin is installed, else a `docker-compose` of version 2."""
    if shell.which("docker") is None:
        raise MissingProgram("`docker` is not installed here; install Docker, or render with --to process.")
    if shell.run(["docker", "compose", "version"]).exit_code == 0:
        return ("docker", "compose")
    if shell.which("docker-compose") is not None:
        version = shell.run(["docker-compose", "version", "--short"]).stdout.strip()
        if version.lstrip("v")[:1] not in {"", "0", "1"}:
            return ("docker-compose",)
    raise MissingProgram("`docker compose` (version 2) is not installed here; install docker-compose-plugin.")


def _json_rows(text: str) -> list[dict[str, Any]]:
    """Compose prints one object a line since 2.21 and a list before."""
    stripped = text.strip()
    if stripped.startswith("["):
        rows: list[dict[str, Any]] = json.loads(stripped)
        return rows
    return [json.loads(line) for line in stripped.splitlines() if line.startswith("{")]


def _container(row: dict[str, Any]) -> Container:
    return Container(
        service=row.get("Service", ""),
        name=row.get("Name", ""),
        state=row.get("State", ""),
        health=row.get("Health", ""),
        exit_code=int(row.get("ExitCode", 0)),
        folder=_folder_in(row.get("Labels", "")),
    )


def _folder_in(labels: object) -> str:
    """The folder among a container's labels, which Compose prints in one line."""
    found = re.search(r"(?:^|,)com\.docker\.compose\.project\.working_dir=(.*?)(?:,[\w.-]+=|$)", str(labels))
    return found[1] if found else ""


def _started_elsewhere(folder: Path, containers: Sequence[Container]) -> str | None:
    """The other folder that they were started in: a copy of a bundle, or another of its name, is not what runs.

    A folder that is not there any more was moved here.
    """
    others = (Path(container.folder) for container in containers if container.folder)
    return next((str(other) for other in others if other.is_dir() and not other.samefile(folder)), None)


async def ask_docker(shell: Shell) -> None:
    done = await asyncio.to_thread(shell.run, ["docker", "version", "--format", "{{.Server.Version}}"])
    if done.exit_code != 0:
        words = " ".join(done.stderr.split()) or "it printed nothing"
        raise StartFailed(f"Docker does not answer ({words}); start it, or set DOCKER_HOST to where it listens.")


# Coming up


def _pulled_images(project: ComposeBundle) -> set[str]:
    return {image for service, image in project.images.items() if image and service not in project.built}


async def fetch_images(project: ComposeBundle, compose: Compose, shell: Shell, say: Say) -> None:
    for image in sorted(_pulled_images(project)):
        if not await _is_here(image, shell):
            await _pull(image, shell, say)
    for service in sorted(project.built):
        if not await _is_here(project.images[service], shell):
            say(f"building {project.images[service]}")
            done = await compose.run("build", service, timeout_s=PULL_TIMEOUT_S)
            if done.exit_code != 0:
                raise StartFailed(f"The image of {service} could not be built: {_last_words(done)}")


async def _is_here(image: str, shell: Shell) -> bool:
    done = await asyncio.to_thread(shell.run, ["docker", "image", "inspect", "--format", "{{.Id}}", image])
    return done.exit_code == 0


async def _pull(image: str, shell: Shell, say: Say) -> None:
    say(f"pulling {image}")
    done = await asyncio.to_thread(shell.run, ["docker", "pull", "--quiet", image], timeout_s=PULL_TIMEOUT_S)
    if done.exit_code != 0:
        raise StartFailed(
            f"The image {image} is not on this machine and could not be pulled: {_last_words(done)}."
            f" In a closed network bring it with `docker save {image}` there and `docker load` here."
        )


async def _start(compose: Compose, say: Say) -> None:
    say("starting the containers")
    words = ("up", "--detach", "--no-build", "--pull", "never", "--remove-orphans")
    done = await compose.run(*words, timeout_s=START_TIMEOUT_S)
    if done.exit_code != 0:
        raise StartFailed(_explain_start(done))


def _explain_start(done: Finished) -> str:
    text = done.stderr + done.stdout
    if "could not select device driver" in text:
        return (
            "Docker has no driver for NVIDIA GPUs; install nvidia-container-toolkit and run"
            " `nvidia-ctk runtime configure --runtime=docker`, then restart Docker."
        )
    cores = re.search(r"Requested CPUs are not available - requested (\S+), available: (\S+)", text)
    if cores is not None:
        return (
            f"The layout wants CPU cores {cores[1]} and this machine has {cores[2]}; it was made for another box."
            " Run `atoll inspect` here and plan again."
        )
    taken = re.search(r"[Bb]ind for (\S+) failed: port is already allocated|listen tcp4? (\S+): bind: address", text)
    if taken is not None:
        return f"{taken[1] or taken[2]} is taken by another program; end it or change the port in .env."
    return f"docker compose up failed: {_last_words(done)}"


def _last_words(done: Finished) -> str:
    words = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return " ".join(" ".join(words[-3:]).split()).rstrip(".") or "it printed nothing"


async def wait_until_healthy(
    project: ComposeBundle, compose: Compose, shell: Shell, *, clock: Clock, began: float, timeout_s: float, say: Say
) -> None:
    """Return when all of them are healthy at once; one that answered and then ended is not overlooked."""
    said = set[str]()
    while True:
        there = {container.service: container for container in await compose.containers()}
        healthy = {service for service in project.services if service in there and there[service].healthy}
        for service in sorted(healthy - said):
            say(f"{service} answers after {clock.now() - began:.0f} s")
        said |= healthy
        waiting = [service for service in project.services if service not in healthy]
        if not waiting:
            return
        for service in waiting:
            if service in there:
                await _refuse_ended(project, there[service], compose, shell)
        if clock.now() - began >= timeout_s:
            how = f"did not become healthy in {timeout_s:.0f} s"
            raise StartFailed(await _failure(project, waiting[0], how, compose))
        await clock.sleep(LOOK_EVERY_S)


async def _refuse_ended(project: ComposeBundle, container: Container, compose: Compose, shell: Shell) -> None:
    """Raise when a container will not come up any more: it ended, ends again and again, or failed its checks."""
    if container.state in {"exited", "dead"}:
        how = f"ended with exit code {container.exit_code}"
        raise StartFailed(await _failure(project, container.service, how, compose))
    if container.state == "restarting" or await _restarts(container, shell) >= RESTARTS_THAT_TELL:
        how = f"ends again and again (exit code {container.exit_code})" if container.exit_code else "keeps ending"
        raise StartFailed(await _failure(project, container.service, how, compose))
    if container.health == "unhealthy":
        check = await _last_check(container, shell)
        raise StartFailed(await _failure(project, container.service, f"fails its health check ({check})", compose))


async def _restarts(container: Container, shell: Shell) -> int:
    done = await _inspect(container, "{{.RestartCount}}", shell)
    return int(done.stdout) if done.stdout.strip().isdigit() else 0


async def _last_check(container: Container, shell: Shell) -> str:
    done = await _inspect(container, "{{range .State.Health.Log}}{{println .Output}}{{end}}", shell)
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    return lines[-1] if lines else "no output"


async def _inspect(container: Container, template: str, shell: Shell) -> Finished:
    return await asyncio.to_thread(shell.run, ["docker", "inspect", "--format", template, container.name])


async def _failure(project: ComposeBundle, service: str, how: str, compose: Compose) -> str:
    """`vllm-1 (GPUs 2, 3) ended with exit code 1: the GPU is out of memory. Use more GPUs ...`."""
    number = project.replicas.get(service)
    gpus = project.served[number].gpus if number is not None else ()
    where = f" (GPUs {', '.join(map(str, gpus))})" if gpus else ""
    text = await compose.tail(service, lines=400)
    reason = explain_log(text)
    if reason is not None:
        return f"{service}{where} {how}: {reason.cause}. {reason.remedy}"
    words = "\n  ".join(text.strip().splitlines()[-12:]) or "it printed nothing"
    return f"{service}{where} {how}. The end of its log:\n  {words}"


# Looking


def _overall(services: Sequence[ServiceState], there: dict[str, Container]) -> str:
    if not any(container.state == "running" for container in there.values()):
        return "down"
    return "up" if all(service.healthy for service in services) else "degraded"


async def _look(service: str, container: Container | None, compose: Compose, between_s: float) -> ServiceState:
    project = compose.project
    number = project.replicas.get(service)
    found = ServiceState(
        name=service,
        number=number,
        gpus=project.served[number].gpus if number is not None else (),
        state="gone",
        healthy=False,
        why="there is no container",
        url=door_url(project.folder) if service == "nginx" else None,
    )
    if container is None:
        return found
    state = container.health if container.state == "running" and container.health else container.state
    why = None if container.healthy else _why(container)
    found = found.replace(state=state, healthy=container.healthy, why=why, container=container.name)
    if number is None or container.state != "running":
        return found
    return await _count_inside(found, number, compose, between_s)


def _why(container: Container) -> str:
    if container.state == "running":
        return f"its health check says {container.health}"
    return f"exit code {container.exit_code}" if container.state in {"exited", "dead"} else container.state


async def _count_inside(found: ServiceState, number: int, compose: Compose, between_s: float) -> ServiceState:
    """Two looks at /metrics from within the container; without an answer the state stays as it is."""
    project = compose.project
    port = project.served[number].port
    script = (
        "import time,urllib.request as u\n"
        f"def look(): return u.urlopen('http://127.0.0.1:{port}/metrics', timeout=5).read().decode()\n"
        f"a=look(); t=time.monotonic(); time.sleep({between_s}); b=look()\n"
        f"print(a, {_SPLIT!r}, time.monotonic()-t, {_SPLIT!r}, b, sep='\\n')"
    )
    done = await compose.run("exec", "-T", found.name, "python3", "-c", script, timeout_s=20 + between_s)
    parts = done.stdout.split(_SPLIT)
    if done.exit_code != 0 or len(parts) != 3:
        return found
    names = find_engine(project.engine).counters
    first, second = read_counters(parts[0], names), read_counters(parts[2], names)
    return with_counters(found, first, second, seconds=max(1e-9, float(parts[1])))
