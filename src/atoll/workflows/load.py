"""The load and the targets of a command: what a document carries, where the command line says nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from atoll.errors import InputError
from atoll.load.pace import LoadStep, most_load
from atoll.traffic.lengths import parse_lengths
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Arrivals, Start, Workload
from atoll.units import parse_seconds

# What says how a closed loop goes, and what says how requests arrive at a rate.
_OF_USERS = {"think": "think_s", "start": "start", "ramp": "start", "spawn_rate": "start", "turns": "turns"}
_OF_A_RATE = {"arrivals": "arrivals", "burstiness": "burstiness"}


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadOptions:
    """What a command line says of the load, in its own words; None: it says nothing."""

    users: int | None = None
    rate: float | None = None
    requests: int | None = None
    duration: str | None = None
    warmup: str | None = None
    start: str | None = None  # spread, at_once or a duration
    ramp: str | None = None  # a start that is a duration
    spawn_rate: float | None = None  # the same as users per second
    prompt: str | None = None
    output: str | None = None
    seed: int | None = None
    think: str | None = None
    arrivals: str | None = None
    burstiness: float | None = None
    shared_prefix: int | None = None
    turns: int | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The names of those that say something."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)


AS_WRITTEN = LoadOptions()


def load_of(
    written: Workload | None, options: LoadOptions, *, steps: Sequence[LoadStep] = (), traced: bool = False
) -> Workload:
    """The load that is meant: what was written, each field that an option says replaced.

    A rate takes the place of users and users that of a rate; a number of requests that of a duration, and the other way
    about; where nothing is said at all, Workload's defaults hold.

    Args:
        written: what a layout, a bundle or a study carries.
        options: the command line's.
        steps: how the load changes over the run; they give the number of users, or the rate when arrivals are named.
        traced: a trace is given beside it; lengths come from it, and due times where neither users nor a rate are said.

    Raises:
        InputError, BadTraffic, BadDocument: a length, a time or a combination that makes no sense.
    """
    if options.users is not None and options.rate is not None:
        raise InputError("Give --users (back to back) or --rate (requests per second), not both.")
    if options.rate is not None and not options.rate > 0:
        raise InputError(f"--rate {options.rate:g} sends nothing; give requests per second, such as 0.5.")
    changes = _changes(options)
    if steps:
        changes |= _of_steps(options, steps)
    if traced:
        changes |= _of_a_trace(options)
    plain = _without_replaced({} if written is None else written.to_plain(), changes) | changes
    _refuse_what_has_no_effect(plain, options)
    load = Workload.from_plain(plain, origin="the load")
    _refuse_a_prefix_too_long(load)
    if load.duration_s is not None and (load.warmup_s or 0.0) >= load.duration_s:
        raise InputError(f"A warm-up of {load.warmup_s:g} s leaves nothing of the {load.duration_s:g} s of the load.")
    return load


def slo_of(written: SLO | None, ttft: str | None, tpot: str | None) -> SLO | None:
    """The targets that are meant: what was written, each one that an option says replaced; None without any."""
    given = {"ttft": ttft, "tpot": tpot}
    plain = {} if written is None else written.to_plain()
    plain |= {name: parse_seconds(text) for name, text in given.items() if text is not None}
    return SLO.from_plain(plain, origin="the targets") if plain else None


def _changes(options: LoadOptions) -> dict[str, object]:
    """The options' fields of a Workload."""
    said: dict[str, object] = {
        "users": options.users,
        "rate": options.rate,
        "requests": options.requests,
        "duration_s": _seconds(options.duration),
        "warmup_s": _seconds(options.warmup),
        "start": _start_of(options),
        "prompt": None if options.prompt is None else parse_lengths(options.prompt).to_plain(),
        "output": None if options.output is None else parse_lengths(options.output).to_plain(),
        "seed": options.seed,
        "think_s": _seconds(options.think),
        "arrivals": options.arrivals,
        "burstiness": options.burstiness,
        "shared_prefix_tokens": options.shared_prefix,
        "turns": options.turns,
    }
    return {name: value for name, value in said.items() if value is not None}


def _seconds(text: str | None) -> float | None:
    return None if text is None else parse_seconds(text)


def _start_of(options: LoadOptions) -> Start | float | None:
    """One start of the three ways to say one."""
    found: dict[str, Start | float] = {}
    if options.start is not None:
        found["start"] = Start(options.start) if options.start in set(Start) else _start_seconds(options.start)
    if options.ramp is not None:
        found["ramp"] = parse_seconds(options.ramp)
    if options.spawn_rate is not None:
        if options.spawn_rate <= 0:
            raise InputError(f"--spawn-rate {options.spawn_rate:g} starts nobody. Write users per second, like 10.")
        found["spawn-rate"] = (options.users or Workload().users or 1) / options.spawn_rate
    if len(set(found.values())) > 1:
        names = " and ".join(f"--{name}" for name in found)
        raise InputError(f"{names} say two things of when users start. Give one of them.")
    return next(iter(found.values()), None)


def _start_seconds(text: str) -> float:
    try:
        return parse_seconds(text)
    except InputError:
        raise InputError(f"--start {text} is neither {' nor '.join(Start)} nor a duration such as 45s.") from None


def _of_steps(options: LoadOptions, steps: Sequence[LoadStep]) -> dict[str, object]:
    """The most load of all steps and their time; they say themselves when users come, so none are spread."""
    lasts: dict[str, object] = {"duration_s": steps[-1].end_s}
    if options.arrivals is not None:
        return lasts | {"rate": most_load(steps)}
    return lasts | {"users": round(most_load(steps)), "start": _start_of(options) or Start.AT_ONCE}


def _of_a_trace(options: LoadOptions) -> dict[str, object]:
    for name in ("prompt", "output"):
        if getattr(options, name) is not None:
            raise InputError(f"--{name} does not go with --trace, which brings its own lengths.")
    own: dict[str, object] = {"prompt": {"kind": "trace", "mean": 1}, "output": {"kind": "trace", "mean": 1}}
    if options.users is None and options.rate is None:
        own["arrivals"] = Arrivals.TRACE.value
    return own


def _without_replaced(plain: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """What is written, without what an option takes the place of."""
    gone: set[str] = set()
    if "rate" in changes:
        gone |= {"users", *_OF_USERS.values()}
        gone |= {"arrivals"} if plain.get("rate") is None else set()
    if "users" in changes:
        gone |= {"rate", *_OF_A_RATE.values()}
    if changes.get("arrivals") == Arrivals.TRACE.value:
        gone |= {"users", "rate", "duration_s", "requests", *_OF_USERS.values(), *_OF_A_RATE.values()}
    if ("duration_s" in changes) != ("requests" in changes):
        gone |= {"duration_s", "requests"}
    return {name: value for name, value in plain.items() if name not in gone}


def _refuse_what_has_no_effect(plain: Mapping[str, object], options: LoadOptions) -> None:
    closed = plain.get("rate") is None and plain.get("arrivals") != Arrivals.TRACE.value
    without = _OF_A_RATE if closed else _OF_USERS
    why = (
        "is for requests that come at a rate; say it with --rate"
        if closed
        else "is for users who send back to back; say how many with --users"
    )
    for name in options.given:
        if name in without:
            raise InputError(f"--{name.replace('_', '-')} {why}.")


def _refuse_a_prefix_too_long(load: Workload) -> None:
    if load.prompt.kind != "trace" and load.shared_prefix_tokens > load.prompt.mean:
        raise InputError(
            f"A shared prefix of {load.shared_prefix_tokens} tokens is longer than the prompts, {load.prompt.mean:g}."
        )
