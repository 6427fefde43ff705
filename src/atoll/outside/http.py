"""One async client for the occasional call: a JSON answer, a page of text. The load generator has its own."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import httpx

from atoll.errors import RunFailed
from atoll.outside.certificates import only_this

_LARGEST_ANSWER = 64 * 2**20  # bytes; the weight index of the largest model on the hub has some 10 MB
_LONGEST = 12  # times the patience of one read: an answer that drips ends too


@cache
def _certificates() -> ssl.SSLContext:
    """Those that we trust, read once: it takes 20 ms or more, and a page asks several engines."""
    return httpx.create_ssl_context(trust_env=False)


def _trusted(certificate: Path | None) -> ssl.SSLContext:
    return _certificates() if certificate is None else only_this(certificate)


async def get_text(
    url: str, *, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None, certificate: Path | None = None
) -> str:
    """The body of a GET that answered 200; raises RunFailed with the reason otherwise. Proxies are not used.

    With `certificate`, whoever shows just that one is taken: a door of our own.
    """
    data = bytearray()
    async with httpx.AsyncClient(trust_env=False, timeout=timeout_s, verify=_trusted(certificate)) as client:
        try:
            async with asyncio.timeout(_LONGEST * timeout_s), client.stream("GET", url, headers=headers) as response:
                async for piece in response.aiter_bytes():
                    data += piece
                    if len(data) > _LARGEST_ANSWER:
                        raise RunFailed(f"{url} answered more than {_LARGEST_ANSWER // 2**20} MiB.")
        except httpx.HTTPError as error:
            raise RunFailed(f"{url} did not answer: {error or type(error).__name__}.") from None
        except TimeoutError:
            raise RunFailed(f"{url} did not come to an end in {_LONGEST * timeout_s:g} s.") from None
    text = data.decode("utf-8", errors="replace")
    if response.status_code != 200:
        raise RunFailed(f"{url} answered {response.status_code}: {text[:200]}")
    return text


async def get_json(
    url: str, *, timeout_s: float = 5.0, headers: Mapping[str, str] | None = None, certificate: Path | None = None
) -> Any:
    """The JSON of a GET that answered 200; raises RunFailed with the reason otherwise."""
    text = await get_text(url, timeout_s=timeout_s, headers=headers, certificate=certificate)
    try:
        return httpx.Response(200, text=text).json()
    except ValueError:
        raise RunFailed(f"{url} did not answer with JSON: {text[:200]}") from None


async def post_stream(
    url: str,
    body: Any,
    *,
    headers: Mapping[str, str] | None = None,
    connect_s: float = 10.0,
    silence_s: float = 300.0,
    certificate: Path | None = None,
) -> AsyncIterator[tuple[Mapping[str, str], str]]:
    """The lines of a streamed answer to a JSON POST, each with the answer's headers, as they come.

    Args:
        url: where to.
        body: sent as JSON.
        headers: further ones.
        connect_s: how long to wait for a connection.
        silence_s: ... and for the next line.
        certificate: as for get_text.

    Raises:
        RunFailed: no answer, or another status than 200, with the server's own words.
    """
    limits = httpx.Timeout(silence_s, connect=connect_s)
    async with httpx.AsyncClient(trust_env=False, timeout=limits, verify=_trusted(certificate)) as client:
        try:
            async with client.stream("POST", url, json=body, headers=headers) as response:
                if response.status_code != 200:
                    words = (await response.aread()).decode("utf-8", errors="replace")
                    raise RunFailed(f"{url} answered {response.status_code}: {words[:300]}")
                async for line in response.aiter_lines():
                    yield response.headers, line
        except httpx.HTTPError as error:
            raise RunFailed(f"{url} did not answer: {error or type(error).__name__}.") from None
