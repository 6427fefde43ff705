"""How much load a server carries: a sweep over levels, or a search for the most users within latency targets."""

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

    A level whose share is near the wanted one is measured `repeats` times, and its median counts.

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
    while high <= highest and good(high):
        low, high = high, high * 2
    reached_end = high > highest
    high = min(high, highest + 1)
    while high - low > max(1, _FINE * low):
        middle = (low + high) // 2
        low, high = (middle, high) if good(middle) else (low, middle)
    ordered = tuple(levels[users] for users in sorted(levels))
    limited = reached_end or any(run.client.limited for level in ordered for run in level.runs)
    return UsersWithinTargets(users=low, share=share, levels=ordered, limited=limited)


def _near_level(
    workload: Workload, users: int, folder: Path, share: float, *, repeats: int, measure: Measure, say: Say
) -> Level:
    level = _level(workload, users, folder, 1, measure=measure, say=say)
    if abs((level.share or 0.0) - share) < _CLOSE:
        for repeat in range(2, repeats + 1):
            more = _level(workload, users, folder, repeat, measure=measure, say=say)
            level = Level(load=users, runs=level.runs + more.runs)
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
