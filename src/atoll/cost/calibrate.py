"""Measured points of one engine -> a machine profile that makes the step model agree with them.

Two kinds of points: seconds of a decode step at so many sequences of so long a context, and seconds from sending a
prompt of so many tokens to its first token. With a card that the catalogue knows, the profile scales what the kernel
tables say, so it holds for other splits and models on that machine too; without, it is a straight line through the
points, which holds for more replicas of the same engine.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.cost.profile import Line, MachineProfile
from atoll.cost.step import StepBatch, StepModel

Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class DecodePoint:
    """Mean seconds of decode steps: `sequences` at once, `context` tokens in all on average."""

    sequences: int
    context: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptPoint:
    """Seconds from a request's sending to its first token, on an idle engine."""

    tokens: int
    seconds: float


Point = DecodePoint | PromptPoint


@dataclass(frozen=True, kw_only=True, slots=True)
class FittedProfile:
    """A profile and how well it agrees: predicted over measured, less one, for every point."""

    profile: MachineProfile
    points: tuple[Point, ...]
    errors: tuple[float, ...]

    @property
    def mean_error(self) -> float:
        return float(np.mean(np.abs(self.errors))) if self.errors else 0.0


# What is fitted, where the search starts, and how far from there a value may well lie (in e-foldings): a point measured
# to 0.3 % outweighs the start at once, but what no point tells stays where it was. Where the host's time is not hidden
# (before 0.14) no point tells it from the time to read the weights; hosts differ more, so most of it goes there.
_NAMES = ("weights_time", "compute_time", "attention_time", "host_step_s", "host_sequence_s", "front_s")
_SPREAD = np.array([0.2, 0.3, 0.5, 1.0, 1.0, 1.5])
_TRUST = 0.003  # relative error of a measured point
_OUTLIER = 6.0
_ROUNDS = 60

ModelMaker = Callable[[MachineProfile], StepModel]


def predict_point(model: StepModel, point: Point, *, max_num_batched_tokens: int = 8192) -> float:
    """What the model says of a measured point, seconds."""
    if isinstance(point, DecodePoint):
        return model.decode_lines(point.sequences).at(point.context)
    done, seconds = 0, model.front_seconds(point.tokens)
    while done < point.tokens:
        chunk = min(max_num_batched_tokens, point.tokens - done)
        seconds += model.seconds(StepBatch(prefills=((chunk, done),)))
        done += chunk
    return seconds


def fit_scales(
    points: Sequence[Point], make_model: ModelMaker, *, start: MachineProfile, max_num_batched_tokens: int = 8192
) -> FittedProfile:
    """Scale factors and host times that bring the catalogue's model to the measured points.

    Least squares on relative errors with a weak pull towards the catalogue, by Levenberg and Marquardt's method
    (numerical derivatives; six unknowns); points far off count less (pseudo-Huber).

    Args:
        points: at least one.
        make_model: a step model of the measured engine under a profile.
        start: a profile to start from; what is not fitted is kept.
        max_num_batched_tokens: the engine's, for prompts longer than one step takes.
    """
    measured = np.array([point.seconds for point in points])
    base = _base(make_model(start))

    def misses(x: Floats) -> Floats:
        model = make_model(_profile_at(x, base, start))
        predicted = [predict_point(model, point, max_num_batched_tokens=max_num_batched_tokens) for point in points]
        return np.concatenate([_tamed((np.array(predicted) / measured - 1) / _TRUST), x / _SPREAD])

    best = _least_squares(misses, np.zeros(len(_NAMES)))
    profile = _profile_at(best, base, start)
    model = make_model(profile)
    predicted = [predict_point(model, point, max_num_batched_tokens=max_num_batched_tokens) for point in points]
    errors = np.array(predicted) / measured - 1
    return _finish(profile, points, errors)


def _tamed(misses: Floats) -> Floats:
    """Squares grow like a straight line beyond six times the trusted error, so one disturbed point pulls little."""
    soft = 2 * _OUTLIER**2 * (np.sqrt(1 + (misses / _OUTLIER) ** 2) - 1)
    tamed: Floats = np.sign(misses) * np.sqrt(soft)
    return tamed


def _base(model: StepModel) -> Floats:
    """Where the search starts: factors of one, the catalogue's host times."""
    host = model.host
    return np.array([1.0, 1.0, 1.0, max(host.step_s, 1e-6), max(host.sequence_s, 1e-8), 3e-3])


def _profile_at(x: Floats, base: Floats, start: MachineProfile) -> MachineProfile:
    values = base * np.exp(np.clip(x, -5, 5))
    return start.model_copy(update=dict(zip(_NAMES, map(float, values), strict=True)))


def _least_squares(misses: Callable[[Floats], Floats], x: Floats) -> Floats:
    damping, current = 1e-2, misses(x)
    for _ in range(_ROUNDS):
        slopes = _slopes(misses, x, current)
        square, pull = slopes.T @ slopes, slopes.T @ current
        step = np.linalg.solve(square + damping * np.diag(np.diag(square) + 1e-12), -pull)
        tried = misses(x + step)
        if tried @ tried < current @ current:
            done = current @ current - tried @ tried < 1e-9 * (current @ current)
            x, current, damping = x + step, tried, damping / 3
            if done:
                break
        else:
            damping *= 4
            if damping > 1e8:
                break
    return x


def _slopes(misses: Callable[[Floats], Floats], x: Floats, here: Floats) -> Floats:
    columns = []
    for place in range(len(x)):
        moved = x.copy()
        moved[place] += 1e-3
        columns.append((misses(moved) - here) / 1e-3)
    return np.stack(columns, axis=1)


def fit_line(points: Sequence[Point], *, tensor_parallel: int = 1, max_num_batched_tokens: int = 8192) -> FittedProfile:
    """A straight line through the points, for a card that no table knows; no coefficient below zero."""
    rows = np.array([_features(point, max_num_batched_tokens) for point in points])
    seconds = np.array([point.seconds for point in points])
    coefficients = _positive_least_squares(rows / seconds[:, None], np.ones(len(points)))
    step, decode, context, token, pair, front = (float(value) for value in coefficients)
    line = Line(
        tensor_parallel=tensor_parallel,
        step_s=step,
        per_decode_s=decode,
        per_context_token_s=context,
        per_prompt_token_s=token,
        per_pair_s=pair,
    )
    return _finish(MachineProfile(line=line, front_s=front), points, rows @ coefficients / seconds - 1)


def _features(point: Point, budget: int) -> tuple[float, ...]:
    """Factors of step_s, per_decode_s, per_context_token_s, per_prompt_token_s, per_pair_s, front_s."""
    if isinstance(point, DecodePoint):
        return 1.0, float(point.sequences), point.context, 0.0, 0.0, 0.0
    steps = -(-point.tokens // budget)
    return float(steps), 0.0, 0.0, float(point.tokens), point.tokens**2 / 2, 1.0


def _positive_least_squares(rows: Floats, wanted: Floats) -> Floats:
    """Least squares with coefficients of at least zero: those that want to be negative are taken out, worst first."""
    scale = np.linalg.norm(rows, axis=0)
    scale[scale == 0] = 1.0
    active = list(range(rows.shape[1]))
    while True:
        found, *_ = np.linalg.lstsq(rows[:, active] / scale[active], wanted, rcond=1e-10)
        if not len(found) or found.min() >= 0:
            break
        active.pop(int(found.argmin()))
    coefficients = np.zeros(rows.shape[1])
    coefficients[active] = found / scale[active]
    return coefficients


def _finish(profile: MachineProfile, points: Sequence[Point], errors: Floats) -> FittedProfile:
    mean = float(np.mean(np.abs(errors)))
    return FittedProfile(
        profile=profile.model_copy(update={"fit_error": round(mean, 5), "points": len(points)}),
        points=tuple(points),
        errors=tuple(float(error) for error in errors),
    )
