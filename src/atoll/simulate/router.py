"""Which replica gets the request: nginx's ways, bit by bit, and one that nginx does not have.

Round robin, least_conn and random two follow src/http/ngx_http_upstream_round_robin.c and
modules/ngx_http_upstream_{least_conn,random,hash}_module.c of nginx, failures included: a replica with `max_fails`
failures is left alone for `fail_timeout`, then tried again. Without a `zone` every worker process counts for itself.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atoll.layout.affinity import Homes
from atoll.layout.layout import Policy, Router
from atoll.simulate.job import Job
from atoll.simulate.ring import Ring

_STEPS = 20  # along the ring of hashes, before nginx takes any replica that is left


@dataclass(slots=True)
class Peer:
    """What an nginx worker (or, with a zone, all of them) knows of one replica."""

    number: int
    weight: int
    effective: int
    current: int = 0
    conns: int = 0
    fails: int = 0
    accessed: int = 0
    checked: int = 0
    tokens: int = 0  # prompt and answer of the requests it has; nginx does not know


@dataclass(slots=True)
class Peers:
    """The counters of one worker, or the shared ones."""

    peers: list[Peer]
    max_fails: int
    fail_timeout: float
    alike: bool  # all of the same weight
    has_failed: bool = False  # since all were last known to be well

    def usable(self, tried: Collection[int], now: int) -> list[Peer]:
        """Those not tried for this request and not left alone after failures."""
        self.has_failed = any(peer.fails for peer in self.peers)
        return [
            peer
            for peer in self.peers
            if peer.number not in tried and not (self._is_failing(peer) and now - peer.checked <= self.fail_timeout)
        ]

    def _is_failing(self, peer: Peer) -> bool:
        return bool(self.max_fails) and peer.fails >= self.max_fails and len(self.peers) > 1


class VirtualRouter:
    """The router of a layout. Every `choose` that gives a replica is followed by one `release`."""

    def __init__(
        self, router: Router, weights: Sequence[int], rng: np.random.Generator, homes: Homes | None = None
    ) -> None:
        """`homes` is for the policies by hash; without it they choose as least_conn does."""
        self._router = router
        self._rng = rng
        self._pick = _PICKS[Policy.LEAST_CONN if router.policy.is_affine else router.policy]
        shared = router.shared_zone or not router.policy.renders or homes is not None
        alike = len(set(weights)) == 1
        self._workers = [
            Peers([Peer(n, w, w) for n, w in enumerate(weights)], router.max_fails, router.fail_timeout_s, alike)
            for _ in range(1 if shared else router.workers)
        ]
        self._homes = None if homes is None else HashedPeers(self._workers[0], homes, weights)
        # Where all are hot, a second upstream takes over, with counters of its own.
        self._rest = Peers(
            [replace(peer) for peer in self._workers[0].peers], router.max_fails, router.fail_timeout_s, alike
        )

    def worker(self) -> int:
        """The nginx worker that takes a new request: the kernel gives connections to any of them."""
        return int(self._rng.integers(len(self._workers))) if len(self._workers) > 1 else 0

    def choose(self, job: Job, *, worker: int, now: float, tried: Collection[int] = ()) -> int | None:
        """The replica for this request; None when no live one is left, which nginx answers with 502.

        Args:
            job: what is sent.
            worker: who sends it.
            now: seconds; nginx counts whole ones.
            tried: replicas that have failed this request.
        """
        peers, second = self._workers[worker], int(now)
        if self._homes is not None:
            home = self._homes.choose(job, second, tried)
            job.spilled = home is None
            if home is not None:
                return self._take(self._homes.peers, home, job, second)
            peers, tried = self._rest, ()
        usable = peers.usable(tried, second) if tried or peers.has_failed else peers.peers
        if not usable:
            for peer in peers.peers:
                peer.fails = 0  # "all peers failed, mark them as live for quick recovery"
            return None
        best = usable[0] if len(peers.peers) == 1 else self._pick(peers, usable, job, self._rng)
        return self._take(peers, best, job, second)

    def _take(self, peers: Peers, peer: Peer, job: Job, second: int) -> int:
        if second - peer.checked > peers.fail_timeout:
            peer.checked = second
        peer.conns += 1
        peer.tokens += job.prompt_tokens + job.output_tokens
        return peer.number

    def release(self, number: int, job: Job, *, worker: int, now: float, failed: bool = False) -> None:
        """The replica has answered, or refused."""
        peers = self._rest if job.spilled else self._workers[worker]
        peer = peers.peers[number]
        peer.conns -= 1
        peer.tokens -= job.prompt_tokens + job.output_tokens
        if failed:
            peer.fails += 1
            peers.has_failed = True
            peer.accessed = peer.checked = int(now)
            if peers.max_fails:
                peer.effective = max(0, peer.effective - peer.weight // peers.max_fails)
        elif peer.accessed < peer.checked:
            peer.fails = 0


class HashedPeers:
    """nginx's `hash KEY consistent` with `max_conns`: a key's own replica, or the next on the ring that is not hot."""

    def __init__(self, peers: Peers, homes: Homes, weights: Sequence[int]) -> None:
        self.peers = peers
        self._hot = homes.hot
        self._ring = Ring(homes.servers, weights)

    def choose(self, job: Job, now: int, tried: Collection[int]) -> Peer | None:
        """None when all are hot, or leave their requests unanswered."""
        usable = {peer.number: peer for peer in self.peers.usable(tried, now) if peer.conns < self._hot[peer.number]}
        if not usable:
            return None
        place = self._ring.place(job.key)
        steps = range(_STEPS + 1) if job.key else ()
        home = next((peer for step in steps if (peer := usable.get(self._ring.server(place + step)))), None)
        return home or smooth_round_robin(self.peers, list(usable.values()))


Pick = Callable[[Peers, list[Peer], Job, np.random.Generator], Peer]


def smooth_round_robin(_: Peers, usable: list[Peer], *__: object) -> Peer:
    """Weights (5, 1, 1) give a a b a c a a, not a a a a a b c."""
    total, best = 0, usable[0]
    for peer in usable:
        peer.current += peer.effective
        total += peer.effective
        if peer.effective < peer.weight:
            peer.effective += 1
        if peer.current > best.current:
            best = peer
    best.current -= total
    return best


def least_connections(peers: Peers, usable: list[Peer], job: Job, rng: np.random.Generator) -> Peer:
    """Fewest connections for its weight; among equals smooth round robin."""
    if peers.alike:
        fewest = min([peer.conns for peer in usable])
        equals = [peer for peer in usable if peer.conns == fewest]
    else:
        equals = _least_for_their_weight(usable)
    return smooth_round_robin(peers, equals, job, rng) if len(equals) > 1 else equals[0]


def _least_for_their_weight(usable: list[Peer]) -> list[Peer]:
    best, equals = usable[0], usable[:0]
    for peer in usable:
        mine, its = peer.conns * best.weight, best.conns * peer.weight
        if mine < its:
            best, equals = peer, [peer]
        elif mine == its:
            equals.append(peer)
    return equals


def random_two(peers: Peers, usable: list[Peer], job: Job, rng: np.random.Generator) -> Peer:
    """Two replicas drawn by weight, and of these the one with fewer connections for its weight."""
    if len(usable) < 2:
        return usable[0]
    sums = None if peers.alike else np.cumsum([peer.weight for peer in peers.peers], dtype=np.float64)
    all_usable = len(usable) == len(peers.peers)
    previous: Peer | None = None
    for _ in range(20):  # as often as nginx tries before it falls back to round robin
        peer = peers.peers[_drawn(len(peers.peers), sums, rng)]
        if peer is previous or not (all_usable or peer in usable):
            continue
        if previous is None:
            previous = peer
            continue
        return previous if peer.conns * previous.weight > previous.conns * peer.weight else peer
    return smooth_round_robin(peers, usable, job, rng)


def _drawn(count: int, sums: NDArray[np.float64] | None, rng: np.random.Generator) -> int:
    """The place of a replica drawn by weight; `sums` are the weights added up, None where all are the same."""
    if sums is None:
        return int(rng.random() * count)
    return int(np.searchsorted(sums, rng.random() * sums[-1], side="right"))


def fewest_tokens(_: Peers, usable: list[Peer], __: Job, ___: np.random.Generator) -> Peer:
    """The shortest queue in tokens, answers included: no real router knows these, it shows what knowing would give."""
    return min(usable, key=lambda peer: (peer.tokens * usable[0].weight / peer.weight, peer.conns, peer.number))


_PICKS: dict[Policy, Pick] = {
    Policy.ROUND_ROBIN: smooth_round_robin,
    Policy.PER_ISLAND: smooth_round_robin,
    Policy.LEAST_CONN: least_connections,
    Policy.RANDOM_TWO: random_two,
    Policy.SHORTEST_QUEUE: fewest_tokens,
}
