"""A module whose import takes a while, so that a signal comes in the middle of it."""

for _ in range(10_000_000):
    pass
