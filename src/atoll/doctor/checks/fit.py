"""Weights and KV cache against the GPUs that a service pins."""

from atoll.doctor.rule import Rule

RULES: tuple[Rule, ...] = ()
