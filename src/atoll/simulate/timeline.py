"""The heap of events and the virtual now."""

import heapq
from collections.abc import Callable

ARRIVAL = -1  # rank of everything that comes from outside the replicas


class Timeline:
    """Events in order of time; at the same moment the lower rank first, then who came first.

    An event's rank is the number of the replica whose step ends, or ARRIVAL. So what happens at one moment does not
    depend on when its events were put here, and many steps may be put here as one.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.rank = ARRIVAL  # of the event that is happening
        self._heap: list[tuple[float, int, int, Callable[[int], None], int]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[int], None], argument: int = 0, *, rank: int = ARRIVAL) -> None:
        """Call `action(argument)` then."""
        self._count += 1
        heapq.heappush(self._heap, (when, rank, self._count, action, argument))

    def run(self, until: float = float("inf")) -> None:
        """Let time pass until nothing is left to happen, or nothing before `until`."""
        heap = self._heap
        while heap and heap[0][0] < until:
            self.now, self.rank, _, action, argument = heapq.heappop(heap)
            action(argument)
