"""A proxy when one is asked for, and only then."""

import asyncio
import threading
from base64 import b64decode

import pytest
import uvloop

from atoll.load.run import measure_load
from atoll.load.target import RequestOptions, Timeouts
from atoll.traffic.workload import Workload
from stand_ins.patience import PATIENCE_S
from stand_ins.turns import take_in_what_came

LOAD = Workload(users=2, requests=6, prompt=8, output=4, start="at_once")


class Proxy:
    """Passes plain HTTP on when the request line has a whole URL, and tunnels CONNECT. Anything else is 400."""

    def __init__(self):
        self.lines, self.passwords = [], []
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _serve(self):
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._loop, self._end, self._talks = asyncio.get_running_loop(), asyncio.Event(), set()
        self._ready.set()
        await self._end.wait()
        await take_in_what_came()
        server.close()
        for talk in list(self._talks):
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    def close(self):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(PATIENCE_S)

    async def _talk(self, reader, writer):
        self._talks.add(asyncio.current_task())
        there = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            method, target, _ = head.split(b" ", 2)
            self.lines.append((method.decode(), target.decode()))
            self._note_password(head)
            if method != b"CONNECT" and not target.startswith(b"http://"):
                writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                return
            where = target if method == b"CONNECT" else target.split(b"/")[2]
            host, _, port = where.decode().rpartition(":")
            from_there, there = await asyncio.open_connection(host, int(port))
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = asyncio.create_task(self._pass(from_there, writer))
            if method == b"CONNECT":
                await self._pass(reader, there)
            else:
                await self._pass_on(head, reader, there)
            await back
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._talks.discard(asyncio.current_task())
            for end in (writer, there):
                if end is not None:
                    end.close()

    async def _pass_on(self, head, reader, there):
        """Requests as the server wants them, one after the other."""
        while True:
            line, _, rest = head.partition(b"\r\n")
            method, target, version = line.split(b" ")
            self.lines.append((method.decode(), target.decode()))
            lengths = [int(item[15:]) for item in rest.lower().split(b"\r\n") if item.startswith(b"content-length:")]
            there.write(b"%s /%s %s\r\n%s" % (method, target.split(b"/", 3)[3], version, rest))
            there.write(await reader.readexactly(sum(lengths)))
            head = await reader.readuntil(b"\r\n\r\n")

    def _note_password(self, head):
        for line in head.decode().split("\r\n"):
            if line.lower().startswith("proxy-authorization: basic "):
                self.passwords.append(b64decode(line.split()[-1]).decode())

    async def _pass(self, reader, writer):
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()


@pytest.fixture
def proxy():
    server = Proxy()
    yield server
    server.close()


def run(url, **options):
    work = measure_load(
        url, LOAD, options=RequestOptions(model="m", timeouts=Timeouts(connect_s=PATIENCE_S), **options)
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(work).table


def test_plain_http_goes_through_a_proxy_with_the_whole_url(naughty, proxy):
    table = run(naughty.url, proxy=f"http://ann:s%40me@127.0.0.1:{proxy.port}")
    assert table.outcome == ("ok",) * 6
    assert ("POST", f"{naughty.url}/v1/chat/completions") in proxy.lines
    assert not any(method == "CONNECT" for method, _ in proxy.lines)
    assert set(proxy.passwords) == {"ann:s@me"}
    assert all(head.startswith(("POST /v1/", "GET /")) for head in naughty.heads)


def test_https_goes_through_a_tunnel(naughty_tls, proxy):
    table = run(naughty_tls.url, proxy=f"127.0.0.1:{proxy.port}", verify_tls=False)
    assert table.outcome == ("ok",) * 6
    assert {line for line in proxy.lines if line[0] == "CONNECT"} == {("CONNECT", naughty_tls.url[8:])}
    assert len(naughty_tls.asked) == 6


def test_a_redirect_behind_a_proxy_is_followed_with_the_whole_url(naughty, proxy):
    naughty.manner = "redirect_once"
    assert run(naughty.url, proxy=f"http://127.0.0.1:{proxy.port}").outcome == ("ok",) * 6
    assert ("POST", f"{naughty.url}/elsewhere") in proxy.lines


def test_a_proxy_of_the_environment_is_not_used(naughty, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert run(naughty.url).outcome == ("ok",) * 6


def test_a_proxy_that_nobody_answers_at_is_a_failure_of_its_own_class(naughty):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        table = run(naughty.url, proxy=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert set(table.error) == {"connection_refused"}
    assert naughty.asked == []
