"""More machines: a load carried out by Ray actors, one on every node.

Each node has a clock of its own. Before the start, every actor is asked for the time twenty times; half of the shortest
way there and back bounds how wrong the difference of the clocks is known. The start is told to each actor in its own
time, and each actor's records count from its own start, so no clock is ever subtracted from another's.

Each actor keeps a tail of its records on its own node; what it got is copied to the run's folder twice a second.
"""

import asyncio
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from atoll.errors import InputError, MissingProgram, RunFailed
from atoll.load.mirror import Mirror, Piece, grown
from atoll.load.orders import Orders, SenderResult, Share
from atoll.load.progress import Progress
from atoll.load.run import LoadControl
from atoll.load.sender import Sender
from atoll.load.watch import Watch
from atoll.load.workers import Board
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.files import temporary_folder

_ASKED = 20
_HEAD_START_S = 0.5
_LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True, slots=True)
class Offset:
    """How far a node's clock is ahead of ours, and how exactly that is known."""

    node: str
    ahead_s: float
    within_s: float


class LoadActor:
    """One node's sender. Ray calls its methods in threads: `work` in one, the others meanwhile.

    None of them is a coroutine: one would make Ray call them all in an event loop of its own.
    """

    def __init__(self) -> None:
        self._ready, self._go = threading.Event(), threading.Event()
        self._origin = 0.0
        self._progress: Progress | None = None
        self._records: Path | None = None
        self._stop: Callable[[], object] | None = None
        self._reason: str | None = None

    def now(self) -> float:
        return SystemClock().now()

    def node(self) -> str:
        import socket

        return socket.gethostname()

    def ready(self) -> bool:
        return self._ready.wait(60)

    def go(self, origin: float) -> None:
        self._origin = origin
        self._go.set()

    def look(self) -> Progress | None:
        return self._progress

    def grown(self, known: Mapping[str, int]) -> list[Piece]:
        """What its records got beyond what is known of them."""
        return [] if self._records is None else grown(self._records, known)

    def stop(self, reason: str) -> None:
        self._reason = reason
        self._go.set()
        if self._stop is not None:
            self._stop()

    def work(self, orders: Orders) -> SenderResult:
        """Carry the orders out, from the start that `go` tells. Records stand in a folder of this node meanwhile."""
        if orders.folder is None:
            return self._work(orders)
        with temporary_folder() as folder:
            self._records = folder / "records"
            try:
                return self._work(replace(orders, folder=folder))
            finally:
                self._records = None

    def _work(self, orders: Orders) -> SenderResult:
        import uvloop

        sender = Sender(orders, clock=SystemClock(), on_progress=self._show)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(sender.prepare())
                self._ready.set()
                self._go.wait()
                loop = runner.get_loop()
                self._stop = lambda: loop.call_soon_threadsafe(sender.stop, self._reason or "interrupted")
                if self._reason is not None:
                    loop.call_soon(sender.stop, self._reason)
                return runner.run(sender.run(self._origin))
        finally:
            self._stop = None
            self._ready.set()  # who waits for us shall hear what went wrong

    def _show(self, progress: Progress) -> None:
        self._progress = progress


class RayActors:
    """Workers: one actor a node."""

    def __init__(self, address: str | None = None) -> None:
        """Raises MissingProgram when Ray is not installed.

        Args:
            address: `ray://host:10001`; None: the cluster that this machine is part of, or one of its own.
        """
        try:
            import ray
        except ImportError:
            raise MissingProgram("--ray needs Ray. Install it with `pip install atoll[ray]`.") from None
        self._ray = ray
        self._address = address
        self.notes: tuple[str, ...] = ()

    async def carry_out(
        self,
        orders: Orders,
        *,
        watch: Watch,
        control: LoadControl,
        on_progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> list[SenderResult]:
        """Raises InputError when there is no cluster, RunFailed when a node is lost."""
        ray = self._ray
        try:
            ray.init(address=self._address or "auto", log_to_driver=False, ignore_reinit_error=True)
        except (ConnectionError, ValueError) as error:
            raise InputError(f"No Ray cluster at {self._address or 'hand'}: {error}.") from None
        actors = self._one_a_node()
        try:
            return await self._run(actors, orders, watch=watch, control=control, on_progress=on_progress, clock=clock)
        except ray.exceptions.RayError as error:
            raise RunFailed(f"A Ray node was lost or its worker failed: {str(error).splitlines()[-1]}") from None
        finally:
            await watch.stop()
            for actor in actors:
                ray.kill(actor)
            ray.shutdown()

    def _one_a_node(self) -> list[Any]:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        actor = self._ray.remote(num_cpus=0, max_concurrency=8)(LoadActor)
        nodes = [node["NodeID"] for node in self._ray.nodes() if node["Alive"]]
        return [
            actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)).remote()
            for node in nodes
        ]

    async def _run(
        self,
        actors: list[Any],
        orders: Orders,
        *,
        watch: Watch,
        control: LoadControl,
        on_progress: Callable[[Progress], None] | None,
        clock: Clock,
    ) -> list[SenderResult]:
        offsets = [await self._offset(actor, clock) for actor in actors]
        self.notes = tuple(
            f"node {one.node}: clock {one.ahead_s * 1e3:+.3f} ms against ours, known within {one.within_s * 1e3:.3f} ms"
            for one in offsets
        )
        shares = [replace(orders, share=Share(index=number, count=len(actors))) for number in range(len(actors))]
        working = [actor.work.remote(share) for actor, share in zip(actors, shares, strict=True)]
        await asyncio.gather(*(actor.ready.remote() for actor in actors))
        origin = clock.now() + _HEAD_START_S
        for actor, offset in zip(actors, offsets, strict=True):
            actor.go.remote(origin + offset.ahead_s)
        watch.start(origin)
        starts = [origin + offset.ahead_s for offset in offsets]
        mirror = Mirror(orders.folder, origin, starts, ids=orders.ids) if orders.folder is not None else None

        def stop(reason: str) -> None:
            for actor in actors:
                actor.stop.remote(reason)

        control.attach(stop)
        looking = asyncio.create_task(_look(actors, Board(len(actors), on_progress), mirror))
        try:
            results: list[SenderResult] = await asyncio.gather(*working)
        finally:
            looking.cancel()
        return [replace(one, disk=one.disk or (mirror.trouble if mirror is not None else None)) for one in results]

    async def _offset(self, actor: Any, clock: Clock) -> Offset:
        """The difference of the clocks, from the quickest of many askings."""
        best = (float("inf"), 0.0)
        for _ in range(_ASKED):
            asked = clock.now()
            there = await actor.now.remote()
            back = clock.now()
            best = min(best, (back - asked, there - (asked + back) / 2))
        return Offset(node=await actor.node.remote(), ahead_s=best[1], within_s=best[0] / 2)


async def _look(actors: list[Any], board: Board, mirror: Mirror | None) -> None:
    """Show how it goes and copy the records, twice a second; whoever waits for the work hears of a lost node."""
    places = [board.place(number) for number in range(len(actors))]
    while True:
        await asyncio.sleep(_LOOK_S)
        looks = await asyncio.gather(*(actor.look.remote() for actor in actors))
        for place, progress in zip(places, looks, strict=True):
            if progress is not None:
                place(progress)
        if mirror is not None:
            asked = (actor.grown.remote(mirror.known(number)) for number, actor in enumerate(actors))
            for pieces in await asyncio.gather(*asked):
                mirror.take(pieces)
