"""An emulated replica on loopback, in a thread of its own, with a step timer of the test's choice."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import uvloop

from atoll.cost.step import StepBatch
from atoll.emulate.ask import Served
from atoll.emulate.listen import make_site
from atoll.emulate.replica import Blueprint
from atoll.emulate.server import Connection
from atoll.emulate.site import Site
from atoll.engines.engine import SchedulerLimits
from stand_ins.patience import PATIENCE_S


class FixedTimer:
    """Every step takes the same time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def seconds(self, batch: StepBatch) -> float:
        return self._seconds

    def decode_seconds(self, decodes: int, decode_context: int, steps: int) -> np.ndarray:
        return np.full(steps, self._seconds)

    def front_seconds(self, prompt_tokens: float) -> float:
        return 0.0


def blueprint(
    *,
    step_s: float = 0.001,
    kv_blocks: int = 1000,
    max_model_len: int = 1024,
    prefix_caching: bool = True,
    model: str = "tiny",
    served: dict[str, object] | None = None,
    **limits: object,
) -> Blueprint:
    details = {"prompt_tokens_details": True} | (served or {})
    return Blueprint(
        served=Served(names=(model,), root="/models/tiny", max_model_len=max_model_len, **details),
        limits=SchedulerLimits(**limits),
        kv_blocks=kv_blocks,
        prefix_caching=prefix_caching,
        timer=FixedTimer(step_s),
        version="0.32.0",
        fingerprint="emulated-0.32.0-tp1",
        words="a test",
    )


class Replica:
    """Serves in a thread; `url` is where."""

    def __init__(self, made: Blueprint, *, api_key: str | None, speed: float) -> None:
        self.site: Site | None = None
        self.port = 0
        self._ready = threading.Event()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(made, api_key, speed), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(self, function: Callable[[], object]) -> object:
        """Run it in the server's own thread."""

        async def run() -> object:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(PATIENCE_S)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()

    def _run(self, made: Blueprint, api_key: str | None, speed: float) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(made, api_key, speed))
        self._loop.close()

    async def _serve(self, made: Blueprint, api_key: str | None, speed: float) -> None:
        self._stop = asyncio.Event()
        site = self.site = make_site(made, api_key=api_key, speed=speed)
        server = await self._loop.create_server(lambda: Connection(site), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        engine = self._loop.create_task(site.engine.run())
        self._ready.set()
        await self._stop.wait()
        engine.cancel()
        server.close()
        for connection in list(site.connections):
            connection.abandon()
        await asyncio.gather(engine, return_exceptions=True)
        await asyncio.sleep(0.01)


@pytest.fixture
def replica() -> Iterator[Callable[..., Replica]]:
    """Makes servers and ends them with the test."""
    made: list[Replica] = []

    def start(*, api_key: str | None = None, speed: float = 1.0, **settings: object) -> Replica:
        made.append(Replica(blueprint(**settings), api_key=api_key, speed=speed))
        return made[-1]

    yield start
    for one in made:
        one.stop()
