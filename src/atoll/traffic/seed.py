"""Seeds of the parts of a test: of each level and each repeat, from one that is written down."""

import numpy as np

LARGEST = 10**9  # so that a person can copy one


def derived_seed(seed: int, *places: int) -> int:
    """The seed of one part: the same for the same places, another one for any other."""
    drawn = np.random.SeedSequence([abs(seed), *places]).generate_state(1)[0]
    return int(drawn) % LARGEST


def fresh_seed(rng: np.random.Generator) -> int:
    """A seed that no run had before, as good as surely."""
    return int(rng.integers(1, LARGEST))
