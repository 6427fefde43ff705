"""The simulator that a search is handed: the beginning of the run that a layout's file asks for, summed up."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atoll.analyse.summary import Summary, summarise
from atoll.cost.step import StepModel
from atoll.engines.engine import BLOCK_TOKENS, SchedulerLimits
from atoll.layout.layout import EngineFlags, Layout
from atoll.plan.budget import Sample, sample_of
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook
from atoll.plan.workbench import Workbench
from atoll.simulate.run import simulate_layout
from atoll.traffic.demand import Demand
from atoll.traffic.record import RecordTable
from atoll.traffic.start import settle_start
from atoll.traffic.workload import Workload

# Simulation


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A run that was simulated, and what it was simulated with, one of each a replica."""

    outlook: Outlook
    table: RecordTable
    engines: tuple["_Engine", ...]

    def is_as_with(self, engines: Sequence["_Engine"]) -> bool:
        """Whether these give the same run: neither their seats, budgets of tokens, caches nor graphs bound it."""
        return all(map(_bounds_neither, self._needs, self.engines, engines))

    @cached_property
    def _needs(self) -> list["_Needs"]:
        return [_needs_of(self.table, number) for number in range(len(self.engines))]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Engine:
    """What a replica is simulated with."""

    timer: StepModel
    limits: SchedulerLimits
    kv_blocks: int
    graph_sizes: tuple[int, ...]
    rest: EngineFlags  # those that are not in the four above

    @property
    def largest_graph(self) -> int:
        return self.graph_sizes[-1] if self.graph_sizes else 0


class _Needs(NamedTuple):
    """What one replica needed; no less, perhaps more."""

    seats: int = 0
    step_tokens: int = 0
    longest_prompt: int = 0
    shortest_prompt: int = 0
    blocks: int = 0


def _bounds_neither(needs: _Needs, mine: _Engine, other: _Engine) -> bool:
    """Whether a run that was simulated with `mine`, and needed so much, is the same with the other."""
    seats, budget = mine.limits.max_num_seqs, mine.limits.max_num_batched_tokens
    if mine.rest != other.rest or mine.limits != replace(
        other.limits, max_num_seqs=seats, max_num_batched_tokens=budget
    ):
        return False
    in_one_step = mine.limits.chunked_prefill and not mine.limits.long_prefill_token_threshold
    return (
        in_one_step
        and needs.seats <= min(seats, other.limits.max_num_seqs)
        and needs.step_tokens + needs.longest_prompt < budget
        and needs.step_tokens <= other.limits.max_num_batched_tokens
        and needs.blocks <= (1 - mine.limits.watermark) * min(mine.kv_blocks, other.kv_blocks)
        and _graphs_are_as_good(needs, mine, other)
    )


def _graphs_are_as_good(needs: _Needs, mine: _Engine, other: _Engine) -> bool:
    """Steps of decodes lie within both engines' graphs, those with prompts beyond both."""
    if mine.graph_sizes == other.graph_sizes:
        return True
    shared = min(len(mine.graph_sizes), len(other.graph_sizes))
    return (
        mine.graph_sizes[:shared] == other.graph_sizes[:shared]
        and needs.seats <= min(mine.largest_graph, other.largest_graph)
        and needs.shortest_prompt > max(mine.largest_graph, other.largest_graph)
    )


def _needs_of(table: RecordTable, number: int) -> _Needs:
    """Bounds from the records: who was in flight may have had a seat; prompts of one step were done at one time."""
    mine = np.array(table.replica, dtype=object) == str(number)
    if not mine.any():
        return _Needs()
    changes = np.concatenate([table.sent_s[mine], table.done_s[mine]])
    steps = np.repeat([1, -1], int(mine.sum()))
    seats = int(np.cumsum(steps[np.lexsort((-steps, changes))]).max())
    _, step = np.unique(table.first_token_s[mine], return_inverse=True)
    prompts = table.prompt_tokens[mine]
    longest = int((prompts + table.output_tokens[mine]).max())
    return _Needs(
        seats=seats,
        step_tokens=seats + int(np.bincount(step, prompts).max()),
        longest_prompt=int(prompts.max()),
        shortest_prompt=int(prompts.min()),
        blocks=seats * (longest // BLOCK_TOKENS + 2),
    )


@dataclass(frozen=True)
class Simulator:
    """Simulates one layout under a goal with the workbench's timers, as `atoll simulate` does that layout's file.

    Of the run that the goal's workload asks for it simulates the beginning: as many requests as figures take (budget).
    A run that other flags would not change is not repeated for them: with 15 requests in flight on a replica, 32 seats
    are as good as 64.
    """

    workbench: Workbench
    least_requests: int = 0  # more of the run than figures take
    _runs: dict[object, list[_Run]] = field(default_factory=dict)

    def __call__(self, layout: Layout, goal: Goal, formula: Outlook) -> Outlook:
        return self.run(layout, goal, formula, tuple(self.engines(layout)))

    def run(self, layout: Layout, goal: Goal, formula: Outlook, engines: tuple["_Engine", ...]) -> Outlook:
        """The same of a layout whose replicas, on several boxes, have engines that their own workbenches made."""
        sample = sample_of(goal, formula)
        written = settle_start(goal.workload, formula.summary.e2e_s.mean)
        full_per_s = None if written.is_closed else formula.summary.requests_per_s
        asked = (layout.replicas, layout.router, layout.max_fails, written, sample, formula.saturated, full_per_s)
        runs = self._runs.setdefault(asked, [])
        known = next((run for run in runs if run.is_as_with(engines)), None)
        if known is not None:
            return known.outlook
        requests = max(sample.requests, self.least_requests)
        table = simulate_layout(
            layout,
            self.workbench.card,
            written.replace(requests=min(requests, written.requests or requests)),
            timers=[one.timer for one in engines],
            kv_blocks=[one.kv_blocks for one in engines],
            limits=[one.limits for one in engines],
        )
        outlook = self._sum_up(table, written, sample, formula)
        if not _shares_prompts(written):
            runs.append(_Run(outlook=outlook, table=table, engines=engines))
        return outlook

    def engines(self, layout: Layout) -> Iterator[_Engine]:
        """What each replica is simulated with."""
        bench, flags = self.workbench, layout.flags
        rest = flags.replace(
            max_num_seqs=None, max_num_batched_tokens=None, max_model_len=None, gpu_memory_utilization=None
        )  # of the last two the KV cache's size is left, and that no request is too long
        for replica in layout.replicas:
            spec = bench.spec(replica, flags)
            yield _Engine(
                timer=bench.timer(replica, flags),
                limits=spec.limits,
                kv_blocks=bench.fit(replica, flags).blocks_with(flags.max_model_len),
                graph_sizes=spec.steps.graph_sizes,
                rest=rest,
            )

    def _sum_up(self, table: RecordTable, written: Workload, sample: Sample, formula: Outlook) -> Outlook:
        requests = max(sample.requests, self.least_requests)
        is_cut = len(table) == requests  # otherwise this is the whole run
        rows = table.number < (requests - sample.after if is_cut else requests)
        if is_cut and not written.is_closed:
            rows &= table.number >= sample.before
        is_sure = formula.saturated or not is_cut or self.least_requests > 0
        saturated = not written.is_closed and piles_up(table, rows) and (is_sure or _wait_grows(table, rows))
        summary = summarise(table, workload=written, rows=rows)
        full_per_s = formula.summary.requests_per_s if saturated else None
        if is_cut:
            summary = steady_rates(summary, table, rows, written, full_per_s=full_per_s)
        return Outlook(summary=summary, simulated=True, saturated=saturated, full_per_s=full_per_s)


def _shares_prompts(workload: Workload) -> bool:
    """Whether prompts have parts in common, so that the room for old ones counts as well."""
    return workload.shared_prefix_tokens > 0 or workload.turns > 1 or workload.distinct_prompts is not None


def piles_up(table: RecordTable, rows: NDArray[np.bool_]) -> bool:
    """Open loop: the last of the measured requests (`rows`) take longer than the first, as they do in a growing queue.

    A load that is a twentieth too great delays answers by a twentieth of the time that it lasts. They take now more,
    now less in any case, so that a tenth of their time is allowed for beside that.
    """
    if not rows.any():  # at a hundredth of a small rate nobody comes in ten minutes
        return False
    sent_s = table.sent_s[rows]
    first, last = _ends_of((table.done_s - table.sent_s)[rows])
    return last - first > 0.05 * float(sent_s[-1] - sent_s[0]) + 0.1 * first


def _wait_grows(table: RecordTable, rows: NDArray[np.bool_]) -> bool:
    """Whether what the last of these requests take longer than the first is for the most part a wait for a seat.

    In the few hundred requests of a sample answers take longer behind a cluster of arrivals too, while all of them have
    seats: two A100 PCIe with a 14B model seemed to pile up at 4.48 requests/s, and carry 5.7 over ten minutes.
    """
    first, last = _ends_of((table.done_s - table.sent_s)[rows])
    waited, waits = _ends_of((table.first_token_s - table.sent_s)[rows])
    return waits - waited > (last - first) / 2


def _ends_of(seconds: NDArray[np.float64]) -> tuple[float, float]:
    """The mean of the first fifth, and of the last."""
    fifth = max(1, len(seconds) // 5)
    return float(seconds[:fifth].mean()), float(seconds[-fifth:].mean())


@lru_cache(maxsize=64)
def arriving_per_s(workload: Workload) -> float:
    """Requests per second that arrive in an open loop's whole run, by chance a little more or fewer than its rate."""
    demand, number, last_s = Demand(workload), 0, 0.0
    for request in demand.open_requests():
        number, last_s = number + 1, request.due_s or 0.0
    return number / last_s if last_s else 0.0


def steady_rates(
    summary: Summary, table: RecordTable, rows: NDArray[np.bool_], workload: Workload, *, full_per_s: float | None
) -> Summary:
    """The rates of the whole run, where what was simulated of it is less than an answer's time or has its end in it.

    Back-to-back users ask by Little's law; an open loop that keeps up answers what arrives, and one that does not what
    full engines answer (`full_per_s`).
    """
    answer_s = summary.e2e_s.mean
    if answer_s is None or summary.output_tokens_per_s == 0:
        return summary
    users = workload.users
    if full_per_s is not None:
        rate = full_per_s
    else:
        rate = arriving_per_s(workload) if users is None else users / (answer_s + workload.think_s)
    output = rate * float(table.output_tokens[rows].mean())
    factor = output / summary.output_tokens_per_s
    return summary.replace(
        requests_per_s=rate,
        output_tokens_per_s=output,
        total_tokens_per_s=output + rate * float(table.prompt_tokens[rows].mean()),
        per_replica=tuple(
            part.replace(output_tokens_per_s=part.output_tokens_per_s * factor) for part in summary.per_replica
        ),
    )
