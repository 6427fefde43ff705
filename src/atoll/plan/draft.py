"""One candidate becomes a Choice: its flags by formula, and what the formula predicts under them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt

from atoll.inventory.islands import islands
from atoll.layout.affinity import prefix_bytes
from atoll.layout.layout import EngineFlags, Layout, Policy, Router
from atoll.plan.budget import in_flight_of
from atoll.plan.choice import Choice
from atoll.plan.enumerate import OPEN, Candidate, Wanted
from atoll.plan.goal import Goal
from atoll.plan.outlook import Outlook
from atoll.plan.rank import order_of
from atoll.plan.score import score_stations_of
from atoll.plan.workbench import Workbench, common_flags

PLAIN = EngineFlags()
TOKEN_BUDGETS = (2048, 4096, 8192, 16384)  # max_num_batched_tokens that are tried


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a search is asked: which model on which box, under which load, and what the user has settled already."""

    workbench: Workbench
    goal: Goal
    model: str  # what the layouts call it
    wanted: Wanted = OPEN
    flags: EngineFlags = PLAIN  # options that are given; those left out are chosen

    def at(self, goal: Goal) -> "Question":
        """The same question under another load."""
        return replace(self, goal=goal)

    def at_load(self, load: float) -> "Question":
        """The same question for so many users or requests per second."""
        return self.at(self.goal.with_load(load))

    @property
    def may_quantise_kv(self) -> bool:
        return self.wanted.fp8_cache and self.can_quantise_kv

    @property
    def can_quantise_kv(self) -> bool:
        """fp8 keys and values: on cards that have fp8 (8.9 on), unless checkpoint or user have settled it."""
        settled = self.flags.kv_cache_dtype != "auto" or self.workbench.card.quantisation.kv_dtype is not None
        return not settled and all(kind.has_fp8 for kind in self.workbench.kinds.values())

    @property
    def dtype(self) -> str:
        """Below compute capability 8.0 vLLM refuses bfloat16 and asks for `--dtype half`."""
        old = any(not kind.has_bfloat16 for kind in self.workbench.kinds.values())
        return "half" if old and self.flags.dtype == "auto" else self.flags.dtype


def draft_choice(question: Question, candidate: Candidate) -> Choice | None:
    """The candidate under the flags that the formula likes best; None when no flags make it hold one request.

    An fp8 KV cache, where it is allowed, is taken only if the plain one has no room for all users.
    """
    users = _users_of_a_replica(question, candidate)
    best = _best_flags(question, candidate, flag_choices(question, users))
    if not question.may_quantise_kv or (best is not None and _has_room(question, best, users)):
        return best
    packed = _best_flags(question, candidate, flag_choices(question, users, "fp8"))
    return min(
        (one for one in (best, packed) if one is not None), key=lambda c: order_of(c, question.goal), default=None
    )


def _best_flags(question: Question, candidate: Candidate, choices: Iterator[EngineFlags]) -> Choice | None:
    drafts = (_with_flags(question, candidate, flags) for flags in choices)
    return min((one for one in drafts if one is not None), key=lambda c: order_of(c, question.goal), default=None)


def _has_room(question: Question, choice: Choice, users: int) -> bool:
    """Whether the KV cache of every replica holds its users' requests at their full length."""
    fits = (question.workbench.fit(replica, choice.layout.flags) for replica in choice.layout.replicas)
    return all(fit.kv_tokens >= users * question.goal.longest for fit in fits)


def _users_of_a_replica(question: Question, candidate: Candidate) -> int:
    if question.goal.users is not None:
        return ceil(question.goal.users / len(candidate.replicas))
    plain = _with_flags(question, candidate, question.flags)
    if plain is None:
        return 256
    in_flight = in_flight_of(plain.predicted, question.goal) / len(candidate.replicas)
    return ceil(in_flight + 4 * sqrt(in_flight))  # Poisson: four standard deviations


def flag_choices(question: Question, users: int, kv_dtype: str | None = None) -> Iterator[EngineFlags]:
    """Batch sizes that suit so many users a replica; those that the user gave stay."""
    seqs = seats_for(users)
    for budget in TOKEN_BUDGETS:
        yield question.flags.replace(
            max_num_seqs=question.flags.max_num_seqs or seqs,
            max_num_batched_tokens=question.flags.max_num_batched_tokens or max(budget, seqs),
            kv_cache_dtype=kv_dtype or question.flags.kv_cache_dtype,
            dtype=question.dtype,
        )


def draft_as(question: Question, choice: Choice) -> Choice | None:
    """The choice's replicas under another load: max_num_seqs is free again, the rest stays as it was chosen."""
    candidate = Candidate(name=choice.name, replicas=choice.layout.replicas)
    flags = choice.layout.flags
    seats = question.flags.max_num_seqs or seats_for(_users_of_a_replica(question, candidate))
    flags = flags.replace(
        max_num_seqs=seats,
        max_num_batched_tokens=question.flags.max_num_batched_tokens or max(flags.max_num_batched_tokens or 0, seats),
        max_model_len=question.flags.max_model_len,
    )
    return _with_flags(question, candidate, flags)


def with_options(choice: Choice, question: Question, **options: object) -> Choice | None:
    """The same replicas and router with other flags; None when these leave no room for a request."""
    flags = choice.layout.flags.replace(max_model_len=question.flags.max_model_len, **options)
    made = _with_flags(question, Candidate(name=choice.name, replicas=choice.layout.replicas), flags)
    return None if made is None else replace(made, layout=with_policy(made.layout, choice.layout.router.policy))


def _with_flags(question: Question, candidate: Candidate, flags: EngineFlags) -> Choice | None:
    bench = question.workbench
    if not all(bench.fit(replica, flags).fits for replica in candidate.replicas):
        return None
    seated = _with_seats_that_have_room(question, candidate, _with_whole_experts(question, candidate, flags))
    limited = common_flags(bench, candidate.replicas, seated, longest=question.goal.longest)
    if (limited.max_model_len or bench.card.max_context) < question.goal.longest:
        return None
    policy = question.wanted.policy or Policy.LEAST_CONN
    layout = Layout(
        name=candidate.name,
        model=question.model,
        box=bench.box,
        replicas=candidate.replicas,
        router=Router(policy=policy, prefix_bytes=prefix_bytes(question.goal.workload) if policy.is_affine else None),
        flags=limited,
        engine=bench.engine,
        engine_version=bench.engine_version,
        workload=question.goal.workload,
        slo=question.goal.slo if question.goal.has_targets else None,
    )
    predicted = score_layout(question, layout)
    return Choice(
        layout=layout, predicted=predicted, formula=predicted, warnings=tuple(_warnings(question, candidate, flags))
    )


def _with_seats_that_have_room(question: Question, candidate: Candidate, flags: EngineFlags) -> EngineFlags:
    """With no more seats than the next power of two above what the KV cache of the roomiest replica holds.

    Requests are of all ages, so they hold their prompt and half their answer. Seats beyond that are never taken, or
    taken from running answers: gemma-3-27b on 4 x V100 has room for 230 requests of 1024/512 tokens; with 256 seats an
    answer takes 4 % less time than with 512, and the first token at the 95th percentile a third less. Where layers keep
    a state, vLLM does not start with more seats than blocks for them.
    """
    if flags.max_num_seqs is None or question.flags.max_num_seqs is not None:
        return flags
    fits = [question.workbench.fit(replica, flags) for replica in candidate.replicas]
    room = max(fit.kv_tokens for fit in fits) / (question.goal.prompt + question.goal.output / 2)
    states = [max(1, fit.sure_seats) for fit in fits if fit.sure_seats is not None]
    return flags.replace(max_num_seqs=min(flags.max_num_seqs, power_of_two(max(1.0, room)), *states))


def _with_whole_experts(question: Question, candidate: Candidate, flags: EngineFlags) -> EngineFlags:
    """With expert parallelism where a replica's tensor-parallel size asks for it."""
    sizes = {replica.tensor_parallel for replica in candidate.replicas}
    needed = any(question.workbench.rules.why_whole_experts(question.workbench.card, size) for size in sizes)
    return flags.replace(enable_expert_parallel=True) if needed else flags


def score_layout(question: Question, layout: Layout) -> Outlook:
    stations = [question.workbench.station(replica, layout.flags) for replica in layout.replicas]
    return score_stations_of(layout, stations, question.goal)


def _warnings(question: Question, candidate: Candidate, flags: EngineFlags) -> Iterator[str]:
    yield from _crossing_warnings(question.workbench, candidate)
    if question.wanted.policy is not None and not question.wanted.policy.renders:
        yield f"nginx cannot do {question.wanted.policy}; it can be simulated only."
    if flags.kv_cache_dtype == "fp8" and question.flags.kv_cache_dtype != "fp8":
        yield "The KV cache is held in fp8, as was allowed, which rounds them; check the answers' quality."


def _crossing_warnings(workbench: Workbench, candidate: Candidate) -> Iterator[str]:
    """A tensor-parallel group over several NVLink islands, where smaller groups would stay inside."""
    home = {gpu: island for island in islands(workbench.box) for gpu in island}
    largest = max(len(island) for island in home.values())
    for replica in candidate.replicas:
        size = replica.tensor_parallel
        for start in range(0, len(replica.gpus), size):
            group = replica.gpus[start : start + size]
            crossed = sorted({home[gpu] for gpu in group})
            if size > 1 and len(crossed) > 1 and largest > 1:
                yield (
                    f"GPUs {_ids(group)} cross from one NVLink island to another"
                    f" ({' and '.join(_ids(island) for island in crossed)}): their all-reduce goes over PCIe, while"
                    f" groups of up to {largest} stay on NVLink."
                )


def _ids(gpus: Sequence[int]) -> str:
    return ", ".join(str(gpu) for gpu in sorted(gpus))


def power_of_two(number: float) -> int:
    """The next one from this number up: 37.5 gives 64."""
    return 1 << (ceil(number) - 1).bit_length()


def seats_for(users: int) -> int:
    """A max_num_seqs with some room above so many users of a replica: 30 get 64."""
    return min(power_of_two(max(8.0, 1.25 * users)), 1024)


def with_policy(layout: Layout, policy: Policy) -> Layout:
    head = prefix_bytes(layout.workload) if policy.is_affine else None
    return layout.replace(router=layout.router.replace(policy=policy, prefix_bytes=head))
