"""One replica after the other: in which order, and what happens to each, whatever it is made of.

The order is decided first and is a value, so that what cannot go without a lost request is refused before anything has
changed. A replica whose cards are free comes up beside the old ones; the others wait until the old one on their cards
has been taken out of nginx, has ended its answers and is gone.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from atoll.errors import CommandFailed, InputError, RunFailed, StartFailed
from atoll.layout.layout import Layout, Replica
from atoll.outside.clock import Clock
from atoll.render.pool import UpstreamServer
from atoll.run.deployment import marked

DRAIN_S = 1800.0  # nginx's own limit of one answer
LOOK_EVERY_S = 0.5
QUIET_LOOKS = 3  # in a row without a request: one may be on its way from a worker of before the reload

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Seat:
    """A replica that runs, or shall."""

    key: str  # of the process or the container
    replica: Replica
    server: UpstreamServer
    made_of: str  # the same for engines that are the same in all but their port

    @property
    def number(self) -> int:
        return self.server.number

    @property
    def place(self) -> str:
        gpus = ", ".join(map(str, self.replica.gpus))
        return f"replica {self.number} (GPU{'s' if len(self.replica.gpus) > 1 else ''} {gpus})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """Some leave, then one comes."""

    leaving: tuple[Seat, ...]
    coming: Seat | None
    between: tuple[Seat, ...]  # who serves meanwhile
    after: tuple[Seat, ...]


class Site(Protocol):
    """Where replicas run: processes of this machine, or containers."""

    async def show(self, serving: Sequence[Seat]) -> None:
        """Make nginx send new requests to these, and to no other."""
        ...

    async def requests(self, seat: Seat) -> float | None:
        """That the replica answers or holds back; None where it does not say."""
        ...

    async def start(self, seat: Seat) -> None:
        """Return when it answers; raises StartFailed with the reason from its log."""
        ...

    async def stop(self, seat: Seat) -> None: ...


def plan_roll(
    running: Sequence[Seat],
    wanted: Sequence[Seat],
    *,
    clash: Callable[[Seat, Seat], bool],
    again: frozenset[int] = frozenset(),
) -> tuple[tuple[Seat, ...], tuple[Step, ...]]:
    """Who serves in the end, and the steps to there. What is the same engine on the same cards stays.

    Args:
        running: what serves now.
        wanted: what shall.
        clash: whether a new replica (first) cannot run beside an old one.
        again: numbers of replicas that come anew though nothing changes.

    Raises:
        InputError: nobody would serve while some replica is replaced.
    """
    kept = {want.number: old for want in wanted for old in running if _same(old, want) and want.number not in again}
    leaving = [old for old in running if old not in kept.values()]
    serving, coming = list(running), [want for want in wanted if want.number not in kept]
    steps = []
    while coming:
        following = min(coming, key=lambda want: sum(clash(want, old) for old in leaving))
        coming.remove(following)
        goes = tuple(old for old in leaving if clash(following, old))
        leaving = [old for old in leaving if old not in goes]
        serving = [seat for seat in serving if seat not in goes]
        if not serving:
            raise InputError(
                f"{following.place} needs the cards of all that serves, so nobody would answer while it starts;"
                " `atoll down` and `atoll up` put it in place, with that gap."
            )
        between = tuple(serving)
        serving.append(following)
        steps.append(Step(leaving=goes, coming=following, between=between, after=tuple(serving)))
    rest = tuple(leaving)
    if rest:
        serving = [seat for seat in serving if seat not in rest]
        steps.append(Step(leaving=rest, coming=None, between=tuple(serving), after=tuple(serving)))
    return tuple(sorted(serving, key=lambda seat: seat.number)), tuple(steps)


def _same(old: Seat, want: Seat) -> bool:
    return (old.number, old.made_of, old.replica.gpus) == (want.number, want.made_of, want.replica.gpus)


def on_same_cards(one: Seat, other: Seat) -> bool:
    return bool(set(one.replica.gpus) & set(other.replica.gpus))


async def roll(
    steps: Sequence[Step], *, site: Site, clock: Clock, say: Say, drain_s: float = DRAIN_S, drain: bool = True
) -> None:
    """Go the steps.

    Args:
        steps: as `plan_roll` gives them.
        site: where.
        clock: time and sleep.
        say: told about each.
        drain_s: so long a replica that leaves may go on with its answers; then they are cut.
        drain: False for replicas that no request reaches.

    Raises:
        StartFailed: a new replica did not come up; it is gone again, and the others serve.
    """
    for step in steps:
        if step.leaving:
            await site.show(step.between)
            for old in step.leaving:
                if drain:
                    await _drain(old, site=site, clock=clock, limit_s=drain_s, say=say)
                await site.stop(old)
                say(f"{old.place} has ended")
        if step.coming is not None:
            say(f"{step.coming.place} starts")
            try:
                await site.start(step.coming)
            except BaseException:
                await site.stop(step.coming)
                raise
            await site.show(step.after)
            say(f"{step.coming.place} serves")


async def _drain(old: Seat, *, site: Site, clock: Clock, limit_s: float, say: Say) -> None:
    began, quiet = clock.now(), 0
    while quiet < QUIET_LOOKS:
        held = await site.requests(old)
        quiet = quiet + 1 if not held else 0
        if clock.now() - began >= limit_s and held:
            say(f"{old.place} still has {held:.0f} requests after {limit_s:.0f} s; they are cut")
            return
        await clock.sleep(LOOK_EVERY_S)
    say(f"{old.place} ended its answers in {clock.now() - began:.0f} s")


def serving_layout(layout: Layout, serving: Sequence[Seat]) -> Layout:
    """The layout as the door has to know it while just these serve."""
    router = layout.router
    if router.weights is not None and len(router.weights) != len(serving):
        router = router.replace(weights=None)
    return layout.replace(replicas=tuple(seat.replica for seat in serving), router=router)


async def swap(
    folder: Path, new: Callable[[], Awaitable[None]], old: Callable[[], Awaitable[None]], *, say: Say
) -> None:
    """Put the new in place, or the old again where it does not come up; the folder is marked meanwhile.

    Raises:
        StartFailed: it did not come up, and what ran before serves.
    """
    failure: RunFailed | None = None
    with marked(folder):
        try:
            await new()
        except (StartFailed, CommandFailed) as error:
            failure = error
            say("it did not come up; what ran before comes back")
            await old()
    if failure is not None:
        raise StartFailed(f"Not updated, and what ran before serves: {failure}")
