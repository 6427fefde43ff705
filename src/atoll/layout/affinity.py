"""What keeps a session or a prompt's head at one replica: the key, the replicas' names, when one of them is hot.

nginx.conf and the simulator read it here, so that both send the same request to the same replica.
"""

from dataclasses import dataclass
from math import ceil

from atoll.layout.layout import Layout, Policy, Router
from atoll.layout.ports import give_ports
from atoll.layout.weights import router_weights
from atoll.traffic.workload import Workload

SESSION_HEADER = "X-Session-Id"
PREFIX_BYTES = 400  # of the prompt as JSON: a hundred tokens, past a greeting and short of most first questions
HEAT = 1.25  # times an even share of the load: the bound of "consistent hashing with bounded loads" (Mirrokni 2016)
SEATS = 256  # vLLM's own max_num_seqs on most cards, where the layout names none
BYTES_PER_TOKEN = 4  # of English; only to say whether a shared head fills the key


@dataclass(frozen=True, kw_only=True, slots=True)
class Homes:
    """What a router by hash knows of its replicas."""

    servers: tuple[str, ...]  # host:port, as nginx.conf names them
    hot: tuple[int, ...]  # streams at which each is passed over


def find_homes(layout: Layout) -> Homes | None:
    """None where nothing is to be chosen: another policy, or a single replica."""
    if not layout.router.policy.is_affine or len(layout.replicas) == 1:
        return None
    return Homes(servers=server_names(layout), hot=hot_streams(layout))


def server_names(layout: Layout) -> tuple[str, ...]:
    """The replicas as nginx.conf names them: its ring of hashes is made of these names."""
    return tuple(f"{replica.host or '127.0.0.1'}:{replica.port}" for replica in give_ports(layout).replicas)


def hot_streams(layout: Layout) -> tuple[int, ...]:
    """At how many streams each replica counts as hot, so that what belongs to it goes elsewhere.

    Of users, a quarter more than an even share: 30 on two replicas are 19 each. Of a rate, the engine's seats: who
    comes after would wait there. What the layout says goes before either.
    """
    weights = router_weights(layout)
    if layout.router.hot_streams is not None:
        return (layout.router.hot_streams,) * len(weights)
    seats = layout.flags.max_num_seqs or SEATS
    users = layout.workload.users if layout.workload is not None else None
    if users is None:
        return (seats,) * len(weights)
    shares = (ceil(HEAT * users * weight / sum(weights)) for weight in weights)
    return tuple(max(2, min(seats, share)) for share in shares)


def session_header(router: Router) -> str | None:
    """The header that names a session to the router; None where it looks at none."""
    return (router.session_header or SESSION_HEADER) if router.policy is Policy.SESSION_AFFINITY else None


def prefix_bytes(workload: Workload | None) -> int | None:
    """How much of the prompt's head tells sessions apart where all begin with the same words; None: PREFIX_BYTES do.

    Too little would send everybody to one replica. English words with their quotes and escapes are at most some eight
    bytes a token; what is longer than nginx's expressions can hold is cut there.
    """
    if workload is None or workload.turns == 1 or not workload.shared_prefix_tokens:
        return None
    return min(65535, 8 * workload.shared_prefix_tokens + PREFIX_BYTES)


def affinity_key(policy: Policy, *, session: int, number: int, prefix: int, shared_tokens: int, head_bytes: int) -> str:
    """What a simulated request is hashed by.

    With a session header it is what the load generator sends there. For a prompt's head it stands for the text: the
    same where the heads are the same.

    Args:
        policy: by session or by prefix.
        session: of the request; the user where there are no sessions.
        number: what tells its prompt from others: the session's, or the request's where each stands alone.
        prefix: number of the head that is shared.
        shared_tokens: how long that is.
        head_bytes: of the prompt that are looked at.
    """
    if policy is Policy.SESSION_AFFINITY:
        return f"s{session}"
    if shared_tokens * BYTES_PER_TOKEN >= head_bytes:
        return f"p{prefix}"
    return f"p{prefix}-{number}"
