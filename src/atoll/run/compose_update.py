"""Containers: put a new bundle in the place of what runs, one replica after the other.

nginx's container stays, since its streams would end with it: its file is written over in place, because a bind mount
goes on showing the file of before when a new one takes its name. So does every service that is no replica.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from atoll.documents import parse_yaml, write_yaml
from atoll.engines import find_engine, read_counters
from atoll.errors import InputError, StartFailed
from atoll.layout.layout import Layout, Replica
from atoll.outside.clock import Clock
from atoll.outside.files import read_text, write_over, write_whole
from atoll.outside.shell import Finished, Shell
from atoll.render.compose import (
    COMPOSE_FILE,
    GPUS_LABEL,
    NGINX_LABEL,
    STOP_S,
    compose_door,
    door_form,
    door_parts,
    service_name,
)
from atoll.render.monitoring import MONITORING
from atoll.render.pool import UpstreamServer
from atoll.run.compose import (
    Compose,
    ComposeBundle,
    ask_docker,
    fetch_images,
    parse_bundle,
    read_bundle,
    wait_until_healthy,
)
from atoll.run.door_tls import door_certificate
from atoll.run.roll import Say, Seat, on_same_cards, plan_roll, roll, serving_layout, swap

HAND_OVER_S = 1.0  # nginx starts new workers, waits 0.1 s and tells the old ones to end
_HASH = "com.docker.compose.config-hash"
_NGINX = ("nginx", "-c", "/etc/nginx/nginx.conf")
_SERVICE = "com.docker.compose.service"


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A container of the project, as `docker inspect` tells of it."""

    name: str
    labels: Mapping[str, str]
    command: tuple[str, ...]
    devices: tuple[int, ...]
    healthy: bool

    @property
    def service(self) -> str:
        return self.labels.get(_SERVICE, "")


def settle_beside(layout: Layout, folder: Path) -> Layout:  # noqa: ARG001
    """As it is: containers have their own network, and the door's port stands in .env."""
    return layout


def kept_image(layout: Layout, folder: Path) -> str | None:
    """The engine's image that the bundle has, while engine and release stay; None where it is built from the bundle."""
    project = read_bundle(folder)
    old = Layout.parse(read_text(folder / "layout.yaml"), origin=str(folder / "layout.yaml"))
    if (old.engine, old.engine_version) != (layout.engine, layout.engine_version):
        return None
    service = service_name(old, 0)
    return None if service in project.built else project.images.get(service)


async def update(
    folder: Path,
    files: Mapping[str, str],
    *,
    shell: Shell,
    clock: Clock,
    say: Say,
    drain_s: float,
    timeout_s: float,
    again: frozenset[int] = frozenset(),
) -> None:
    """As `run.updater.Updater` says."""
    await ask_docker(shell)
    old = {name: read_text(folder / name) for name in (COMPOSE_FILE, "nginx.conf", "layout.yaml")}
    go = partial(_go, folder, shell=shell, clock=clock, say=say, drain_s=drain_s, timeout_s=timeout_s)

    async def new() -> None:
        try:
            await go(files, again)
        except InputError:
            _write(folder, old)
            raise

    await swap(folder, new, partial(go, old, frozenset()), say=say)


async def _go(
    folder: Path,
    files: Mapping[str, str],
    again: frozenset[int],
    *,
    shell: Shell,
    clock: Clock,
    say: Say,
    drain_s: float,
    timeout_s: float,
) -> None:
    before = parse_bundle(folder, {name: read_text(folder / name) for name in (COMPOSE_FILE, "layout.yaml")})
    found = await _containers(Compose(before, shell), shell)
    nginx = next((one for one in found if one.service == "nginx" and one.healthy), None)
    if nginx is None:
        raise InputError(f"{folder} is not up; `atoll up {folder}` starts it as it is written.")
    await _refuse_another_file(folder, nginx, shell)
    merged = _merge(files, read_text(folder / COMPOSE_FILE), label=nginx.labels.get(NGINX_LABEL))
    project = parse_bundle(folder, merged)
    layout = Layout.parse(files["layout.yaml"], origin=str(folder / "layout.yaml"))
    await fetch_images(project, Compose(project, shell), shell, say)
    _write(folder, {name: text for name, text in merged.items() if name != "nginx.conf"})
    compose = Compose(project, shell)
    running = [_seat(one) for one in found if _is_replica(one) and one.healthy]
    wanted = await _wanted(project, compose)
    final, steps = plan_roll(running, wanted, clash=_clash, again=again)
    site = ComposeSite(project, layout, compose, nginx, shell=shell, clock=clock, say=say, timeout_s=timeout_s)
    for one in found:
        if _is_replica(one) and not one.healthy:
            say(f"{one.service} is not healthy and is removed")
            await site.remove(one.name)
    await roll(steps, site=site, clock=clock, say=say, drain_s=drain_s)
    await site.show(final)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        if name == "nginx.conf":
            write_over(folder / name, text)
        else:
            write_whole(folder / name, text)


async def _refuse_another_file(folder: Path, nginx: Found, shell: Shell) -> None:
    shown = await _docker(shell, "exec", nginx.name, "cat", "/etc/nginx/nginx.conf")
    if shown.exit_code == 0 and shown.stdout.strip() != read_text(folder / "nginx.conf").strip():
        raise InputError(
            f"{folder}/nginx.conf is another file than the one that nginx was started with;"
            " `docker compose up -d nginx` takes it, and ends what is being answered."
        )


def _merge(files: Mapping[str, str], there: str, *, label: str | None) -> dict[str, str]:
    """New replicas, and all other services as they are."""
    new = parse_yaml(files[COMPOSE_FILE], origin=COMPOSE_FILE)
    old = parse_yaml(there, origin=COMPOSE_FILE)
    assert isinstance(new, dict)
    assert isinstance(old, dict)
    layout = Layout.parse(files["layout.yaml"], origin="layout.yaml")
    ours = {service_name(layout, number) for number in range(len(layout.replicas))}
    others = {name: service for name, service in old["services"].items() if not _names_replica(name)}
    if label is not None and "nginx" in others:
        others["nginx"] = {**others["nginx"], "labels": {**others["nginx"].get("labels", {}), NGINX_LABEL: label}}
    services = {name: service for name, service in new["services"].items() if name in ours} | others
    document: dict[str, Any] = {**old, "x-atoll": new.get("x-atoll", {}), "services": services}
    volumes = {**old.get("volumes", {}), **new.get("volumes", {})}
    if volumes:
        document["volumes"] = volumes
    head = "".join(line for line in files[COMPOSE_FILE].splitlines(keepends=True) if line.startswith("#"))
    kept = {name: files[name] for name in ("layout.yaml", "nginx.conf") if name in files}
    return {**kept, COMPOSE_FILE: head + write_yaml(document)}


def _names_replica(service: str) -> bool:
    engine, _, number = service.rpartition("-")
    if not number.isdecimal():
        return False
    try:
        find_engine(engine)
    except InputError:
        return False
    return True


class ComposeSite:
    """The containers of a project."""

    def __init__(
        self,
        project: ComposeBundle,
        layout: Layout,
        compose: Compose,
        nginx: Found,
        *,
        shell: Shell,
        clock: Clock,
        say: Say,
        timeout_s: float,
    ) -> None:
        self._project, self._compose, self._nginx = project, compose, nginx
        self._shell, self._clock, self._say, self._start_s = shell, clock, say, timeout_s
        self._layout = layout
        self._names = find_engine(layout.engine).counters

    async def show(self, serving: Sequence[Seat]) -> None:
        path = self._project.folder / "nginx.conf"
        layout = serving_layout(self._layout, serving)
        before = read_text(path)
        parts = door_parts(watched=(self._project.folder / MONITORING).is_dir())
        form = door_form(self._project.images.get("nginx"), tls=door_certificate(self._project.folder) is not None)
        write_over(path, compose_door(layout, [seat.server for seat in serving], form, parts)["nginx.conf"])
        tried = await _docker(self._shell, "exec", self._nginx.name, *_NGINX, "-t")
        if tried.exit_code != 0:
            write_over(path, before)
            tried.check()
        (await _docker(self._shell, "exec", self._nginx.name, *_NGINX, "-s", "reload")).check()
        await self._clock.sleep(HAND_OVER_S)

    async def requests(self, seat: Seat) -> float | None:
        script = (
            "import urllib.request as u;"
            f"print(u.urlopen('http://127.0.0.1:{seat.server.port}/metrics', timeout=5).read().decode())"
        )
        done = await _docker(self._shell, "exec", seat.key, "python3", "-c", script)
        if done.exit_code != 0:
            return 1.0 if await self._runs(seat.key) else None
        counters = read_counters(done.stdout, self._names)
        return (counters.running or 0.0) + (counters.waiting or 0.0)

    async def start(self, seat: Seat) -> None:
        service = seat.server.host
        words = ("up", "--detach", "--no-deps", "--no-build", "--pull", "never", "--force-recreate", service)
        done = await self._compose.run(*words, timeout_s=self._start_s)
        if done.exit_code != 0:
            raise StartFailed(f"{service} could not be started: {' '.join(done.stderr.split()[-40:])}")
        await wait_until_healthy(
            replace(self._project, services=(service,)),
            self._compose,
            self._shell,
            clock=self._clock,
            began=self._clock.now(),
            timeout_s=self._start_s,
            say=self._say,
        )

    async def stop(self, seat: Seat) -> None:
        for one in await _containers(self._compose, self._shell):
            if seat.key in {one.name, one.service}:
                await self.remove(one.name)

    async def remove(self, name: str) -> None:
        await _docker(self._shell, "stop", "--time", str(STOP_S), name, timeout_s=STOP_S + 60.0)
        (await _docker(self._shell, "rm", "--force", name)).check()

    async def _runs(self, name: str) -> bool:
        done = await _docker(self._shell, "inspect", "--format", "{{.State.Running}}", name)
        return done.stdout.strip() == "true"


async def _docker(shell: Shell, *words: str, timeout_s: float = 60.0) -> Finished:
    return await asyncio.to_thread(shell.run, ["docker", *words], timeout_s=timeout_s)


async def _containers(compose: Compose, shell: Shell) -> list[Found]:
    names = [container.name for container in await compose.containers()]
    if not names:
        return []
    done = (await _docker(shell, "inspect", *names)).check()
    return [_found(row) for row in json.loads(done.stdout)]


def _found(row: dict[str, Any]) -> Found:
    requests = row.get("HostConfig", {}).get("DeviceRequests") or []
    ids = [device for request in requests for device in request.get("DeviceIDs") or []]
    labels = row.get("Config", {}).get("Labels") or {}
    told = labels.get(GPUS_LABEL, "")
    state = row.get("State", {})
    return Found(
        name=row["Name"].lstrip("/"),
        labels=labels,
        command=tuple(row.get("Config", {}).get("Cmd") or ()),
        devices=tuple(int(device) for device in ids or told.split(",") if device.isdecimal()),
        healthy=state.get("Status") == "running" and state.get("Health", {}).get("Status") == "healthy",
    )


def _is_replica(one: Found) -> bool:
    return _names_replica(one.service) and bool(one.devices)


def _seat(one: Found) -> Seat:
    port = int(one.command[one.command.index("--port") + 1])
    number = int(one.service.rpartition("-")[2])
    return Seat(
        key=one.name,
        replica=Replica(gpus=one.devices, tensor_parallel=len(one.devices), port=port),
        server=UpstreamServer(number=number, host=one.service, port=port),
        made_of=one.labels.get(_HASH, ""),
    )


def _clash(new: Seat, old: Seat) -> bool:
    return new.server.host == old.server.host or on_same_cards(new, old)


async def _wanted(project: ComposeBundle, compose: Compose) -> list[Seat]:
    """Compose's own fingerprint of a service is what a container of it carries."""
    done = (await compose.run("config", "--hash", "*")).check()
    hashes = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " " in line)
    seats = []
    for service, number in project.replicas.items():
        replica = project.served[number]
        port = project.ports[service]
        seats.append(
            Seat(
                key=service,
                replica=replica,
                server=UpstreamServer(number=number, host=service, port=port),
                made_of=hashes.get(service, "").strip(),
            )
        )
    return seats
