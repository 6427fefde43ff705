"""What the rendered door lets through to a replica, by every spelling of a path that nginx understands.

`python tests/render/test_door.py` prints the table: each route by each trick, what the client got, what a replica saw.
"""

import contextlib
import re
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.layout.layout import Policy, Router
from atoll.render.monitoring import door_counters
from atoll.render.nginx import CLIENT_ROUTES
from atoll.render.parts import Part
from render.test_nginx import free_port, needs_nginx, nginx
from stand_ins.layouts import two_pairs


def _words(text: str) -> list[str]:
    return text.split()


# vLLM 0.32: the `@router` lines of the installed package, and its /metrics mount.
NEVER = _words(
    """/metrics /load /version /ping /invocations /tokenize /detokenize /tokenizer_info /kv_event_sources
/start_profile /stop_profile /scale_elastic_ep /is_scaling_elastic_ep /fault_tolerance/status /inference/v1/generate
/pooling /classify /v1/load_lora_adapter /v1/unload_lora_adapter /server_info /reset_prefix_cache /reset_mm_cache
/reset_encoder_cache /collective_rpc /sleep /wake_up /is_sleeping /pause /resume /is_paused /abort_requests
/init_weight_transfer_engine /update_weights /get_world_size /docs /openapi.json /redoc /v1 /v1/"""
)
ALLOWED = _words(
    """/v1/models /v1/chat/completions /v1/completions /v1/responses /v1/responses/resp_1a-b /v1/messages
/v1/responses/resp_1/cancel /v1/messages/count_tokens /v1/embeddings /v1/rerank /v1/score /v1/audio/transcriptions
/v1/audio/translations /v1/audio/speech /health"""
)

TRICKS: dict[str, Callable[[str], str]] = {
    "plain": lambda p: p,
    "trailing slash": lambda p: p + "/",
    "query": lambda p: p + "?x=/v1/models",
    "..%2f": lambda p: p + "/..%2fv1/models",
    "..%2F": lambda p: p + "/..%2Fv1/models",
    "/../": lambda p: p + "/../v1/models",
    "%2e%2e": lambda p: p + "/%2e%2e/v1/models",
    "%2e%2e%2f": lambda p: p + "/%2e%2e%2fv1/models",
    ".%2e": lambda p: p + "/.%2E/v1/models",
    "to health": lambda p: p + "/..%2fhealth",
    "to nginx-health": lambda p: p + "/..%2fnginx-health",
    "from v1": lambda p: "/v1/.." + p,
    "from models": lambda p: "/v1/models/../.." + p,
    "from models, encoded": lambda p: "/v1/models/%2e%2e/%2e%2e" + p,
    "from models, %2f": lambda p: "/v1/models%2f..%2f.." + p,
    "from responses": lambda p: "/v1/responses/.." + p,
    "from responses, %2f": lambda p: "/v1/responses/..%2f..%2f" + p[1:],
    "from responses, twice": lambda p: "/v1/responses/..%252f..%252f" + p[1:],
    "twice encoded dots": lambda p: "/v1/responses/%252e%252e/%252e%252e" + p,
    "double slash": lambda p: "/" + p,
    "double slash inside": lambda p: p.replace("/", "//"),
    "v1 double slash": lambda p: "/v1//" + p[1:],
    "dot": lambda p: "/." + p,
    "trailing dot": lambda p: p + ".",
    "trailing dots": lambda p: p + "/...",
    ";params": lambda p: p + ";/../v1/models",
    ";params before": lambda p: "/;x" + p,
    ";.. ": lambda p: "/v1/models/..;/.." + p,
    "upper case": str.upper,
    "encoded letters": lambda p: "/" + "".join(f"%{ord(c):02x}" for c in p[1:]),
    "encoded slash first": lambda p: "/%2f" + p[1:],
    "backslash": lambda p: "/v1\\.." + p.replace("/", "\\"),
    "%5c": lambda p: "/v1/models%5c..%5c.." + p.replace("/", "%5c"),
    "null byte": lambda p: p + "%00/../v1/models",
    "null byte inside": lambda p: "/v1/models%00/../.." + p,
    "raw null": lambda p: "/v1/models\0" + p,
    "overlong slash": lambda p: "/v1/models%c0%af..%c0%af.." + p,
    "overlong dots": lambda p: "/v1/%c0%ae%c0%ae" + p,
    "line end": lambda p: f"/v1/models%0d%0a%0d%0aGET {p}".replace(" ", "%20"),
    "line end in an id": lambda p: "/v1/responses/x%0d%0aX:1%0d%0a%0d%0aGET%20" + p,
    "tab": lambda p: "/v1/models%09" + p,
    "fragment": lambda p: p + "#/v1/models",
    "fragment after": lambda p: "/v1/models#/../.." + p,
    "%23": lambda p: "/v1/models%23/../.." + p,
    "%3f": lambda p: p + "%3f/../../v1/models",
    "%3f after": lambda p: "/v1/models%3f/../.." + p,
    "absolute form": lambda p: "http://replicas" + p,
    "absolute form, dots": lambda p: "http://127.0.0.1/v1/models/../.." + p,
    "absolute form, ..%2f": lambda p: "http://x" + p + "/..%2fv1/models",
    "scheme of its own": lambda p: "unix:" + p,
    "no slash": lambda p: p[1:],
    "asterisk": lambda p: "*" + p,
    "full width": lambda p: "/v1/models/%ef%bc%8e%ef%bc%8e" + p,
}
FORMS: dict[str, tuple[str, str]] = {
    "GET": ("GET", " HTTP/1.1"),
    "POST": ("POST", " HTTP/1.1"),
    "HTTP/1.0": ("GET", " HTTP/1.0"),
    "HTTP/0.9": ("GET", ""),
    "HEAD": ("HEAD", " HTTP/1.1"),
    "OPTIONS": ("OPTIONS", " HTTP/1.1"),
    "TRACE": ("TRACE", " HTTP/1.1"),
    "CONNECT": ("CONNECT", " HTTP/1.1"),
    "DELETE": ("DELETE", " HTTP/1.1"),
}


@dataclass
class Replica:
    """Keeps the target of every request line as it came."""

    port: int = 0
    targets: list[str] = field(default_factory=list)


@contextlib.contextmanager
def recording() -> Iterator[Replica]:
    """A server that answers 200 to everything; what it was asked for, byte for byte, is kept."""
    seen = Replica()
    door = socket.create_server(("127.0.0.1", 0))
    seen.port = door.getsockname()[1]

    def answer(client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while True:
                while b"\r\n\r\n" not in head:
                    more = client.recv(65536)
                    if not more:
                        return
                    head += more
                first, head = head.split(b"\r\n\r\n", 1)
                seen.targets.append(first.split(b"\r\n", 1)[0].split(b" ", 1)[1].rpartition(b" ")[0].decode("latin-1"))
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    def listen() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(door.accept()[0],), daemon=True).start()

    threading.Thread(target=listen, daemon=True).start()
    try:
        yield seen
    finally:
        door.close()


def ask(port: int, method: str, target: str, version: str) -> str:
    """The status of an answer, byte for byte as asked for; `closed` without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        head = f"{method} {target}{version}\r\n"
        head += "Host: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" if version else ""
        client.sendall(head.encode("latin-1"))
        answer = b""
        with contextlib.suppress(OSError):
            while more := client.recv(65536):
                answer += more
    return answer.split(b" ", 2)[1].decode() if answer.startswith(b"HTTP/") else ("0.9" if answer else "closed")


def is_for_clients(target: str) -> bool:
    path = target.partition("?")[0]
    return path == "/health" or re.fullmatch(f"/v1/({'|'.join(CLIENT_ROUTES)})", path) is not None


@contextlib.contextmanager
def door(folder: Path, policy: Policy, more: Sequence[Part] = ()) -> Iterator[tuple[int, Replica]]:
    layout = two_pairs(router=Router(policy=policy))
    with recording() as replica, nginx(layout, [replica.port, replica.port + 1], folder, more=more) as port:
        yield port, replica


def try_all(
    folder: Path, policy: Policy = Policy.LEAST_CONN, more: Sequence[Part] = ()
) -> Iterator[tuple[str, str, str, str, str, list[str]]]:
    """Route, trick, form, target, the client's status, what a replica saw."""
    with door(folder, policy, more) as (port, replica):
        cases = [(r, t, "GET") for r in NEVER for t in TRICKS]
        cases += [(r, t, f) for r in NEVER[:1] for t in TRICKS for f in FORMS if f != "GET"]
        cases += [(r, "plain", f) for r in NEVER for f in FORMS if f != "GET"]
        for route, trick, form in cases:
            method, version = FORMS[form]
            target = TRICKS[trick](route)
            before = len(replica.targets)
            status = ask(port, method, target, version)
            yield route, trick, form, target, status, replica.targets[before:]


@needs_nginx
@pytest.mark.parametrize(
    ("policy", "watched"),
    [(Policy.LEAST_CONN, False), (Policy.SESSION_AFFINITY, False), (Policy.PREFIX_AFFINITY, True)],
)
def test_nothing_but_what_is_for_clients_reaches_a_replica_however_it_is_spelled(policy, watched, tmp_path):
    tried, through = 0, []
    more = (door_counters(free_port()),) if watched else ()
    for route, trick, form, target, status, seen in try_all(tmp_path, policy, more):
        tried += 1
        for arrived in seen:
            through.append(arrived)
            assert is_for_clients(arrived), (route, trick, form, target, status, arrived)
    assert tried > 1_500
    assert "/v1/models" in through  # a path that becomes an allowed one arrives as that


@needs_nginx
@pytest.mark.parametrize("route", ALLOWED)
def test_what_is_for_clients_arrives_as_it_was_sent(route, tmp_path):
    with door(tmp_path, Policy.LEAST_CONN) as (port, replica):
        for target in (route, f"{route}?after=%2e%2e/x&y=%26"):
            assert ask(port, "POST", target, " HTTP/1.1") == "200"
            assert replica.targets[-1] == target


def main() -> None:
    """Print the table of tricks: how many of the routes got which answer, and all that reached a replica."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    arrived: dict[tuple[str, str], set[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for _route, trick, form, _, status, seen in try_all(Path(folder)):
            counts = rows.setdefault((trick, form), {})
            counts[status] = counts.get(status, 0) + 1
            arrived.setdefault((trick, form), set()).update(seen)
    wrong = 0
    for key, counts in rows.items():
        reached = sorted(arrived[key])
        wrong += sum(not is_for_clients(target) for target in reached)
        words = ", ".join(f"{count} x {status}" for status, count in sorted(counts.items()))
        sys.stdout.write(f"{key[0]:24} {key[1]:9} {words:28} {' '.join(reached) or '-'}\n")
    total = sum(sum(counts.values()) for counts in rows.values())
    sys.stdout.write(f"{total} requests; {wrong} of what reached a replica was not for clients\n")


if __name__ == "__main__":
    main()
