"""How much load a server carries: a sweep over levels, or a search for the most users within latency targets."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atoll.analyse.knee import LoadPoint, find_knee
from atoll.analyse.summary import Summary
from atoll.errors import AtollError, InputError, Interrupted
from atoll.outside.files import remove_files
from atoll.traffic.seed import derived_seed
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.bench import BenchResult

Say = Callable[[str], None]
Measure = Callable[[Workload, Path], BenchResult]
_CLOSE = 0.03  # a share of good requests so near the wanted one is measured again
_FINE = 0.05  # the search ends when the two ends are so near, or 1 user apart
_DOUBT = (
    1.28  # standard errors of a share within which a verdict is in doubt: nine of ten such intervals hold the truth
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One load and the runs of it."""

    load: float  # users, or requests per second
    runs: tuple[BenchResult, ...]

    @property
    def share(self) -> float | None:
        """Median share of requests that kept within the targets; None without any."""
        shares = sorted(run.summary.goodput.share for run in self.runs if run.summary.goodput is not None)
        return shares[len(shares) // 2] if shares else None

    @property
    def summary(self) -> Summary:
        return self.runs[0].summary

    @property
    def counted(self) -> int:
        """Requests of all its runs that were measured."""
        return sum(run.summary.measured for run in self.runs)

    def is_in_doubt(self, wanted: float) -> bool:
        """Whether so many requests cannot tell the level's share from the wanted one (Wilson's interval).

        26 of 27 good ones (96 %) do not show that it is 95 % or more; 270 of 270 do.
        """
        share, count = self.share, self.counted
        if share is None or not count or share in (0.0, 1.0):
            return False
        spread = _DOUBT**2 / count
        middle = (share + spread / 2) / (1 + spread)
        reach = _DOUBT / (1 + spread) * math.sqrt(share * (1 - share) / count + spread / (4 * count))
        return middle - reach < wanted < middle + reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """Levels in rising order, and where more load stops helping."""

    levels: tuple[Level, ...]
    knee: float | None  # None: it lies beyond the highest level, or nothing was answered
    seed: int

    @property
    def still_helps_at(self) -> float | None:
        """The highest level, where more load still helped there; None where it had stopped, or nothing was answered."""
        answered = any(level.summary.requests.ok for level in self.levels)
        return self.levels[-1].load if answered and self.knee is None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class UsersWithinTargets:
    """The most users that keep within the targets; 0 when even one does not."""

    users: int
    share: float  # of good requests that was wanted
    levels: tuple[Level, ...] = field(default_factory=tuple)
    limited: bool = False  # the search met its own upper end, or the client was the limit

    @property
    def at_least(self) -> int:
        """The highest level up to `users` whose verdict is not in doubt; 0 where there is none."""
        return max((round(one.load) for one in self._sure if one.load <= self.users), default=0)

    @property
    def at_most(self) -> int | None:
        """One user less than the lowest level above `users` that surely misses the targets; None: none did."""
        above = [round(one.load) for one in self._sure if one.load > self.users]
        return min(above) - 1 if above else None

    @property
    def in_doubt(self) -> tuple[Level, ...]:
        """Levels next to the verdict that had too few requests to tell."""
        return tuple(
            one
            for one in self.levels
            if one.is_in_doubt(self.share) and self.at_least < one.load and one.load <= (self.at_most or math.inf)
        )

    @property
    def _sure(self) -> list[Level]:
        return [one for one in self.levels if not one.is_in_doubt(self.share)]


def at_load(workload: Workload, load: float) -> Workload:
    """The workload with so many users, or at such a rate when it is an open loop."""
    return workload.replace(rate=load) if workload.users is None else workload.replace(users=round(load))


def sweep(workload: Workload, loads: Sequence[float], folder: Path, *, measure: Measure, say: Say) -> Sweep:
    """Measure each level, lowest first, each in a folder of its own.

    Raises:
        Interrupted: Ctrl-C; the levels so far are kept in their folders.
    """
    levels = [_level(workload, load, folder, 1, measure=measure, say=say) for load in sorted(set(loads))]
    points = [
        LoadPoint(
            load=level.load,
            throughput=level.summary.output_tokens_per_s,
            latency_s=level.summary.e2e_s.p50 or 0.0,
        )
        for level in levels
    ]
    knee = find_knee(points)
    return Sweep(levels=tuple(levels), knee=knee.load if knee else None, seed=workload.seed)


def search_users(
    workload: Workload,
    folder: Path,
    *,
    slo: SLO | None,
    share: float = 0.95,
    highest: int = 1024,
    repeats: int = 3,
    measure: Measure,
    say: Say,
) -> UsersWithinTargets:
    """The most users of whose requests a share keeps within the targets: doubling, then bisection.

    A level whose share is near the wanted one is measured `repeats` times, and its median counts; so is the level that
    ends the search, for a moment's trouble at the client would look like the server's limit.

    Raises:
        InputError: no target, or an open loop.
        Interrupted: Ctrl-C.
    """
    if slo is None or (slo.ttft_s is None and slo.tpot_s is None):
        raise InputError("A search needs a target. Give --slo-ttft, --slo-tpot or both.")
    if workload.users is None:
        raise InputError("A search looks for users; leave --rate out.")
    levels: dict[int, Level] = {}

    def good(users: int) -> bool:
        if users not in levels:
            levels[users] = _near_level(workload, users, folder, share, repeats=repeats, measure=measure, say=say)
        return (levels[users].share or 0.0) >= share

    low, high = 0, max(1, workload.users)
    while True:
        while high <= highest and good(high):
            low, high = high, high * 2
        reached_end = high > highest
        high = min(high, highest + 1)
        while high - low > max(1, _FINE * low):
            middle = (low + high) // 2
            low, high = (middle, high) if good(middle) else (low, middle)
        if high > highest:
            break
        levels[high] = _repeated(levels[high], workload, folder, repeats=repeats, measure=measure, say=say)
        if not good(high):
            break
        low = high
        high = min((users for users in levels if users > low and not good(users)), default=low * 2)
    ordered = tuple(levels[users] for users in sorted(levels))
    limited = reached_end or any(run.client.limited for level in ordered for run in level.runs)
    return UsersWithinTargets(users=low, share=share, levels=ordered, limited=limited)


def _near_level(
    workload: Workload, users: int, folder: Path, share: float, *, repeats: int, measure: Measure, say: Say
) -> Level:
    level = _level(workload, users, folder, 1, measure=measure, say=say)
    if abs((level.share or 0.0) - share) < _CLOSE:
        return _repeated(level, workload, folder, repeats=repeats, measure=measure, say=say)
    return level


def _repeated(level: Level, workload: Workload, folder: Path, *, repeats: int, measure: Measure, say: Say) -> Level:
    for repeat in range(len(level.runs) + 1, repeats + 1):
        more = _level(workload, level.load, folder, repeat, measure=measure, say=say)
        level = Level(load=level.load, runs=level.runs + more.runs)
    return level


def _level(workload: Workload, load: float, folder: Path, repeat: int, *, measure: Measure, say: Say) -> Level:
    kind = "rate" if workload.users is None else "users"
    name = f"{kind}-{load:g}" + (f"-{repeat}" if repeat > 1 else "")
    say(f"{name}:")
    # Each level and repeat sends other prompts: the same ones would come out of the engine's prefix cache.
    seed = derived_seed(workload.seed, round(load * 1000), repeat)
    changed = at_load(workload, load).replace(seed=seed)
    was_there = folder.exists()
    try:
        result = measure(changed, folder / name)
    except AtollError:
        if not was_there:
            remove_files(folder)
        raise
    if result.stopped is not None:
        raise Interrupted(f"Stopped by hand; the levels so far are in {folder}.")
    return Level(load=load, runs=(result,))
