"""How a deployment is right now: who lives, who answers, and what the engines' own counters say."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

from atoll.engines import CounterNames, Counters, find_engine, read_counters
from atoll.errors import RunFailed
from atoll.outside.clock import Clock
from atoll.outside.http import get_text
from atoll.outside.processes import ProcessStat
from atoll.run.deployment import DeploymentStatus, Program, ServiceState, read_state, update_note

BETWEEN_LOOKS_S = 1.0  # throughput is the difference of two looks


async def look_at_processes(folder: Path, *, clock: Clock, between_s: float = BETWEEN_LOOKS_S) -> DeploymentStatus:
    """The state of every process of the deployment in a folder.

    Raises:
        BadRun: nothing was ever started there.
    """
    state = read_state(folder)
    names = find_engine(state.engine).counters
    living = state.living(folder)
    copied = not state.started_in(folder)
    services = await asyncio.gather(
        *(
            _look(program, folder, living.get(program.name, ()), names, copied=copied, clock=clock, between_s=between_s)
            for program in state.programs
        )
    )
    return DeploymentStatus(
        name=state.name,
        kind=state.kind,
        folder=folder,
        engine=state.engine,
        model=state.model,
        url=state.url,
        state=_overall(living, services),
        services=tuple(services),
        note=None if not living else update_note(folder),
    )


def _overall(living: Mapping[str, Sequence[ProcessStat]], services: list[ServiceState]) -> str:
    if not living:
        return "down"
    return "up" if all(service.healthy for service in services) else "degraded"


async def _look(
    program: Program,
    folder: Path,
    living: Sequence[ProcessStat],
    names: CounterNames,
    *,
    copied: bool,
    clock: Clock,
    between_s: float,
) -> ServiceState:
    service = ServiceState(
        name=program.name,
        number=program.number,
        gpus=program.gpus,
        state="ended",
        healthy=False,
        url=program.url,
        pid=program.pid,
    )
    if program.process not in [stat.id for stat in living]:
        return service.replace(why=_end(program, left=len(living), copied=copied))
    try:
        await get_text(program.url + program.health_path, timeout_s=3.0, certificate=program.certificate(folder))
    except RunFailed as error:
        return service.replace(state="starting or stuck", why=str(error))
    service = service.replace(state="healthy", healthy=True)
    if program.number is None:
        return service
    return await count_on(service, program.url, names, clock=clock, between_s=between_s)


def _end(program: Program, *, left: int, copied: bool) -> str:
    if copied:
        return "this folder is a copy; it was started in another"
    if left:
        return f"it ended and left {left} process{'es' if left > 1 else ''} behind; `atoll down` ends them"
    if program.exit_code is None:
        return "it is not there any more"
    return f"signal {-program.exit_code}" if program.exit_code < 0 else f"exit code {program.exit_code}"


async def count_on(
    service: ServiceState, url: str, names: CounterNames, *, clock: Clock, between_s: float
) -> ServiceState:
    """The service with what its /metrics say; without /metrics it stays as it is."""
    try:
        began = clock.now()
        first = read_counters(await get_text(url + "/metrics", timeout_s=5.0), names)
        await clock.sleep(between_s)
        second = read_counters(await get_text(url + "/metrics", timeout_s=5.0), names)
    except RunFailed:
        return service
    return with_counters(service, first, second, seconds=max(1e-9, clock.now() - began))


def with_counters(service: ServiceState, first: Counters, second: Counters, *, seconds: float) -> ServiceState:
    """The service with what two looks at its /metrics, `seconds` apart, say."""

    def rate(before: float | None, after: float | None) -> float | None:
        return None if before is None or after is None else (after - before) / seconds

    return service.replace(
        requests_running=second.running,
        requests_waiting=second.waiting,
        kv_usage=second.kv_usage,
        preemptions=second.preemptions,
        prefix_hit_share=second.prefix_hits / second.prefix_queries
        if second.prefix_hits is not None and second.prefix_queries
        else None,
        prompt_tokens_per_s=rate(first.prompt_tokens, second.prompt_tokens),
        output_tokens_per_s=rate(first.output_tokens, second.output_tokens),
    )
