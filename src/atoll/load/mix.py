"""Which model a request asks, where a run asks several, such as a base model and its LoRA adapters."""

from collections.abc import Sequence

import numpy as np

from atoll.load.target import ModelShare
from atoll.traffic.request import Request

_DRAWN = 4096  # then they come again in the same order


class ModelMix:
    """Draws by the shares; the same seed gives the same order. A session keeps its model."""

    def __init__(self, models: Sequence[ModelShare], *, seed: int) -> None:
        self._names: list[str] = []
        if models:
            shares = np.array([model.share for model in models])
            drawn = np.random.default_rng([abs(seed), 6]).choice(len(models), size=_DRAWN, p=shares / shares.sum())
            self._names = [models[place].name for place in drawn]

    def model_of(self, request: Request) -> str | None:
        """None where the run has one model."""
        if not self._names:
            return None
        return self._names[(request.number if request.session is None else request.session) % _DRAWN]
