"""The replicas of one model behind the door: nginx's upstream blocks, and how a request finds its replica."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil

from atoll.errors import InputError
from atoll.layout.affinity import PREFIX_BYTES, SESSION_HEADER, Homes, find_homes
from atoll.layout.layout import Layout, Policy
from atoll.layout.weights import router_weights
from atoll.render.parts import Part
from atoll.units import MIB

LONGEST_CONTEXT = 131072  # where the layout names none
PROMPT_BYTES = 6  # of a token at most: an English word is four, a Korean syllable escaped as \\uXXXX six
MOST_BODY_MIB = 64  # client_max_body_size


@dataclass(frozen=True, kw_only=True, slots=True)
class UpstreamServer:
    """Where replica `number` listens. Ports differ, because the port tells replicas apart in $upstream_addr."""

    number: int
    host: str
    port: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pool:
    """One model's layout and where its replicas listen."""

    layout: Layout
    servers: Sequence[UpstreamServer]
    engine_keep_alive_s: float
    name: str = "replicas"  # of the upstream; with several models each has its own

    @property
    def homes(self) -> Homes | None:
        return find_homes(self.layout)

    @property
    def keep_alive_s(self) -> int:
        """Below the engine's own: a POST that lands on a connection that it closes is a 502 that nobody retries."""
        return max(1, int(self.engine_keep_alive_s * 0.8))

    def check(self) -> None:
        """Raises InputError for a policy that nginx does not have."""
        policy = self.layout.router.policy
        if not policy.renders:
            known = ", ".join(p.value for p in Policy if p.renders)
            raise InputError(f"{self.layout.name}: nginx has no policy {policy.value}; choose one of {known}.")


def upstream_blocks(pool: Pool, *, resolves: bool) -> Iterator[str]:
    """The upstream of the pool; by hash a second one beside it, for when all replicas are hot.

    At max_conns nginx passes a server over, and where all are it answers 502 by itself: the second upstream, without
    caps and by connections, takes over then.
    """
    homes = pool.homes
    if homes is None:
        yield _upstream(pool, pool.name, balancing=_BALANCING.get(pool.layout.router.policy), resolves=resolves)
        return
    key = f"hash {key_variable(pool)} consistent;"
    yield _upstream(pool, pool.name, balancing=key, resolves=resolves, hot=homes.hot)
    yield _upstream(pool, rest_name(pool), balancing="least_conn;", resolves=resolves)


_BALANCING = {
    Policy.LEAST_CONN: "least_conn;",
    Policy.RANDOM_TWO: "random two least_conn;",
    # with one replica there is nothing to choose by hash
    Policy.SESSION_AFFINITY: "least_conn;",
    Policy.PREFIX_AFFINITY: "least_conn;",
}


def _upstream(pool: Pool, name: str, *, balancing: str | None, resolves: bool, hot: Sequence[int] | None = None) -> str:
    router = pool.layout.router
    shared = router.shared_zone or resolves or pool.homes is not None
    lines = [f"zone {name} 256k;  # counters shared by all workers"] if shared else []
    lines += [balancing] if balancing else []
    for place, (server, weight) in enumerate(zip(pool.servers, router_weights(pool.layout), strict=True)):
        words = [f"server {server.host}:{server.port}"]
        words += [f"weight={weight}"] if weight != 1 else []
        words += [f"max_conns={hot[place]}"] if hot is not None else []
        words += [f"max_fails={pool.layout.max_fails}", f"fail_timeout={_show(router.fail_timeout_s)}"]
        words += ["resolve"] if resolves else []
        lines.append(" ".join(words) + ";")
    lines += [
        "keepalive 256;",
        f"keepalive_timeout {pool.keep_alive_s}s;  # below the engine's own",
        "keepalive_requests 100000;",
    ]
    return f"upstream {name} {{\n" + "".join(f"  {line}\n" for line in lines) + "}"


def key_variable(pool: Pool) -> str:
    return f"${pool.name}_key"


def rest_name(pool: Pool) -> str:
    return f"{pool.name}_rest"


def health_name(pool: Pool) -> str:
    """The upstream that says whether a replica can serve, however hot all are."""
    return pool.name if pool.homes is None else rest_name(pool)


def affinity_part(pool: Pool) -> Part:
    """What a policy by hash needs beside its upstreams: the key, and the way to the second upstream."""
    if pool.homes is None:
        return Part()
    hot, rest = f"${pool.name}_hot", rest_name(pool)
    # $upstream_addr ends with the upstream's own name where no server of it was left.
    is_hot = f'map $upstream_addr {hot} {{\n  default "";\n  "~(^|, ){pool.name}$" 1;\n}}'
    location = f"""location @{rest} {{  # every replica is hot: the one with the fewest connections
  if ({hot} = "") {{
    return 502;  # no: they failed
  }}
  rewrite ^ $uri break;
  proxy_pass http://{rest};
}}"""
    return Part(
        http=(*_key_maps(pool), is_hot),
        passing=(f"error_page 502 = @{rest};", "error_page 429 @too_many;"),
        locations=(location,),
    )


def _key_maps(pool: Pool) -> Iterator[str]:
    """The key: the session's name where the policy is by session and there is one, else the head of the prompt.

    Not the client's key or address: a team that shares one would all be sent to one replica.
    """
    router, key = pool.layout.router, key_variable(pool)
    by_session = router.policy is Policy.SESSION_AFFINITY
    head = f"${pool.name}_head" if by_session else key
    size = router.prefix_bytes or PREFIX_BYTES
    yield f"""map $request_body {head} {{  # the first {size} bytes of the prompt; of the body where it has none
  default "";
  "~\\"(messages|prompt|input)\\"\\s*:\\s*(?<{pool.name}_text>[\\s\\S]{{1,{size}}})" ${pool.name}_text;
  "~^(?<{pool.name}_body>[\\s\\S]{{1,{size}}})" ${pool.name}_body;
}}"""
    if not by_session:
        return
    other = head
    if router.session_cookie is not None:
        other = f"${pool.name}_cookie"
        cookie = f"$cookie_{router.session_cookie}"
        yield f'map {cookie} {other} {{\n  "" {head};\n  default {cookie};\n}}'
    header = f"$http_{(router.session_header or SESSION_HEADER).lower().replace('-', '_')}"
    yield f'map {header} {key} {{\n  "" {other};\n  default {header};\n}}'


def body_buffer_mib(pools: Sequence[Pool]) -> int | None:
    """MiB that hold the longest prompt, where one is looked at; None where none is.

    A body that does not fit goes to a file, and its head with it: the same prompt would go round all replicas.
    """
    contexts = [pool.layout.flags.max_model_len or LONGEST_CONTEXT for pool in pools if pool.homes is not None]
    return min(MOST_BODY_MIB, max(1, ceil(max(contexts) * PROMPT_BYTES / MIB))) if contexts else None


def _show(seconds: float) -> str:
    return f"{seconds:g}s" if seconds == int(seconds) else f"{round(seconds * 1000)}ms"
