"""Door: what stands before the engines and is no nginx: where it sends requests, how long it waits for an answer."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.doctor.tree import Node
from atoll.errors import InputError
from atoll.units import parse_seconds


@dataclass(frozen=True, kw_only=True, eq=False)
class Backend:
    """One address that requests are sent to; `model` is what they then ask for, where the door says so."""

    host: str
    port: int | None  # None when none is written
    node: Node
    model: str | None = None
    model_node: Node | None = None
    path: str = ""  # what stands behind the port


@dataclass(frozen=True, kw_only=True, eq=False)
class Wait:
    """A limit on how long an answer, or its first byte, may take."""

    setting: str  # as the file names it
    seconds: float  # 0 is no limit
    node: Node
    edits_to: str | None = None  # what may stand in its place; None where that is not known


@dataclass(frozen=True, kw_only=True, eq=False)
class Door:
    kind: str  # Caddy, Traefik, HAProxy, Envoy, LiteLLM
    node: Node
    backends: tuple[Backend, ...]
    waits: tuple[Wait, ...] = ()
    keys: tuple[Node, ...] = ()  # secrets that are written out
    names: tuple[str, ...] = ()  # that people gave it: of a site, a section, a cluster
    path: str = ""  # what clients ask for, where it is one path alone
    streams: bool = False  # it hands answers on as they come


def split_address(text: str) -> tuple[str, int | None] | None:
    """`http://a:8000/v1`, `a:8000`, `:8000`: host and port; None for what is no address."""
    found = re.match(
        r"^(?:(?P<scheme>https?|h2c)://)?(?P<host>\[[^\]]*\]|[^:/\s{}$]*)(?::(?P<port>\d{1,5}))?(?:/.*)?$", text
    )
    if found is None or not (found["host"] or found["port"]):
        return None
    port = int(found["port"]) if found["port"] else {"http": 80, "https": 443}.get(found["scheme"] or "")
    return found["host"] or "localhost", port


def backend(node: Node, text: str | None = None, *, model: Node | None = None) -> Backend | None:
    """The backend that an address names."""
    written = (text if text is not None else node.text or "").strip()
    address = split_address(written)
    if address is None:
        return None
    _, slash, rest = written.partition("://")[2 if "://" in written else 0].partition("/")
    return Backend(
        host=address[0],
        port=address[1],
        node=node,
        model=model.text if model is not None else None,
        model_node=model,
        path=f"{slash}{rest}",
    )


def seconds(text: str, unit_s: float = 1.0) -> float | None:
    """`30s`, `5m`, `500ms`; a bare number counts in `unit_s`; None for what is no duration."""
    bare = text.strip()
    if re.fullmatch(r"\d+(\.\d+)?", bare):
        return float(bare) * unit_s
    parts = re.findall(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)", bare)
    if parts and "".join(number + unit for number, unit in parts) == bare:
        return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
    try:
        return parse_seconds(bare)
    except InputError:
        return None


_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def present(listed: Sequence[Backend | None]) -> tuple[Backend, ...]:
    return tuple(one for one in listed if one is not None)
