"""A Choice in sentences: what its memory holds, what its links cost, where a step's time goes, how it compares."""

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from atoll.analyse.band import tell_bands
from atoll.cost.links import Group, Hop
from atoll.cost.memory import MemoryFit, users_that_fit
from atoll.cost.step import StepBatch
from atoll.layout.layout import Policy
from atoll.plan.band import choice_band, may_be_better, pair_band, pair_is_known
from atoll.plan.choice import Choice, Flip, Search, Trial
from atoll.plan.goal import Goal
from atoll.plan.loads import TIE
from atoll.plan.outlook import Outlook
from atoll.plan.rank import Preference, find_preference
from atoll.plan.workbench import Workbench
from atoll.units import show_bytes, show_seconds

_HOPS = {
    Hop.NVSWITCH: "NVSwitch",
    Hop.NVLINK: "NVLink",
    Hop.PCIE: "PCIe inside one NUMA node",
    Hop.PCIE_FAR: "PCIe across NUMA nodes",
    Hop.HOST: "host memory (no peer access)",
}
# breakdown() keys -> what a reader calls them
_PARTS = {
    "reading and multiplying weights": ("qkv", "o", "gate_up", "up", "down", "router", "experts", "shared", "lm_head"),
    "attention over the KV cache": ("attention_decode",),
    "all-reduce": ("all_reduce",),
    "passing activations between stages": ("send",),
    "small kernels": ("elementwise",),
    "the host": ("host",),
}


def explain_choice(choice: Choice, search: Search, workbench: Workbench) -> str:
    """Why the choice stands where it does, in a few sentences."""
    sentences = [_memory(choice, search.goal, workbench), _step(choice, workbench, search.goal)]
    sentences += _whole_experts(choice, workbench)
    if choice is search.best:
        sentences += _lead(search, workbench)
    else:
        sentences.append(_behind(choice, search))
    return " ".join(sentences)


def explain_place(choice: Choice, search: Search) -> str:
    """How a choice that is not the best stands to the best, in a sentence."""
    return _behind(choice, search)


def step_parts(choice: Choice, workbench: Workbench, goal: Goal) -> dict[str, float]:
    """Seconds of the first replica's mean decode step by what they are spent on, the largest first."""
    replica, flags = choice.layout.replicas[0], choice.layout.flags
    batch = mean_batch(choice, goal)
    timer = workbench.timer(replica, flags)
    context = round(batch * (goal.prompt + goal.output / 2))
    seconds = timer.breakdown(StepBatch(decodes=batch, decode_context=context))
    parts: dict[str, float] = {}
    for name, value in seconds.items():
        part = next((words for words, keys in _PARTS.items() if name in keys), name.replace("_", " "))
        parts[part] = parts.get(part, 0.0) + max(0.0, value)
    return dict(sorted(parts.items(), key=lambda item: -item[1]))


def mean_batch(choice: Choice, goal: Goal) -> int:
    """Requests that decode at the same time on one replica, by Little's law."""
    expected = choice.formula.summary
    in_flight = expected.requests_per_s * goal.output * (expected.tpot_s.mean or 0.0) / len(choice.layout.replicas)
    return max(1, round(in_flight))


def explain_tuning(choice: Choice, goal: Goal) -> Iterator[str]:
    """A line for each option whose other values were simulated: what they change, and which is kept."""
    for option, group in groupby(choice.trials, key=lambda trial: trial.option):
        trials = list(group)
        tried = ", ".join(f"{trial.value} ({_change(trial, goal)})" for trial in trials)
        taken = next((trial for trial in trials if trial.taken), None)
        kept = f"took {taken.value} instead of {taken.was}" if taken else f"kept {trials[0].was}"
        leave = ""
        if trials[0].needs_leave and any(_is_worth_having(trial, goal) for trial in trials):
            leave = ", since fp8 keys and values are rounded; --kv-cache-dtype either would allow it"
        yield f"{option.replace('_', '-')}: {tried}; {kept}{leave}."
        yield from (_affinity(trial) for trial in trials if trial.value in _AFFINE)


_AFFINE = {policy.value for policy in Policy if policy.is_affine}


def _affinity(trial: Trial) -> str:
    """What a policy by hash brings, and its price: the users of the replica that has the most to do."""
    after, before = trial.predicted.summary, trial.instead_of.summary
    first = (
        f"half of the first tokens within {_seconds(after.ttft_s.p50)} instead of {_seconds(before.ttft_s.p50)}, 95 %"
        f" within {_seconds(after.ttft_s.p95)} instead of {_seconds(before.ttft_s.p95)}"
    )
    cached = f"{_cached(trial.predicted):.0%} instead of {_cached(trial.instead_of):.0%} of the prompts from the cache"
    worst = max(after.per_replica, key=lambda part: part.ttft_s.p95 or 0.0, default=None)
    if worst is None:
        return f"{trial.value}: {first}; {cached}."
    share = worst.requests.sent / max(1, after.requests.sent)
    price = f"replica {worst.replica}, the slowest, has {share:.0%} of the requests and {_seconds(worst.ttft_s.p95)}"
    return f"{trial.value}: {first}; {cached}; {price}."


def _cached(outlook: Outlook) -> float:
    """The share of the prompts' tokens that came from prefix caches."""
    summary = outlook.summary
    prompts = (summary.total_tokens_per_s - summary.output_tokens_per_s) * summary.duration_s
    return min(1.0, summary.cached_tokens / prompts) if prompts > 0 else 0.0


def _seconds(value: float | None) -> str:
    return "-" if value is None else show_seconds(value)


def _is_worth_having(trial: Trial, goal: Goal) -> bool:
    better = trial.predicted.times(trial.instead_of, goal) * (1 + TIE) < 1
    return better or trial.predicted.meets(goal) > trial.instead_of.meets(goal)


def _change(trial: Trial, goal: Goal) -> str:
    """`+0.4 %`, and whether the targets are now missed or met."""
    meets, met = trial.predicted.meets(goal), trial.instead_of.meets(goal)
    word = "" if meets == met else ", meets the targets" if meets else ", misses a target"
    if trial.predicted.saturated:
        return "cannot keep up"
    change = trial.predicted.times(trial.instead_of, goal) - 1
    return (f"{change:+.1%}" if abs(change) >= 0.0005 else "no change") + word


def explain_seats(search: Search) -> Iterator[str]:
    """Why the best layout has more seats than the load needs."""
    best = search.best
    if best.widened_from is None:
        return
    before, now = best.widened_from, best.layout.flags.max_num_seqs
    seats = len(best.layout.replicas) * before
    yield (
        f"{best.name} is written with --max-num-seqs {now}, though {before} would do for {search.goal.load}: that"
        f" changes nothing for them, and with {before} a request that finds {seats:,} others would wait for a seat."
    )


def explain_flips(search: Search, workbench: Workbench) -> Iterator[str]:
    """At how many users the ranking changes; a lead smaller than the error of the predictions is said to be small."""
    unit = "users" if search.goal.users is not None else "requests/s"
    for place, flip in enumerate(search.flips):
        until = search.flips[place + 1].load if place + 1 < len(search.flips) else float("inf")
        before, after = (
            next(choice for choice in search.choices if choice.name == name) for name in (flip.before, flip.after)
        )
        start = f"From about {_load(flip, search.goal)} {unit} on, {flip.after} is"
        if flip.steadier:
            yield f"{start} preferred to {flip.before}, whose users wait for a seat."
            continue
        is_small = _lead_of(search, flip, until) < pair_band(before, after, workbench, search.goal)
        yield f"{start} better than {flip.before}{', by less than the error of such predictions' if is_small else ''}."
    if len(search.curves) > 1 and not search.flips:
        first, last = search.curves[0].points[0][0], search.curves[0].points[-1][0]
        ahead = _ahead(search)
        others = [curve.name for curve in search.curves if curve.name != ahead]
        yield f"{ahead} stays ahead of {join(others)} from {first:g} to {last:g} {unit}."


def join(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


def _lead_of(search: Search, flip: Flip, until: float) -> float:
    """How much better `after` is than `before` at most, as a share, from the flip to the next one."""
    before, after = (
        next(curve.points for curve in search.curves if curve.name == name) for name in (flip.before, flip.after)
    )
    return max(
        (
            slow.times(fast, search.goal) - 1
            for (load, slow), (_, fast) in zip(before, after, strict=True)
            if flip.load <= load <= until
        ),
        default=0.0,
    )


def explain_economy(search: Search) -> Iterator[str]:
    """The layout that meets the targets on the fewest GPUs, when it leaves some idle that the best one uses."""
    enough = [choice for choice in search.choices if choice.predicted.meets(search.goal)]
    if not search.goal.has_targets or not enough:
        return
    least = min(enough, key=_gpus)
    if _gpus(least) < _gpus(search.best):
        yield f"{least.name} meets the targets on {_gpus(least)} of the {_gpus(search.best)} GPUs."


def explain_eight_bits(search: Search, workbench: Workbench) -> Iterator[str]:
    """What weights in fp8 would bring to the best layout, where they are in 16 bits and its cards compute in fp8."""
    best, flags = search.best, search.best.layout.flags
    settled = workbench.card.quantisation.method is not None or flags.quantization is not None
    if settled or not all(kind.has_fp8 for kind in workbench.kinds.values()):
        return
    replica, packed = best.layout.replicas[0], flags.replace(quantization="fp8")
    batch, longest = mean_batch(best, search.goal), search.goal.longest
    context = round(batch * (search.goal.prompt + search.goal.output / 2))
    step = StepBatch(decodes=batch, decode_context=context)
    before, after = (workbench.timer(replica, these).seconds(step) for these in (flags, packed))
    fits = [workbench.fit(replica, these) for these in (flags, packed)]
    weights, room = ([show_bytes(fit.weight_bytes) for fit in fits], [users_that_fit(fit, longest) for fit in fits])
    yield (
        f"Weights in fp8, which rounds them: {best.name} would hold {weights[1]} a GPU instead of {weights[0]}, take"
        f" {show_seconds(after)} for that decode step instead of {show_seconds(before)} ({after / before - 1:+.0%}),"
        f" and a replica have room for {room[1]:,} requests of {longest:,} instead of {room[0]:,}. `--quantization fp8`"
        f" plans with them, and so does the name of an FP8 checkpoint."
    )


def explain_band(search: Search, workbench: Workbench) -> Iterator[str]:
    """How sure the figures are, and which choices cannot be told from the best one."""
    best = search.best
    near = [choice for choice in search.choices[1:] if is_near_best(choice, search, workbench)]
    if near:
        joined = join([choice.name for choice in near])
        widest = max(pair_band(best, choice, workbench, search.goal) for choice in near)
        known = all(pair_is_known(best, choice, workbench, search.goal) for choice in near)
        how = (
            f"how two layouts compare is predicted to about {widest:.0%}"
            if known
            else f"of how two layouts compare here no band is known, and they are not told apart below {widest:.0%}"
        )
        yield f"{joined} cannot be told from {best.name}: {how}. Measure before you decide between them."
    simulated = [choice for choice in search.choices if choice.predicted.simulated]
    yield from tell_bands({choice.name: choice_band(choice, workbench) for choice in simulated})
    if len(simulated) < len(search.choices):
        names = ", ".join(choice.name for choice in search.choices if not choice.predicted.simulated)
        yield f"{names}: of figures by formula no band is known."


def is_near_best(choice: Choice, search: Search, workbench: Workbench) -> bool:
    """Whether the choice may be the better one for all we know."""
    return may_be_better(choice, search.best, workbench, search.goal)


def _load(flip: Flip, goal: Goal) -> str:
    return f"{max(2, round(flip.load))}" if goal.users is not None else f"{flip.load:.2g}"


def _memory(choice: Choice, goal: Goal, workbench: Workbench) -> str:
    """What the cards hold; where replicas differ, each kind by itself."""
    replicas = choice.layout.replicas
    fits: dict[MemoryFit, list[int]] = {}
    for replica in replicas:
        fits.setdefault(workbench.fit(replica, choice.layout.flags), []).extend(replica.gpus)
    told = []
    for fit, gpus in fits.items():
        each = "Each GPU holds" if len(gpus) > 1 else "The GPU holds"
        if len(fits) > 1:
            each = f"GPU {', '.join(map(str, gpus))} hold{'s' if len(gpus) == 1 else ''}"
        requests = f"{users_that_fit(fit, goal.longest):,} requests of {goal.longest:,}"
        told.append(
            f"{each} {show_bytes(fit.weight_bytes)} of weights and {show_bytes(fit.kv_bytes)} of KV cache;"
            f" a replica has room for {fit.kv_tokens:,} tokens, {requests}."
        )
    return " ".join(told)


def _step(choice: Choice, workbench: Workbench, goal: Goal) -> str:
    replica = choice.layout.replicas[0]
    parts = step_parts(choice, workbench, goal)
    total = sum(parts.values())
    batch = mean_batch(choice, goal)
    shown = ", ".join(f"{show_seconds(seconds)} {name}" for name, seconds in list(parts.items())[:3])
    over = ""
    if replica.tensor_parallel > 1:
        group = workbench.timer(replica, choice.layout.flags).reduce.group
        over = f" (all-reduce over {describe_links(group)})"
    return f"A decode step of {batch} request{'s' if batch > 1 else ''} takes {show_seconds(total)}: {shown}{over}."


def _whole_experts(choice: Choice, workbench: Workbench) -> list[str]:
    """Why expert parallelism was switched on."""
    sizes = sorted({replica.tensor_parallel for replica in choice.layout.replicas})
    whys = [why for size in sizes if (why := workbench.rules.why_whole_experts(workbench.card, size)) is not None]
    if not choice.layout.flags.enable_expert_parallel or not whys:
        return []
    return [f"--enable-expert-parallel leaves every expert whole on one of the GPUs: {whys[0]}."]


def describe_links(group: Group) -> str:
    """`NVLink`; `PCIe across NUMA nodes between NVLink pairs`."""
    words = _HOPS.get(group.hop, str(group.hop))
    return f"{words}, between NVLink islands" if group.mixed else words


def _lead(search: Search, workbench: Workbench) -> list[str]:
    if len(search.choices) < 2:
        return ["It is the only layout that is possible."]
    best, second = search.choices[0], search.choices[1]
    preference = find_preference(search.choices, search.goal, workbench)
    if preference is not None and preference.first is best:
        return [_preferred(preference, search.goal)]
    ratio = second.predicted.times(best.predicted, search.goal) - 1
    what = _what(search.goal)
    if best.predicted.saturated:
        return [f"It cannot keep up with the load either, but answers the most: {_answered(best)}."]
    if best.predicted.meets(search.goal) and not second.predicted.meets(search.goal):
        return [f"It meets the targets; {second.name}, the next best, does not."]
    if ratio <= TIE:
        return [f"{second.name} does as well; this one {_simpler(best, second)}."]
    return [f"{second.name}, the next best, takes {ratio:.0%} longer for {what}."]


def _preferred(preference: Preference, goal: Goal) -> str:
    """Why one whose answers take longer stands first."""
    first, passed = preference.first, preference.passed
    longer = first.predicted.times(passed.predicted, goal) - 1
    sooner, later = (one.predicted.summary.ttft_s.p95 for one in (first, passed))
    cost = f", though its answers take {longer:.0%} longer in the mean" if longer > TIE else ""
    if not preference.steadier:
        return (
            f"It is put before {passed.name}{cost}: the two cannot be told apart, and there is a warning (!) against"
            f" {passed.name} alone."
        )
    return (
        f"It is put before {passed.name}{cost}: there one first token in twenty takes longer than"
        f" {show_seconds(later)}, since users wait for a seat, against {show_seconds(sooner)} here."
    )


def _answered(choice: Choice) -> str:
    return f"{choice.predicted.summary.requests_per_s:.3g} requests/s"


def _simpler(best: Choice, second: Choice) -> str:
    fewer = _gpus(best) < _gpus(second)
    return "uses fewer GPUs" if fewer else "was put first for its simpler flags"


def _behind(choice: Choice, search: Search) -> str:
    best = search.best
    if choice.predicted.saturated:
        return f"It cannot keep up with the load: it answers {_answered(choice)}."
    ratio = choice.predicted.times(best.predicted, search.goal)
    what = _what(search.goal)
    verdict = f"It does as well as {best.name}"
    if ratio > 1 + TIE:
        verdict = f"It takes {_times(ratio)} {best.name} for {what}"
    elif ratio < 1 - TIE:  # the best is preferred to it, or keeps targets that this one misses
        verdict = f"It takes {1 - ratio:.0%} less than {best.name} for {what}"
    return f"{verdict}{_missed(choice, search.goal)}."


def _missed(choice: Choice, goal: Goal) -> str:
    """Which target it misses."""
    predicted = choice.predicted.summary
    missed = [
        f"{name} p95 {show_seconds(value)} against {show_seconds(target)}"
        for name, value, target in (
            ("TTFT", predicted.ttft_s.p95, goal.slo.ttft_s),
            ("TPOT", predicted.tpot_s.p95, goal.slo.tpot_s),
        )
        if target is not None and value is not None and value > target
    ]
    return f" and misses a target ({', '.join(missed)})" if missed else ""


def _times(ratio: float) -> str:
    return f"{ratio - 1:.0%} longer than" if ratio < 2 else f"{ratio:.1f} times as long as"


def _what(goal: Goal) -> str:
    return "the first token" if goal.favour == "first_token" else "a whole answer"


def _gpus(choice: Choice) -> int:
    return sum(len(replica.gpus) for replica in choice.layout.replicas)


def leaders(search: Search) -> tuple[tuple[float, float, str], ...]:
    """(from load, to load, layout): who is ahead over which stretch of the loads that were looked at."""
    if not search.curves:
        return ()
    first, last = search.curves[0].points[0][0], search.curves[0].points[-1][0]
    edges: Sequence[float] = (first, *(flip.load for flip in search.flips), last)
    names = [search.flips[0].before, *(flip.after for flip in search.flips)] if search.flips else [_ahead(search)]
    return tuple((a, b, name) for (a, b), name in zip(pairwise(edges), names, strict=True))


def _ahead(search: Search) -> str:
    return min(search.curves, key=lambda curve: curve.points[-1][1].cost(search.goal)).name
