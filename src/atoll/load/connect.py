"""Opening connections: names resolved once, TLS, a proxy when one was asked for; one plain question before a run."""

import asyncio
import contextlib
import json
import resource
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.errors import InputError, RunFailed
from atoll.load.answer import Answer
from atoll.load.client import Connection, classify
from atoll.load.error_text import error_text
from atoll.load.message import head_lines, proxy_address, proxy_headers
from atoll.load.reader import Reader
from atoll.load.target import RequestOptions, Target
from atoll.outside.certificates import trust_only


@dataclass(frozen=True, slots=True)
class Address:
    """A resolved address, as `socket` wants it."""

    family: int
    where: tuple[Any, ...]


class Dialer:
    """Makes connections to one target."""

    def __init__(self, target: Target, options: RequestOptions, reader: Reader | None = None) -> None:
        """Raises InputError for a proxy or a certificate file that cannot be used.

        Args:
            target: where to.
            options: how.
            reader: reads plain sockets; None leaves them to the event loop, as those with TLS are.
        """
        self._target = target
        self._reader = reader
        self._asking = options
        self._tls = _tls_context(options) if target.tls else None
        self._proxy = proxy_address(options)
        self._addresses: list[Address] = []

    @property
    def is_resolved(self) -> bool:
        return bool(self._addresses)

    async def resolve(self) -> None:
        """Look the name up, once for the run; raises RunFailed when it is not known."""
        host, port = self._proxy or (self._target.host, self._target.port)
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except socket.gaierror as error:
            raise RunFailed(
                f"{host} is not known (dns): {error.strerror}. Give a URL such as http://127.0.0.1:8000."
            ) from None
        self._addresses = [Address(family, where) for family, _, _, _, where in found]

    async def connect(self, connection: Connection) -> None:
        """Open it; raises OSError (ssl.SSLError and TimeoutError are such) when that fails."""
        async with asyncio.timeout(self._asking.timeouts.connect_s):
            plain = await self._open_socket()
            try:
                await self._dress(plain, connection)
            except BaseException:
                plain.close()
                raise

    async def _dress(self, plain: socket.socket, connection: Connection) -> None:
        if self._tls is None and self._reader is not None:
            connection.use_socket(plain, self._reader)
            return
        loop = asyncio.get_running_loop()
        if self._proxy is not None and self._tls is not None:
            await _tunnel(plain, self._target, self._asking)
        name = self._target.host if self._tls is not None else None
        await loop.create_connection(lambda: connection, sock=plain, ssl=self._tls, server_hostname=name)

    async def _open_socket(self) -> socket.socket:
        """The first address that takes us; the one that did comes first next time."""
        failure: OSError | None = None
        for address in list(self._addresses):
            plain = socket.socket(address.family, socket.SOCK_STREAM)
            plain.setblocking(False)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                await asyncio.get_running_loop().sock_connect(plain, address.where)
            except OSError as error:
                plain.close()
                failure = failure or error
            except BaseException:
                plain.close()
                raise
            else:
                if address is not self._addresses[0]:
                    self._addresses.remove(address)
                    self._addresses.insert(0, address)
                return plain
        raise failure or OSError("no address")


def _tls_context(options: RequestOptions) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        raise InputError(f"{options.ca_file} is no usable certificate file: {error}.") from None
    if options.certificate is not None:
        trust_only(context, Path(options.certificate))
    if not options.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def _tunnel(plain: socket.socket, target: Target, options: RequestOptions) -> None:
    """Ask the proxy for a tunnel to the target; raises ConnectionRefusedError when it does not give one."""
    loop = asyncio.get_running_loop()
    where = f"[{target.host}]:{target.port}" if ":" in target.host else f"{target.host}:{target.port}"
    headers = "".join(f"{name}: {value}\r\n" for name, value in ({"Host": where} | proxy_headers(options)).items())
    await loop.sock_sendall(plain, f"CONNECT {where} HTTP/1.1\r\n{headers}\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head and len(head) < 65536:
        data = await loop.sock_recv(plain, 4096)
        if not data:
            break
        head += data
    status = head.split(b" ", 2)[1:2]
    if status != [b"200"]:
        raise ConnectionRefusedError(None, f"the proxy gives no tunnel: {head[:100].decode('latin-1')!r}")


async def ask_plainly(
    dialer: Dialer, target: Target, options: RequestOptions, path: str, *, now: Callable[[], float], body: object = None
) -> Any:
    """The JSON of a GET, or of a POST when there is a body, over a connection of its own.

    Raises:
        RunFailed: there is no answer, or it is none of JSON; the sentence has the reason.
    """
    text = await ask_for_text(dialer, target, options, path, now=now, body=body)
    with contextlib.suppress(ValueError):
        return json.loads(text)
    raise RunFailed(f"{target.origin}{path} did not answer with JSON. Is this an OpenAI-compatible server?")


async def ask_for_text(
    dialer: Dialer, target: Target, options: RequestOptions, path: str, *, now: Callable[[], float], body: object = None
) -> str:
    """The body of an answer 200, as text; raises RunFailed with the reason when there is none."""
    ended = asyncio.Event()
    answer = Answer(streaming=False, whole_only=True)
    connection = Connection(answer, now=now, on_end=lambda _: ended.set(), on_first=lambda _: None)
    url = f"{target.origin}{path}"
    try:
        await dialer.connect(connection)
        connection.busy = True
        connection.send(_plain_message(target, options, path, body))
        async with asyncio.timeout(options.timeouts.connect_s):
            await ended.wait()
    except OSError as error:
        word, sentence = classify(error)
        raise RunFailed(f"{url} did not answer: {sentence} ({word}).") from None
    finally:
        connection.busy = False
        connection.close()
    problem = connection.failure or answer.problem
    if answer.status != 200 or problem is not None:
        said = problem[1] if problem else error_text(answer.body)
        raise RunFailed(f"{url} answered {answer.status or 'nothing'}: {said}")
    return answer.body.decode("utf-8", errors="replace")


def _plain_message(target: Target, options: RequestOptions, path: str, body: object) -> bytes:
    if body is None:
        return (head_lines("GET", path, target, options) + "\r\n").encode()
    data = json.dumps(body).encode()
    return (head_lines("POST", path, target, options) + f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def allow_open_files(wanted: int) -> None:
    """Raise this process's limit of open files as far as its owner may; raises InputError when that is not enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= wanted:
        return
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise InputError(
            f"{wanted} open files are needed and this process may have {hard}. Raise it with `ulimit -n {wanted}`."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
