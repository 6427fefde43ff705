"""One layout under one load, by formula: how long answers take, without simulating a single request.

Closed loop (users back to back). On one replica, with D the seconds of a decode step at the mean batch and context, p
the seconds of the steps that hold one prompt, x the part of them that decoding requests feel, O output tokens, and
`front` the API server's part of the way to the scheduler:

    answer = front + wait + p + (O - 1) D + x (others that start while I decode)  (1)
    batch  = running (O - 1) D' / answer,  D' the mean gap between tokens         (2)

which a few rounds of substitution settle. Requests beyond what max_num_seqs and the KV cache admit wait for a place:
by Little's law (waiting / throughput) seconds. Open loop: running = rate x answer, by the same equations.

The formula ranks; candidates that it cannot tell apart are simulated (workflows/plan.py hands in how).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, log

from atoll.analyse.summary import Distribution, ReplicaSummary, RequestCounts, Summary
from atoll.cost.step import StepBatch, StepTimer
from atoll.layout.layout import Layout, Policy
from atoll.layout.weights import router_weights
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook

_ROUNDS = 60
_NO_REQUESTS = RequestCounts(sent=0, ok=0, failed=0, cancelled=0)
QUANTILES = (0.50, 0.90, 0.95, 0.99)


@dataclass(frozen=True, slots=True)
class Station:
    """One replica as the formula sees it. Equal stations share their timer, so equal work is done once."""

    timer: StepTimer
    kv_tokens: int
    max_num_seqs: int
    max_num_batched_tokens: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Steady:
    """One replica in its steady state."""

    users: float
    front_s: float  # in the API server, before the scheduler has it
    wait_s: float  # for a place in the batch, and for the prompts of others; not the queue of a saturated one
    prompt_s: float
    gap_s: float  # mean time between tokens
    worst_gap_s: float  # a step that holds a prompt
    answer_s: float
    requests_per_s: float
    saturated: bool = False


def score_stations(stations: Sequence[Station], goal: Goal, *, shares: Sequence[float]) -> Outlook:
    """What is to be expected of the layout.

    Args:
        stations: its replicas.
        goal: the load.
        shares: the part of the users (or of the rate) that goes to each replica; they sum to 1.
    """
    steady = [_settle(station, goal, share) for station, share in zip(stations, shares, strict=True)]
    return _merge([one for one in steady if one.users > 0 or one.requests_per_s > 0], goal)


def score_stations_of(layout: Layout, stations: Sequence[Station], goal: Goal) -> Outlook:
    """The prediction of replicas behind their router: equal rates by turns, else as many in flight on each."""
    if layout.router.policy in {Policy.ROUND_ROBIN, Policy.PER_ISLAND}:
        return score_stations(stations, goal, shares=equal_rates(stations, goal, router_weights(layout)))
    return score_stations(stations, goal, shares=equal_counts(stations))


def equal_counts(stations: Sequence[Station]) -> tuple[float, ...]:
    """Least connections: as many in flight on every replica."""
    return (1 / len(stations),) * len(stations)


def equal_rates(stations: Sequence[Station], goal: Goal, weights: Sequence[int]) -> tuple[float, ...]:
    """Round robin: requests in proportion to the weights, whatever the replicas make of them.

    In a closed loop users gather where answers take longer: users_i is proportional to weight_i x answer_i(users_i).
    """
    total = sum(weights)
    shares = [weight / total for weight in weights]
    if goal.rate is not None or len(set(stations)) == 1:
        return tuple(shares)
    for _ in range(12):
        answers = [_settle(station, goal, share).answer_s for station, share in zip(stations, shares, strict=True)]
        pulled = [weight * answer for weight, answer in zip(weights, answers, strict=True)]
        shares = [(share + one / sum(pulled)) / 2 for share, one in zip(shares, pulled, strict=True)]
    return tuple(shares)


@lru_cache(maxsize=8192)
def _settle(station: Station, goal: Goal, share: float) -> _Steady:
    if goal.users is not None:
        return _closed(station, goal, goal.users * share)
    assert goal.rate is not None
    return _open(station, goal, goal.rate * share)


def _closed(station: Station, goal: Goal, users: float) -> _Steady:
    """Equations (1) and (2) for a fixed number of users."""
    users = max(users, 1.0)
    running = min(users, _places(station, goal))
    answer, steady = _answer_of(station, goal, running)
    cycle = answer + goal.think_s  # the API server's part is in the answer
    rate = running / cycle
    queue = (users - running) / rate
    return replace(
        steady,
        users=users,
        wait_s=steady.wait_s + queue,
        answer_s=answer + queue,
        requests_per_s=users / (cycle + queue),
    )


def _open(station: Station, goal: Goal, rate: float) -> _Steady:
    """The number in flight that gives this rate; saturated when even a full batch does not."""
    places = _places(station, goal)
    answer, full = _answer_of(station, goal, places)
    if rate >= places / answer:
        return replace(full, users=places, requests_per_s=places / answer, saturated=True)
    low, high = 0.0, places
    for _ in range(40):
        middle = (low + high) / 2
        if middle / _answer_of(station, goal, max(middle, 1.0))[0] < rate:
            low = middle
        else:
            high = middle
    answer, steady = _answer_of(station, goal, max(high, 1.0))
    # Poisson arrivals wait for a place now and then: the M/M/1 factor on the share of places in use.
    load = min(0.999, rate * answer / places)
    wait = answer / places * load**places / (1 - load)
    return replace(
        steady, users=rate * answer, wait_s=steady.wait_s + wait, answer_s=answer + wait, requests_per_s=rate
    )


def _places(station: Station, goal: Goal) -> float:
    """Requests that run at the same time: max_num_seqs, and what the KV cache holds at their mean length."""
    mean_tokens = goal.prompt + goal.output / 2
    return float(max(1, min(station.max_num_seqs, int(station.kv_tokens // mean_tokens))))


def _answer_of(station: Station, goal: Goal, running: float) -> tuple[float, _Steady]:
    """Seconds of a whole answer with so many requests in the batch, and what it is made of."""
    output, decodes = goal.output, max(1.0, running)
    front = station.timer.front_seconds(goal.prompt)
    answer = gap = prompt = extra = worst = wait = 0.0
    for _ in range(_ROUNDS):
        batch = max(1, round(decodes))
        context = round(batch * (goal.prompt + output / 2))
        step = station.timer.seconds(StepBatch(decodes=batch, decode_context=context))
        prompt, chunks = _prompt_seconds(station, goal, batch=batch - 1, context=context)
        extra = max(0.0, prompt - chunks * step)
        worst = max(step, prompt / chunks)
        others = max(0.0, running - 1)
        decode_part = min(1.0, (output - 1) * gap / answer) if answer else 1.0
        gap = step + extra * others * decode_part / max(1.0, output - 1)
        wait = step / 2 + others * prompt * prompt / answer if answer else step / 2
        new = front + wait + prompt + (output - 1) * gap
        settled = abs(new - answer) < 1e-4 * new
        answer = new if not answer else (answer + new) / 2
        decodes = running * (output - 1) * gap / answer
        if settled:
            break
    return answer, _Steady(
        users=running,
        front_s=front,
        wait_s=wait,
        prompt_s=prompt,
        gap_s=gap,
        worst_gap_s=worst,
        answer_s=answer,
        requests_per_s=running / answer,
    )


def _prompt_seconds(station: Station, goal: Goal, *, batch: int, context: int) -> tuple[float, int]:
    """Seconds of the steps that hold one prompt beside `batch` decodes, and how many steps they are."""
    past = min(goal.shared_prefix, max(0, round(goal.prompt) - 1)) // 16 * 16
    left = max(1, round(goal.prompt) - past)
    room = max(16, station.max_num_batched_tokens - batch)
    seconds, chunks = 0.0, ceil(left / room)
    for _ in range(chunks):
        chunk = min(room, left)
        seconds += station.timer.seconds(StepBatch(prefills=((chunk, past),), decodes=batch, decode_context=context))
        past, left = past + chunk, left - chunk
    return seconds, chunks


def _merge(parts: Sequence[_Steady], goal: Goal) -> Outlook:
    """Replicas together, each weighing as many requests as it serves."""
    rate = sum(part.requests_per_s for part in parts)
    weights = [part.requests_per_s / rate for part in parts]
    summary = Summary.model_construct(
        requests=_NO_REQUESTS,
        duration_s=0.0,
        ttft_s=_mix([_first_token(part) for part in parts], weights),
        itl_s=_mix([_gaps(part) for part in parts], weights),
        tpot_s=_mix([_narrow(part.gap_s) for part in parts], weights),
        e2e_s=_mix([_answer(part) for part in parts], weights),
        output_tokens_per_s=rate * goal.output,
        total_tokens_per_s=rate * (goal.prompt + goal.output),
        requests_per_s=rate,
        per_replica=tuple(_share(str(number), part, goal.output) for number, part in enumerate(parts)),
    )
    return Outlook(summary=summary, saturated=any(part.saturated for part in parts))


def _share(name: str, part: _Steady, output: float) -> ReplicaSummary:
    return ReplicaSummary.model_construct(
        replica=name,
        requests=_NO_REQUESTS,
        output_tokens_per_s=part.requests_per_s * output,
        ttft_s=_first_token(part),
        e2e_s=_answer(part),
    )


def _first_token(part: _Steady) -> Distribution:
    return _UNKNOWN if part.saturated else tailed(part.front_s + part.prompt_s, part.wait_s)


def _answer(part: _Steady) -> Distribution:
    return _UNKNOWN if part.saturated else _narrow(part.answer_s)


def _gaps(part: _Steady) -> Distribution:
    even, worst = part.gap_s, part.worst_gap_s
    return Distribution.model_construct(mean=even, p50=even, p90=even, p95=even, p99=worst, max=worst)


_UNKNOWN = Distribution()


@lru_cache(maxsize=8192)
def tailed(floor: float, tail: float) -> Distribution:
    """`floor` seconds plus an exponential tail with this mean, as waiting times have (M/G/1, heavy traffic)."""
    p50, p90, p95, p99 = (floor - tail * log(1 - q) for q in QUANTILES)
    return Distribution.model_construct(mean=floor + tail, p50=p50, p90=p90, p95=p95, p99=p99, max=p99 + 2 * tail)


@lru_cache(maxsize=8192)
def _narrow(seconds: float) -> Distribution:
    return Distribution.model_construct(mean=seconds, p50=seconds, p90=seconds, p95=seconds, p99=seconds, max=seconds)


def _mix(parts: Sequence[Distribution], weights: Sequence[float]) -> Distribution:
    """Means are weighed; a high percentile is that of the slowest replica with a real share of the requests."""
    if len(set(map(id, parts))) == 1:
        return parts[0]
    if any(part.mean is None for part in parts):
        return _UNKNOWN
    counting = [part for part, weight in zip(parts, weights, strict=True) if weight > 0.05] or list(parts)
    return Distribution.model_construct(
        mean=_weighed((part.mean for part in parts), weights),
        p50=_weighed((part.p50 for part in parts), weights),
        p90=_highest(part.p90 for part in counting),
        p95=_highest(part.p95 for part in counting),
        p99=_highest(part.p99 for part in counting),
        max=_highest(part.max for part in counting),
    )


def _weighed(seconds: Iterable[float | None], weights: Sequence[float]) -> float:
    return sum((value or 0.0) * weight for value, weight in zip(seconds, weights, strict=True))


def _highest(seconds: Iterable[float | None]) -> float:
    return max(value or 0.0 for value in seconds)
