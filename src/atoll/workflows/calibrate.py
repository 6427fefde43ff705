"""Measure a live engine, or the links of this box, and keep what was found as a machine profile."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from atoll.cost.calibrate import DecodePoint, FittedProfile, Point, PromptPoint, fit_line, fit_scales
from atoll.cost.profile import MachineProfile
from atoll.cost.step import StepModel
from atoll.engines.spec import EngineSpec
from atoll.errors import InputError, NoMeasurement, RunFailed
from atoll.layout.layout import Layout, Replica
from atoll.load.run import measure_load
from atoll.load.target import Endpoint, RequestOptions, models_in, parse_target
from atoll.model.read import read_model
from atoll.outside.clock import Clock, SystemClock
from atoll.outside.files import read_text
from atoll.outside.http import get_json
from atoll.traffic.record import Floats, Outcome, RecordTable
from atoll.traffic.workload import Workload
from atoll.workflows.boxes import named_box

Say = Callable[[str], None]
_SPARE = 16  # tokens that a template or a tokenizer may add to a prompt
_LONGER = 1.05  # a prompt of words comes out this much too long at worst: 500 wanted, 517 sent, on a small tokenizer


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One small load: `users` at once, each sends one prompt and takes an answer; `repeats` prompts one by one."""

    users: int
    prompt: int
    output: int
    repeats: int = 1

    def __str__(self) -> str:
        return f"{self.users} at once, {self.prompt} tokens in, {self.output} out"


def engine_of(
    *,
    layout: Path | None,
    replica: int,
    gpu: str | None,
    tensor_parallel: int,
    model: str | None,
    engine_version: str,
) -> EngineSpec | None:
    """What the engine runs on: a replica of a layout, or so many cards of a kind; None when neither is told.

    Raises:
        InputError: a GPU without a model, or a replica that the layout does not have.
    """
    if layout is not None:
        known = Layout.parse(read_text(layout), origin=str(layout))
        return EngineSpec.of(known, _replica_of(known, replica), read_model(known.model))
    if gpu is None:
        return None
    if model is None:
        raise InputError("Say which model the engine serves: --model NAME, such as Qwen/Qwen2.5-32B-Instruct.")
    box = named_box(gpu=gpu, gpus=tensor_parallel)
    card = read_model(model)
    one = Replica(gpus=box.indices, tensor_parallel=tensor_parallel)
    plain = Layout(name="engine", model=model, box=box, replicas=(one,), engine_version=engine_version)
    return EngineSpec.of(plain, one, card)


def _replica_of(layout: Layout, number: int) -> Replica:
    if number >= len(layout.replicas):
        raise InputError(f"{layout.name} has replicas 0-{len(layout.replicas) - 1}; there is no replica {number}.")
    return layout.replicas[number]


def probes(*, quick: bool, longest: int, most_users: int = 64) -> Iterator[Probe]:
    """What is asked: single streams at several contexts, prompts of several lengths, and several users at once.

    Prompts and answers together stay within `longest` tokens: what would be longer is cut to fit, each length once.
    """
    answer = min(64 if quick else 128, longest // 2)
    room = longest - answer - _SPARE
    for context in _cut((32, 2048) if quick else (32, 1024, 4096, 8192), room):
        yield Probe(users=1, prompt=context, output=answer)
    # A few tokens short of a full tile.
    for prompt in _cut((120, 1000, 4050) if quick else (120, 500, 1000, 2000, 4050, 8100), longest - 2 - _SPARE):
        yield Probe(users=1, prompt=prompt, output=2, repeats=3 if quick else 5)
    crowds = (
        ((8, 32), (32, 32), (16, 1024)) if quick else ((4, 32), (16, 32), (32, 32), (64, 32), (8, 4096), (32, 1024))
    )
    for users, context in crowds:
        if users <= most_users:
            yield Probe(users=users, prompt=_cut((context,), room)[0], output=answer)


def _cut(lengths: Sequence[int], room: int) -> list[int]:
    return sorted({max(1, min(length, int(room / _LONGER))) for length in lengths})


def calibrate(
    url: str,
    *,
    engine: EngineSpec | None,
    options: RequestOptions | None = None,
    quick: bool = False,
    longest: int = 8192 + 256,
    most_users: int = 64,
    start: MachineProfile | None = None,
    say: Say = lambda _line: None,
    clock: Clock | None = None,
) -> FittedProfile:
    """Measure an OpenAI-compatible engine that serves nobody else meanwhile, and fit the step model to it.

    Args:
        url: of the engine.
        engine: what it runs on and with; None where the card is not in the catalogue: then a line is fitted.
        options: model, key, headers, timeouts.
        quick: half the probes.
        longest: tokens that one request may have.
        most_users: how many are asked at once.
        start: a profile whose links are kept.
        say: told what is measured next.
        clock: None is the machine's.

    Raises:
        RunFailed: the engine cannot be asked.
        NoMeasurement: no probe was answered.
    """
    if engine is not None:
        longest = min(longest, engine.max_model_len)
    options = _plain_asking(url, options or RequestOptions())
    longest = min(longest, asyncio.run(_longest_served(url, options)) or longest)
    points: list[Point] = []
    lost: list[str] = []
    salt = int((clock or SystemClock()).wall()) % 10**8 * 100  # other words each time: nothing from the prefix cache
    say("warming up")
    asyncio.run(_measure(url, Probe(users=4, prompt=64, output=32), options, seed=salt))
    for number, probe in enumerate(probes(quick=quick, longest=longest, most_users=most_users), start=1):
        say(str(probe))
        # Twice, and the faster of both counts: what disturbs only adds, and the first time may compile a shape.
        tries = [asyncio.run(_measure(url, probe, options, seed=salt + 2 * number + more)) for more in (0, 1)]
        faster: list[Point] = min(tries, key=_seconds)
        points += faster
        lost += [] if faster else [f"no figure from {probe}: not all were answered, or never all at once"]
    if not points:
        raise NoMeasurement(f"{url} answered no probe; `atoll bench {url} --users 1 --duration 10s` shows why.")
    start = start or MachineProfile()
    return _fit(points, engine, start.replace(notes=(*start.notes, *lost)))


async def _longest_served(url: str, options: RequestOptions) -> int | None:
    """What vLLM says of its context in /v1/models; None where an engine does not say."""
    target, _ = parse_target(url)
    headers = {"Authorization": f"Bearer {options.api_key}"} if options.api_key else None
    try:
        answer = await get_json(target.origin + target.models_path, headers=headers)
    except RunFailed:  # whether it can be asked at all, the probes will tell
        return None
    known = models_in(answer)
    chosen = next((model for model in known if model.get("id") == options.model), known[0] if known else {})
    length = chosen.get("max_model_len")
    return length if isinstance(length, int) and length > 0 else None


def _seconds(found: Sequence[Point]) -> float:
    return found[0].seconds if found else float("inf")


def _plain_asking(url: str, options: RequestOptions) -> RequestOptions:
    """Completions where the URL does not say chat: no template then adds tokens to the prompts."""
    if options.endpoint is None and not url.rstrip("/").endswith("/chat/completions"):
        return replace(options, endpoint=Endpoint.COMPLETIONS)
    return options


def _fit(points: Sequence[Point], engine: EngineSpec | None, start: MachineProfile) -> FittedProfile:
    if engine is None:
        line = fit_line(points)
        return replace(line, profile=line.profile.replace(notes=start.notes))
    start = start.replace(gpu=engine.kind.name, engine=f"{engine.engine} {engine.engine_version}", line=None)
    return fit_scales(
        points,
        lambda profile: StepModel(engine, profile=profile),
        start=start,
        max_num_batched_tokens=engine.max_num_batched_tokens,
    )


async def _measure(url: str, probe: Probe, options: RequestOptions, *, seed: int) -> list[Point]:
    """The points that one probe gives; none when it failed (a prompt too long for the engine, say)."""
    workload = Workload.model_validate(
        {
            "users": probe.users,
            "requests": probe.users * probe.repeats,
            "prompt": probe.prompt,
            "output": probe.output,
            "seed": seed,
        }
    )
    try:
        table = (await measure_load(url, workload, options=options)).table
    except NoMeasurement:
        return []
    return list(points_of(table, probe))


def points_of(table: RecordTable, probe: Probe) -> Iterator[Point]:
    """Prompt points from answers of two tokens, a decode point from longer ones."""
    ok = [row for row, outcome in enumerate(table.outcome) if outcome == Outcome.OK]
    if len(ok) < probe.users * probe.repeats:
        return
    if probe.output <= 2:
        waits = [float(table.first_token_s[row] - table.sent_s[row]) for row in ok]
        yield PromptPoint(tokens=int(np.median(table.prompt_tokens[ok])), seconds=min(waits))  # what disturbs only adds
        return
    point = _decode_point(table, ok)
    if point is not None:
        yield point


def _decode_point(table: RecordTable, rows: Sequence[int]) -> DecodePoint | None:
    """Steps in which all of them were decoding: from the last first token to the first last token."""
    start = float(table.first_token_s[rows].max())
    end = float(table.last_token_s[rows].min())
    gaps, contexts = [], []
    for row in rows:
        times = table.token_times(row)
        inside = times[(times >= start) & (times <= end)]
        if len(inside) < 4 or inside[-1] <= inside[0]:
            return None
        share = int(table.output_tokens[row]) / len(times)  # tokens a chunk, as usage tells
        gaps.append(_typical_gap(inside) / share)
        contexts.append(int(table.prompt_tokens[row]) + share * float(np.searchsorted(times, np.median(inside))))
    return DecodePoint(sequences=len(rows), context=float(sum(contexts)), seconds=float(np.median(gaps)))


def _typical_gap(times: Floats) -> float:
    """Mean gap in each of up to eight stretches of the stream, and of those the median.

    Single gaps tell little: a busy machine hands out tokens late and then several at once. Where even whole stretches
    come at once, only the mean over all is left.
    """
    marks = np.linspace(0, len(times) - 1, min(8, (len(times) - 1) // 2) + 1).round().astype(int)
    typical = float(np.median(np.diff(times[marks]) / np.diff(marks)))
    mean = float(times[-1] - times[0]) / (len(times) - 1)
    return typical if typical > mean / 2 else mean
