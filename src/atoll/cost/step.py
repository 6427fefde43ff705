"""Seconds of one engine step."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, slots=True)
class StepBatch:
    """What one engine step computes: prompt chunks and decoding sequences.

    `prefills` holds (new tokens, tokens already in the KV cache) of each prompt chunk. `decodes` sequences get one
    new token each; `decode_context` is the sum of their context lengths, in tokens, the new one not counted.
    """

    prefills: tuple[tuple[int, int], ...] = ()
    decodes: int = 0
    decode_context: int = 0


class StepTimer(Protocol):
    """Seconds of engine steps of one replica. cost.step.StepModel is the real one; tests hand in simple ones."""

    def seconds(self, batch: StepBatch) -> float:
        """Seconds from the start of this step to the start of the next."""
        ...

    def decode_seconds(self, decodes: int, decode_context: int, steps: int) -> NDArray[np.float64]:
        """Seconds of `steps` successive decode-only steps in which every sequence grows by one token a step.

        Element i equals `seconds(StepBatch(decodes=decodes, decode_context=decode_context + i * decodes))` exactly,
        but all are made in one go.
        """
        ...
