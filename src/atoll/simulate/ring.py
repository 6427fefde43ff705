"""nginx's `hash KEY consistent`: which replica a key belongs to, and who is next.

After ngx_http_upstream_hash_module.c (1.31): every server has 160 points a unit of weight, each the CRC-32 of its host,
a zero byte, its port and the point before. A key belongs to the first point from its own CRC-32 on.
"""

from bisect import bisect_left
from collections.abc import Sequence
from zlib import crc32

POINTS = 160


class Ring:
    """The points of all servers in order, each with the number of its server."""

    def __init__(self, servers: Sequence[str], weights: Sequence[int]) -> None:
        found: dict[int, int] = {}
        for number, (server, weight) in enumerate(zip(servers, weights, strict=True)):
            for point in points_of(server, weight):
                found.setdefault(point, number)
        self._points = sorted(found)
        self._servers = [found[point] for point in self._points]

    def place(self, key: str) -> int:
        """Where on the ring the key stands; `server` takes it and every place after it."""
        return bisect_left(self._points, crc32(key.encode()))

    def server(self, place: int) -> int:
        return self._servers[place % len(self._servers)]


def points_of(server: str, weight: int) -> list[int]:
    """The points of `host:port`."""
    host, _, port = server.rpartition(":")
    base = crc32(f"{host}\0{port}".encode())
    points, before = [], 0
    for _ in range(weight * POINTS):
        before = crc32(before.to_bytes(4, "little"), base)
        points.append(before)
    return points
