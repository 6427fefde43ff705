"""The doors of a workspace: where its deployments that are up answer, and the one that the server was started for."""

from dataclasses import dataclass
from pathlib import Path

from atoll.documents import parse_yaml
from atoll.errors import AtollError
from atoll.outside.files import read_text
from atoll.outside.shell import environment
from atoll.run.door_tls import door_certificate, door_scheme
from atoll.web.site import Site
from atoll.web.workspace import Kind

KEY_VARIABLE = "VLLM_API_KEY"
BENCH_KEY_VARIABLE = "ATOLL_API_KEY"  # where `atoll bench` looks first


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """An OpenAI-compatible address, up to and with /v1."""

    name: str  # the bundle's path in the workspace, or `door`
    url: str
    certificate: Path | None = None  # that it shows, where it is asked by https
    key: str | None = None  # its API key, where the bundle's .env has one


def doors_of(site: Site) -> tuple[Door, ...]:
    """Those of the bundles, by their layout's port, and the server's own first."""
    found = [] if site.door is None else [Door(name="door", url=_with_v1(site.door))]
    for thing in site.workspace.things(Kind.BUNDLE):
        try:
            plain = parse_yaml(read_text(thing.path / "layout.yaml"), origin="layout.yaml")
            port = plain["router"]["port"] if isinstance(plain, dict) else None
        except (AtollError, LookupError, TypeError):
            continue
        if isinstance(port, int):
            found.append(
                Door(
                    name=thing.name,
                    url=f"{door_scheme(thing.path)}://127.0.0.1:{port}/v1",
                    key=_key_of(thing.path / ".env"),
                    certificate=door_certificate(thing.path),
                )
            )
    return tuple(found)


def key_of(place: Path | None) -> str | None:
    """The engines' API key: of a bundle its .env's, else the one that this server was started with."""
    found = _key_of(place / ".env") if place is not None else None
    return found or environment().get(KEY_VARIABLE) or None


def _with_v1(url: str) -> str:
    plain = url.rstrip("/")
    return plain if plain.endswith("/v1") else f"{plain}/v1"


def _key_of(path: object) -> str | None:
    try:
        lines = read_text(str(path)).splitlines()
    except AtollError:
        return None
    found = (line.partition("=")[2].strip() for line in lines if line.startswith(f"{KEY_VARIABLE}="))
    return next(found, "") or None
