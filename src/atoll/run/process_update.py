"""Plain processes: put a new bundle in the place of what runs, one replica after the other."""

import asyncio
import json
import signal
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from shlex import quote

from atoll.engines import find_engine, read_counters
from atoll.errors import AtollError, CommandFailed, InputError, RunFailed
from atoll.layout.layout import Layout, Replica
from atoll.outside.clock import Clock
from atoll.outside.files import read_text, write_whole
from atoll.outside.http import get_text
from atoll.outside.ports import free_ports
from atoll.outside.processes import descendants, is_alive, send_signal, signal_group
from atoll.outside.shell import Shell
from atoll.render.monitoring import MONITORING
from atoll.render.pool import UpstreamServer
from atoll.render.process import PROCESS_FILE, ProcessPlan, door_parts, made_of, process_door
from atoll.run.deployment import LOG_FOLDER, STATE_FILE, DeploymentState, Program, read_state
from atoll.run.health import wait_until_healthy
from atoll.run.process import digest, nginx_command, program_order, watched
from atoll.run.roll import Say, Seat, on_same_cards, plan_roll, roll, serving_layout, swap
from atoll.run.supervisor import ORDER_FILE

ORDER_S = 20.0  # how long the supervisor may take to carry out an order
RELOAD_S = 20.0
HAND_OVER_S = 0.5  # nginx starts new workers, waits 0.1 s and tells the old ones to end
GRACE_S = 30.0  # between "please end" and the kill


def settle_beside(layout: Layout, folder: Path) -> Layout:
    """A new layout with ports for replicas that stand beside those that run, or on their cards and then on their port.

    Raises:
        InputError: nothing runs from the folder, or its supervisor takes no orders.
    """
    state = _state(folder)
    taken = {program.port for program in state.programs}
    ports = iter(free_ports(len(layout.replicas), apart_from=taken | {r.port for r in layout.replicas if r.port}))
    replicas = []
    for number, replica in enumerate(layout.replicas):
        there = [p.port for p in state.replicas if (p.number, p.gpus) == (number, replica.gpus)]
        if there:
            replicas.append(replica.replace(port=there[0]))
        else:
            replicas.append(replica.replace(port=next(ports)) if replica.port in {None, *taken} else replica)
    return layout.replace(replicas=tuple(replicas), router=layout.router.replace(port=state.router.port))


def kept_image(layout: Layout, folder: Path) -> str | None:  # noqa: ARG001
    """Processes have none."""
    return None


def _state(folder: Path) -> DeploymentState:
    if not (folder / STATE_FILE).exists() or not (state := read_state(folder)).supervised:
        raise InputError(f"{folder} is not up; `atoll up {quote(str(folder))}` starts it as it is written.")
    if state.orders is None:
        raise InputError(f"{folder} was started by an older atoll; `atoll down` and `atoll up` it once.")
    return state


class ProcessSite:
    """The processes of a deployment; the supervisor starts them, and we end them."""

    def __init__(
        self, folder: Path, layout: Layout, plan: ProcessPlan, *, shell: Shell, clock: Clock, say: Say, timeout_s: float
    ) -> None:
        self._start_s = timeout_s
        self._folder, self._layout, self._plan = folder, layout, plan
        self._parts = door_parts(plan, watched=(folder / MONITORING).is_dir())
        self._shell, self._clock, self._say = shell, clock, say
        self._names = find_engine(layout.engine).counters

    async def show(self, serving: Sequence[Seat]) -> None:
        """Write nginx's files, try them, and make nginx read them."""
        door = process_door(
            serving_layout(self._layout, serving), [seat.server for seat in serving], self._plan.router, self._parts
        )
        await reload_door(self._folder, door, self._plan, shell=self._shell, clock=self._clock)

    async def requests(self, seat: Seat) -> float | None:
        try:
            counters = read_counters(await get_text(f"{_url(seat)}/metrics", timeout_s=5.0), self._names)
        except RunFailed:
            return None if self._program(seat) is None else 1.0  # it lives and does not answer: it has something to do
        return (counters.running or 0.0) + (counters.waiting or 0.0)

    async def start(self, seat: Seat) -> None:
        process = self._plan.replicas[seat.number]
        state = read_state(self._folder)
        entry = Program(
            name=seat.key,
            number=seat.number,
            gpus=seat.replica.gpus,
            made_of=seat.made_of,
            host=seat.server.host,
            port=seat.server.port,
            health_path=process.health_path,
            log=f"{LOG_FOLDER}/{seat.key}.log",
        )
        add = program_order(
            entry, process.argv, env=process.env, cpus=process.cpus, folder=self._folder, shell=self._shell,
            secret=state.secret,
        )  # fmt: skip
        await give_order(self._folder, {"add": add, "entry": entry.to_plain()}, clock=self._clock)
        await wait_until_healthy(
            [watched(entry, self._folder)],
            clock=self._clock,
            timeout_s=self._start_s,
            end_of=self._end_of,
            say=self._say,
        )

    def _end_of(self, name: str) -> int | None:
        state = read_state(self._folder)
        if not state.supervised:
            return -signal.SIGKILL
        return next((program.exit_code for program in state.programs if program.name == name), None)

    async def stop(self, seat: Seat) -> None:
        """Its group is asked to end and then killed, with whatever it left behind; then it is forgotten."""
        program = self._program(seat)
        if program is not None and program.process is not None:
            signal_group(program.process.pid, signal.SIGTERM)
            ends = self._clock.now() + GRACE_S
            while is_alive(program.process) and self._clock.now() < ends:
                await self._clock.sleep(0.05)
            signal_group(program.process.pid, signal.SIGKILL)
        state = read_state(self._folder)
        for stat in state.living(self._folder).get(seat.key, ()):
            send_signal(stat.id, signal.SIGKILL)
        if any(program.name == seat.key for program in state.replicas):
            await give_order(self._folder, {"drop": seat.key}, clock=self._clock)

    def _program(self, seat: Seat) -> Program | None:
        """The one that lives."""
        found = next((p for p in read_state(self._folder).replicas if p.name == seat.key), None)
        return found if found is not None and found.process is not None and is_alive(found.process) else None


def _url(seat: Seat) -> str:
    return f"http://{seat.server.host}:{seat.server.port}"


async def give_order(folder: Path, order: Mapping[str, object], *, clock: Clock) -> None:
    """Have the supervisor carry out one step; raises RunFailed when it does not."""
    state = read_state(folder)
    if state.orders is None or state.supervisor is None or not state.supervised:
        raise RunFailed(f"{folder}: its supervisor takes no orders; `atoll down` and `atoll up` it once.")
    number = state.orders + 1
    text = json.dumps({"secret": state.secret, "number": number, **order})
    write_whole(folder / ORDER_FILE, text, mode=0o600)
    send_signal(state.supervisor.process, signal.SIGUSR1)
    ends = clock.now() + ORDER_S
    while (read_state(folder).orders or 0) < number:
        if clock.now() >= ends or not state.supervised:
            raise RunFailed(f"{folder}: its supervisor did not carry out an order in {ORDER_S:.0f} s.")
        await clock.sleep(0.02)
    (folder / ORDER_FILE).unlink(missing_ok=True)


async def reload_door(folder: Path, files: Mapping[str, str], plan: ProcessPlan, *, shell: Shell, clock: Clock) -> None:
    """Have nginx read these files, and return when new requests go by them. Streams go on in the old workers.

    Raises:
        CommandFailed: nginx does not take them; the files of before are there again.
    """
    before = {name: read_text(folder / name) for name in files if (folder / name).exists()}
    for name, text in files.items():
        write_whole(folder / name, text)
    try:
        tried = await asyncio.to_thread(shell.run, [*nginx_command(plan, shell), "-t"], cwd=folder)
        tried.check()
    except AtollError:
        for name, text in before.items():
            write_whole(folder / name, text)
        raise
    router = read_state(folder).router.process
    if router is None or not is_alive(router):
        raise CommandFailed(f"{folder}: nginx does not run; `atoll down` and `atoll up` it.")
    workers = {stat.id for stat in descendants(router.pid)}
    send_signal(router, signal.SIGHUP)
    ends = clock.now() + RELOAD_S
    while not {stat.id for stat in descendants(router.pid)} - workers:
        if clock.now() >= ends:
            raise CommandFailed(f"{folder}: nginx did not start new workers; see {LOG_FOLDER}/router.log.")
        await clock.sleep(0.02)
    await clock.sleep(HAND_OVER_S)


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
    """Put the bundle of these files in the place of what runs from the folder.

    Args:
        folder: the bundle's.
        files: path -> text of the new bundle, with ports that nothing that runs has.
        shell: finds and runs nginx.
        clock: time and sleep.
        say: told about each step.
        drain_s: how long a replica that leaves may go on with its answers.
        timeout_s: how long a new one may take to answer.
        again: numbers of replicas that come anew though nothing changes.

    Raises:
        InputError: nothing runs, or nobody would serve meanwhile; nothing has changed.
        StartFailed: a new replica did not come up, and what ran before serves again.
    """
    old = {name: read_text(folder / name) for name in files if (folder / name).exists()}
    go = partial(_go, folder, shell=shell, clock=clock, say=say, drain_s=drain_s, timeout_s=timeout_s)
    await swap(folder, partial(go, files, again), partial(go, old, frozenset()), say=say)


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
    state = _state(folder)
    layout = Layout.parse(files["layout.yaml"], origin=str(folder / "layout.yaml"))
    plan = ProcessPlan.parse(files[PROCESS_FILE], origin=str(folder / PROCESS_FILE))
    site = ProcessSite(folder, layout, plan, shell=shell, clock=clock, say=say, timeout_s=timeout_s)
    running, sick = await _running(state)
    final, steps = plan_roll(running, _wanted(layout, plan, folder), clash=on_same_cards, again=again)
    for seat in sick:
        say(f"{seat.place} does not answer and is ended")
        await site.stop(seat)
    for name, text in files.items():
        if name not in {"nginx.conf", "door.js"}:  # these follow step by step
            write_whole(folder / name, text)
    await roll(steps, site=site, clock=clock, say=say, drain_s=drain_s)
    await site.show(final)
    about = {"name": plan.name, "engine": plan.engine, "model": plan.model, "bundle_digest": digest(folder, plan.name)}
    await give_order(folder, {"about": about}, clock=clock)


async def _running(state: DeploymentState) -> tuple[list[Seat], list[Seat]]:
    """Those that answer, and those that live without, or are dead."""
    seats = [_seat(program) for program in state.replicas]
    answers = await asyncio.gather(*(_answers(program) for program in state.replicas))
    well = [seat for seat, answer in zip(seats, answers, strict=True) if answer]
    return well, [seat for seat in seats if seat not in well]


async def _answers(program: Program) -> bool:
    try:
        await get_text(program.url + program.health_path, timeout_s=5.0)
    except RunFailed:
        return False
    return True


def _seat(program: Program) -> Seat:
    assert program.number is not None
    replica = Replica(gpus=program.gpus, tensor_parallel=len(program.gpus), port=program.port)
    server = UpstreamServer(number=program.number, host=program.host, port=program.port)
    return Seat(key=program.name, replica=replica, server=server, made_of=program.made_of or "")


def _wanted(layout: Layout, plan: ProcessPlan, folder: Path) -> list[Seat]:
    return [
        Seat(
            key=_new_name(process.number, folder),
            replica=layout.replicas[process.number],
            server=UpstreamServer(number=process.number, host=process.host, port=process.port),
            made_of=made_of(layout, process),
        )
        for process in plan.replicas
    ]


def _new_name(number: int, folder: Path) -> str:
    """One that no log has yet: the words of who failed are kept beside those of who came after."""
    names = (f"replica-{number}", *(f"replica-{number}-{turn}" for turn in range(2, 10**6)))
    return next(name for name in names if not (folder / LOG_FOLDER / f"{name}.log").exists())
