"""The noun that all share: Layout, with its replicas, router and flags; Study."""

from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router

__all__ = ["EngineFlags", "Layout", "Policy", "Replica", "Router"]
