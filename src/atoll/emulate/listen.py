"""Serve until told to stop: SIGTERM or Ctrl-C closes the door, answers under way may finish for a while."""

import asyncio
import errno
import gc
import resource
import signal
from collections.abc import Callable

import uvloop

from atoll.emulate.engine import EmulatedEngine
from atoll.emulate.meters import Meters
from atoll.emulate.replica import Blueprint
from atoll.emulate.server import Connection
from atoll.emulate.site import Site
from atoll.errors import StartFailed
from atoll.outside.clock import SystemClock

STATS_EVERY_S = 10.0  # as vLLM's log does
BACKLOG = 4096


def listen(
    blueprint: Blueprint,
    *,
    host: str,
    port: int,
    api_key: str | None = None,
    speed: float = 1.0,
    shutdown_s: float = 2.0,
    say: Callable[[str], None],
) -> None:
    """Serve one emulated replica in this process until SIGTERM or SIGINT.

    Raises:
        StartFailed: the port is taken or may not be used.
    """
    _allow_many_connections()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(
            _serve(
                blueprint,
                host=host,
                port=port,
                api_key=api_key,
                speed=speed,
                shutdown_s=shutdown_s,
                say=say,
            )
        )


def make_site(blueprint: Blueprint, *, api_key: str | None = None, speed: float = 1.0) -> Site:
    """The server's state, not yet listening. The caller runs `site.engine.run()`."""
    clock = SystemClock()
    meters = Meters(max_model_len=blueprint.served.max_model_len)
    engine = EmulatedEngine(blueprint.scheduler(), blueprint.timer, clock=clock, meters=meters, speed=speed)
    return Site(
        served=blueprint.served,
        engine=engine,
        clock=clock,
        version=blueprint.version,
        fingerprint=blueprint.fingerprint,
        api_key=api_key,
        started=int(clock.wall()),
    )


async def _serve(
    blueprint: Blueprint,
    *,
    host: str,
    port: int,
    api_key: str | None,
    speed: float,
    shutdown_s: float,
    say: Callable[[str], None],
) -> None:
    site = make_site(blueprint, api_key=api_key, speed=speed)
    loop = asyncio.get_running_loop()
    try:
        server = await loop.create_server(lambda: Connection(site), host, port, backlog=BACKLOG)
    except OSError as error:
        raise StartFailed(_cannot_listen(host, port, error)) from None
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # a collection among thousands of streams is felt as a late token
    say(f"{blueprint.words}")
    say(f"listening on http://{host}:{port}" + (f", {speed:g} times as fast as real" if speed != 1 else ""))
    tasks = [loop.create_task(site.engine.run()), loop.create_task(_report(site, say))]
    stopped = loop.create_task(stop.wait())
    await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
    say("stopping")
    server.close()
    site.closing = True
    await _finish_answers(site, shutdown_s)
    for task in (stopped, *tasks):
        task.cancel()
    results = await asyncio.gather(stopped, *tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _finish_answers(site: Site, seconds: float) -> None:
    """Idle connections close at once, busy ones when their answer is complete or the time is over."""
    for connection in list(site.connections):
        connection.close_if_idle()
    ends = site.clock.now() + seconds
    while site.connections and site.clock.now() < ends:  # noqa: ASYNC110 - a look every 20 ms, once, at the end
        await asyncio.sleep(0.02)
    for connection in list(site.connections):
        connection.abandon()


async def _report(site: Site, say: Callable[[str], None]) -> None:
    """A line every ten seconds while there is work, in the words of vLLM's log."""
    meters, prompt_before, tokens_before = site.engine.meters, 0, 0
    while True:
        await asyncio.sleep(STATS_EVERY_S)
        gauges = site.engine.gauges()
        prompt, tokens = meters.prompt_tokens - prompt_before, meters.generation_tokens - tokens_before
        prompt_before, tokens_before = meters.prompt_tokens, meters.generation_tokens
        if prompt or tokens or gauges.running:
            hits = 100 * meters.prefix_hits / meters.prefix_queries if meters.prefix_queries else 0.0
            say(
                f"Engine 000: Avg prompt throughput: {prompt / STATS_EVERY_S:.1f} tokens/s,"
                f" Avg generation throughput: {tokens / STATS_EVERY_S:.1f} tokens/s,"
                f" Running: {gauges.running} reqs, Waiting: {gauges.waiting} reqs,"
                f" GPU KV cache usage: {100 * gauges.kv_usage:.1f}%, Prefix cache hit rate: {hits:.1f}%"
            )


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} of {host} is taken by another program; choose another one or end that program."
    return f"{host}:{port} cannot be listened on: {error.strerror or error}."


def _allow_many_connections() -> None:
    """Raise this process's own limit of open files as far as it may be raised."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
