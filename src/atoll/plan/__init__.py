"""Where does it go?"""

from atoll.plan.layout import EngineFlags, Layout, Policy, Replica, Router

__all__ = ["EngineFlags", "Layout", "Policy", "Replica", "Router"]
