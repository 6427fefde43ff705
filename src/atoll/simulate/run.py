"""Layout + Workload -> Records, in virtual time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atoll.cost.step import StepBatch, StepTimer
from atoll.engines import find_engine
from atoll.engines.engine import SchedulerLimits
from atoll.layout.affinity import PREFIX_BYTES, affinity_key, find_homes
from atoll.layout.layout import Layout, Router
from atoll.layout.weights import router_weights
from atoll.model.card import ModelCard
from atoll.simulate.job import Job
from atoll.simulate.ledger import Ledger, Sent
from atoll.simulate.replica import VirtualReplica
from atoll.simulate.router import VirtualRouter
from atoll.simulate.timeline import Timeline
from atoll.traffic.demand import Demand
from atoll.traffic.record import RecordTable
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Workload

# A closed-loop user whose request failed pauses before the next one, each time twice as long, as the load generator
# does; without a pause it would ask without end at the same moment.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
# proxy_next_upstream_tries in the nginx.conf that atoll renders: a refused request gets one more chance elsewhere.
TRIES = 2
# Sets the router's dice apart from those of the users' requests.
_ROUTER_STREAM = 4
_WORDS = {
    "http_400": "prompt and answer are longer than the KV cache",
    "http_502": "no replica is up",
    "http_503": "the engine's queue is full",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Outage:
    """A replica dies: its requests fail, new ones are refused until it is back with an empty cache."""

    replica: int
    at_s: float
    back_s: float | None = None  # None: never


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """What is not as it should be in a run."""

    outages: tuple[Outage, ...] = ()
    slowdown: tuple[float, ...] | None = None  # a replica's steps take so many times as long; None: all as timed
    cut_s: float | None = None  # what is still under way then is cancelled; None: everything may finish
    warm_up_rounds: int = 0  # closed loop: requests a user before the run, which begins when all of them are answered
    step_by_step: bool = False  # no fast-forward; gives the same records


@dataclass(frozen=True, kw_only=True, slots=True)
class SlowedTimer:
    """A timer whose steps take `factor` times as long."""

    timer: StepTimer
    factor: float

    def seconds(self, batch: StepBatch) -> float:
        return self.timer.seconds(batch) * self.factor

    def decode_seconds(self, decodes: int, decode_context: int, steps: int) -> NDArray[np.float64]:
        return self.timer.decode_seconds(decodes, decode_context, steps) * self.factor

    def front_seconds(self, prompt_tokens: float) -> float:
        return self.timer.front_seconds(prompt_tokens)


def simulate_layout(
    layout: Layout,
    card: ModelCard,
    workload: Workload,
    *,
    timers: Sequence[StepTimer],
    kv_blocks: Sequence[int],
    limits: Sequence[SchedulerLimits],
    trace: Sequence[TraceRow] = (),
    conditions: Conditions = Conditions(),
) -> RecordTable:
    """What the users of this layout would see.

    No request is sent after `workload.duration_s`; those sent by then may finish, as in a real load test, unless
    `conditions.cut_s` ends the run. Users learn of an answer's end, and send the next request, at the moment the
    engine's step ends, and the engine has by then scheduled its next step.

    Args:
        layout: replicas and router.
        card: the model; a request longer than its context is refused with 400.
        workload: the load.
        timers: one a replica.
        kv_blocks: KV blocks of each replica.
        limits: the scheduler's, of each replica.
        trace: rows of a trace, when the workload asks for one.
        conditions: failures and the like.

    Raises:
        BadTraffic: the workload needs a trace and none was given.
    """
    return _Simulation(
        layout,
        card,
        Demand(workload, trace),
        timers=timers,
        kv_blocks=kv_blocks,
        limits=limits,
        conditions=conditions,
    ).run()


class _Simulation:
    """Users, router and replicas on one timeline."""

    def __init__(
        self,
        layout: Layout,
        card: ModelCard,
        demand: Demand,
        *,
        timers: Sequence[StepTimer],
        kv_blocks: Sequence[int],
        limits: Sequence[SchedulerLimits],
        conditions: Conditions,
    ) -> None:
        self._demand = demand
        self._conditions = conditions
        self._timeline = Timeline()
        self._ledger = Ledger()
        self._is_closed = demand.is_closed
        self._think_s = demand.workload.think_s
        self._pauses: dict[int, float] = {}  # users whose last request failed, and how long they wait
        self._tries = range(min(TRIES, len(layout.replicas)))  # nginx hands on the refusal of the only server as it is
        self._longest = layout.flags.max_model_len or card.max_context
        self._warm_up = conditions.warm_up_rounds * (demand.workload.users or 0)  # requests
        self._rested: list[int] = []  # users whose part of it is done
        rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([demand.workload.seed, _ROUTER_STREAM])))
        router = layout.router.replace(max_fails=layout.max_fails)
        homes = find_homes(layout)
        self._router = VirtualRouter(router, router_weights(layout), rng, homes)
        self._hashed = None if homes is None else layout.router
        cached = find_engine(layout.engine).caches_prefixes(layout.flags, layout.engine_version, card)
        slow = conditions.slowdown or (1.0,) * len(layout.replicas)
        self._replicas = [
            VirtualReplica(
                number,
                limits=replace(limits[number], max_num_queued_reqs=layout.flags.max_num_queued_reqs),
                kv_blocks=kv_blocks[number],
                prefix_caching=cached,
                timer=timers[number] if slow[number] == 1.0 else SlowedTimer(timer=timers[number], factor=slow[number]),
                timeline=self._timeline,
                answered=self._answered,
                step_by_step=conditions.step_by_step,
            )
            for number in range(len(layout.replicas))
        ]

    def run(self) -> RecordTable:
        for outage in self._conditions.outages:
            self._timeline.at(outage.at_s, self._fail_replica, outage.replica)
            if outage.back_s is not None:
                self._timeline.at(outage.back_s, self._restart_replica, outage.replica)
        if self._is_closed:
            for user, start in enumerate(self._demand.starts()):
                self._timeline.at(start, self._send_next, user)
        else:
            self._coming = self._demand.open_requests()
            self._announce_next()
        cut_s = self._conditions.cut_s
        self._timeline.run(cut_s if cut_s is not None else float("inf"))
        if cut_s is not None:
            self._timeline.now = cut_s
            for replica in self._replicas:
                replica.fail()
        return self._ledger.table(self._replicas)

    # Users

    def _send_next(self, user: int) -> None:
        """Closed loop: the user's next request, now."""
        now, number = self._timeline.now, len(self._ledger)
        if self._demand.goes_on(now, number):
            self._send(Sent(number, user, self._demand.draw(user), sent_s=now))

    def _announce_next(self) -> None:
        """Open loop: the next request comes at its due time."""
        request = next(self._coming, None)
        if request is not None:
            assert request.due_s is not None
            self._announced = request
            self._timeline.at(request.due_s, self._send_announced)

    def _send_announced(self, _: int) -> None:
        request, now = self._announced, self._timeline.now
        self._send(Sent(request.number, request.user, request, sent_s=now, due_s=now))
        self._announce_next()

    def _answered(self, replica: int, jobs: list[Job]) -> None:
        """These have their last token; closed-loop users think and ask again."""
        now, release = self._timeline.now, self._router.release
        for job in jobs:
            release(replica, job, worker=self._ledger.sent[job.number].worker, now=now)
        if self._is_closed:
            for job in jobs:
                self._go_on(job.user)

    def _go_on(self, user: int, *, after_failure: bool = False) -> None:
        """The user asks again: at once, after thinking, or after a pause when the last request failed."""
        if self._warm_up and len(self._ledger) >= self._warm_up:
            self._rest(user)
            return
        pause_s = self._think_s
        if after_failure:
            self._pauses[user] = min(LONGEST_PAUSE_S, 2 * self._pauses.get(user, FIRST_PAUSE_S / 2))
            pause_s = max(pause_s, self._pauses[user])
        elif self._pauses:
            self._pauses.pop(user, None)
        if pause_s > 0:
            self._timeline.at(self._timeline.now + pause_s, self._send_next, user)
        else:
            self._send_next(user)

    def _rest(self, user: int) -> None:
        """The user's part of the warm-up is done; with the last one's, the run begins for all at once."""
        self._rested.append(user)
        if len(self._rested) == self._demand.workload.users:
            self._warm_up = 0
            for one in sorted(self._rested):
                self._timeline.at(self._timeline.now, self._send_next, one)

    # The way of a request

    def _send(self, job: Sent) -> None:
        self._ledger.sent.append(job)
        if job.prompt_tokens + job.output_tokens > self._longest:
            words = f"{job.prompt_tokens} + {job.output_tokens} tokens are more than {self._longest}"
            self._refuse(job, "http_400", words, 400)
            return
        job.worker = self._router.worker()
        if self._hashed is not None:
            job.key = _key_of(job, self._hashed)
        error = self._offer(job)
        if error is not None:
            self._refuse(job, error, _WORDS[error], int(error.removeprefix("http_")))

    def _offer(self, job: Sent) -> str | None:
        """Ask one replica after another; None when one has taken it, else the class of failure."""
        tried: tuple[int, ...] = ()
        error: str | None = "http_502"
        for _ in self._tries:
            number = self._router.choose(job, worker=job.worker, now=self._timeline.now, tried=tried)
            if number is None:
                return "http_502"
            error = self._ask(self._replicas[number], job)
            if error is None:
                return None
            failed = error != "http_400"
            self._router.release(number, job, worker=job.worker, now=self._timeline.now, failed=failed)
            if not failed:
                return error
            tried = (*tried, number)
        return error

    def _ask(self, replica: VirtualReplica, job: Sent) -> str | None:
        if not replica.is_up:
            return "http_502"
        if not replica.scheduler.takes(job):
            return "http_400"
        if not replica.arrive(job):
            return "http_503"
        job.replica = replica.number
        return None

    def _refuse(self, job: Sent, error: str, words: str, status: int) -> None:
        self._ledger.fail(job.number, self._timeline.now, error, words, status)
        if self._is_closed:
            self._go_on(job.user, after_failure=True)

    # Outages

    def _fail_replica(self, number: int) -> None:
        replica, now = self._replicas[number], self._timeline.now
        lost = replica.fail() if replica.is_up else []
        for job in lost:
            self._router.release(number, job, worker=self._ledger.sent[job.number].worker, now=now)
            self._ledger.fail(job.number, now, "connection_reset", f"replica {number} died", 200)
        for job in lost:
            if self._is_closed:
                self._go_on(job.user, after_failure=True)

    def _restart_replica(self, number: int) -> None:
        self._replicas[number].restart()


def _key_of(job: Sent, router: Router) -> str:
    head_bytes = router.prefix_bytes or PREFIX_BYTES
    return affinity_key(
        router.policy,
        session=job.user if job.session is None else job.session,
        number=job.number if job.session is None else job.session,
        prefix=job.prefix,
        shared_tokens=head_bytes if job.shared_tokens >= job.prompt_tokens else job.shared_tokens,
        head_bytes=head_bytes,
    )
