"""Token counts drawn from a distribution: fixed, uniform, lognormal, or taken from a trace."""

import math
import re

import numpy as np

from atoll.errors import BadTraffic
from atoll.traffic.record import Ints
from atoll.traffic.workload import Lengths

_NUMBER = r"(\d+(?:\.\d+)?)"


def parse_lengths(text: str) -> Lengths:
    """`1024`, `200-2000` (uniform), `lognormal:1024:0.8` (mean and sigma) or `trace`.

    Raises:
        BadTraffic: none of these.
        BadDocument: a range that is none.
    """
    if match := re.fullmatch(_NUMBER, text):
        plain: dict[str, object] = {"kind": "fixed", "mean": float(match[1])}
    elif match := re.fullmatch(r"(\d+)-(\d+)", text):
        low, high = int(match[1]), int(match[2])
        plain = {"kind": "uniform", "mean": (low + high) / 2, "low": low, "high": high}
    elif match := re.fullmatch(rf"lognormal:{_NUMBER}:{_NUMBER}", text):
        plain = {"kind": "lognormal", "mean": float(match[1]), "sigma": float(match[2])}
    elif text == "trace":
        plain = {"kind": "trace", "mean": 1.0}
    else:
        raise BadTraffic(f"{text!r} is no length in tokens. Write it like 1024, 200-2000 or lognormal:1024:0.8.")
    return Lengths.from_plain(plain, origin=f"a length of {text} tokens")


def draw_lengths(lengths: Lengths, count: int, rng: np.random.Generator) -> Ints:
    """So many token counts, each at least 1 and within [low, high].

    A lognormal is set by its mean before clipping: mu = ln(mean) - sigma^2 / 2, because a lognormal's mean is
    exp(mu + sigma^2 / 2). Mean 500 with sigma 0.8 has its median at 363.
    """
    if lengths.kind == "fixed":
        drawn = np.full(count, lengths.mean)
    elif lengths.kind == "uniform":
        drawn = rng.integers(lengths.low, _high(lengths), size=count, endpoint=True).astype(np.float64)
    elif lengths.kind == "lognormal":
        mu = math.log(lengths.mean) - lengths.sigma**2 / 2
        drawn = rng.lognormal(mu, lengths.sigma, size=count)
    else:
        raise BadTraffic("lengths of kind trace come with a trace file; none was given.")
    low = max(1, lengths.low)
    high = lengths.high if lengths.high is not None else np.inf
    clipped: Ints = np.clip(np.rint(drawn), low, high).astype(np.int64)
    return clipped


def _high(lengths: Lengths) -> int:
    if lengths.high is None:
        raise BadTraffic("uniform lengths need low and high.")
    return lengths.high
