"""Which files?"""

from atoll.render.bundle import Bundle

__all__ = ["Bundle"]
