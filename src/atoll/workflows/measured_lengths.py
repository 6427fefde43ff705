"""How the lengths of prompts and answers of a measured row are drawn, by the words of its column `length_spread`."""

from collections.abc import Callable
from math import log
from statistics import NormalDist

from atoll.traffic.workload import Lengths

# "sharegpt": conversations of 4 to 1024 tokens in, 2048 in all (vllm/benchmarks/datasets.py).
SHAREGPT_SIGMA, SHAREGPT_LONGEST = 1.0, 1024
# "0.8-1.0": the longest length is given, and prompts and answers are drawn from 0.8 of it to all of it
# (InferenceX benchmark_serving.py, --random-range-ratio 0.8; its totals are 0.87 to 0.9 of the nominal ones).
RANDOM_RANGE = 0.8

Spread = Callable[[float], Lengths]


def _fixed_lengths(mean: float) -> Lengths:
    return Lengths(kind="fixed", mean=max(1.0, mean))


def _nominal_lengths(longest: float) -> Lengths:
    """Where nobody says: a round number is a sweep's nominal length, anything else a measured mean."""
    if longest < 64 or longest != int(longest) or (int(longest) % 4 and int(longest) % 50):
        return _fixed_lengths(longest)
    return _ranged_lengths(longest)


def _ranged_lengths(longest: float) -> Lengths:
    low = int(RANDOM_RANGE * longest)
    return Lengths(kind="uniform", mean=(low + longest) / 2, low=low, high=int(longest))


def _drawn_lengths(mean: float) -> Lengths:
    """Lognormal with this mean after clipping, as ShareGPT's lengths are."""
    if mean >= 0.6 * SHAREGPT_LONGEST:
        return _fixed_lengths(mean)
    low, high = mean, 3 * mean
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _clipped_mean(middle) < mean else (low, middle)
    return Lengths(kind="lognormal", mean=low, sigma=SHAREGPT_SIGMA, low=4, high=SHAREGPT_LONGEST)


def mean_of(lengths: Lengths) -> float:
    return _clipped_mean(lengths.mean) if lengths.kind == "lognormal" else lengths.mean


def _clipped_mean(mean: float) -> float:
    """Mean of a lognormal above SHAREGPT_LONGEST cut down to it."""
    mu, sigma, top = log(mean) - SHAREGPT_SIGMA**2 / 2, SHAREGPT_SIGMA, log(SHAREGPT_LONGEST)
    normal = NormalDist()
    return mean * normal.cdf((top - mu) / sigma - sigma) + SHAREGPT_LONGEST * (1 - normal.cdf((top - mu) / sigma))


SPREADS: dict[str, Spread] = {
    "": _nominal_lengths,
    "fixed": _fixed_lengths,
    "0.8-1.0": _ranged_lengths,
    "sharegpt": _drawn_lengths,
}
