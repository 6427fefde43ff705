"""What is in this box?"""

from atoll.inventory.box import Box, Gpu, Link, LinkKind

__all__ = ["Box", "Gpu", "Link", "LinkKind"]
