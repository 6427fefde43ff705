"""`atoll serve`: where it listens, who may come in, and the server that runs the application."""

import hashlib
import ipaddress
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvicorn
from fastapi import FastAPI

from atoll.errors import InputError
from atoll.outside.certificates import SELF_SIGNED, make_self_signed, pair_of
from atoll.outside.clock import SystemClock
from atoll.outside.files import make_folder
from atoll.outside.shell import RealShell, environment
from atoll.web.app import create_app
from atoll.web.site import Site
from atoll.web.tokens import PRINTED_LINK, Role, Tokens, open_private
from atoll.web.workspace import Workspace
from atoll.workflows.runs import DEFAULT, VARIABLE, open_runs

TOKEN_VARIABLE = "ATOLL_TOKEN"  # noqa: S105 - the variable's name
ENGINE_VARIABLE = "ATOLL_ENGINE_URL"
HOSTS_VARIABLE = "ATOLL_HOSTS"
WORKSPACE_VARIABLE = "ATOLL_WORKSPACE"
_NAME = re.compile(r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?|\[[0-9A-Fa-f:.]+\]")
SHUTDOWN_S = 2  # open live views are given so long when the server is stopped


@dataclass(frozen=True, kw_only=True, slots=True)
class Serving:
    """What `atoll serve` was asked for."""

    workspace: Path
    host: str = "127.0.0.1"
    port: int = 8090
    host_names: tuple[str, ...] = ()
    tls: str | None = None  # CERT,KEY or self-signed
    behind_proxy: str | None = None
    catalog: str | None = None
    environment: dict[str, str] = field(default_factory=environment)


def run_server(serving: Serving, *, say: Callable[[str], None]) -> None:
    """Serve until Ctrl-C. The link with the token is said once the socket listens.

    Raises:
        InputError: an address that others reach without TLS, a port that is taken, a bad certificate.
    """
    check_exposure(serving)
    certificate = certificate_of(serving)
    listening = _listen(serving)
    port = listening.getsockname()[1]
    app, secret = make_application(serving, port=port, secure=certificate is not None)
    shown = f"[{serving.host}]" if ":" in serving.host else serving.host
    scheme = "https" if certificate is not None else "http"
    say(f"atoll serves {Path(serving.workspace).resolve()}. Open:\n  {scheme}://{shown}:{port}/?token={secret}")
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # it would hold the token of the printed link
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_S,
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
        proxy_headers=serving.behind_proxy is not None,
        forwarded_allow_ips=serving.behind_proxy or "",
    )
    uvicorn.Server(config).run(sockets=[listening])


def make_application(serving: Serving, *, port: int, secure: bool = False) -> tuple[FastAPI, str]:
    """The application and the secret of the token that is printed."""
    workspace = Workspace(serving.workspace)
    known = serving.environment
    secret = known.get(TOKEN_VARIABLE) or secrets.token_urlsafe(32)
    address = serving.catalog or known.get(VARIABLE) or f"sqlite:{workspace.root / DEFAULT.removeprefix('sqlite:')}"
    catalog, clock = open_runs(address), SystemClock()
    # A file of the workspace would hand the hashes to everybody who may read the workspace; the stack's is its own.
    contained = ENGINE_VARIABLE in known
    private = address.startswith("sqlite:") and not contained
    kept = open_private(token_path(workspace.root, known)) if private else catalog
    site = Site(
        workspace=workspace,
        tokens=Tokens(kept, now=clock.now, extra=((PRINTED_LINK, secret, Role.OPERATOR),)),
        catalog=catalog,
        clock=clock,
        door=known.get(ENGINE_VARIABLE),
        contained=contained,
        warm=True,
    )
    app = create_app(site, hosts=hosts_of(serving), cookie=f"atoll-{port}", secure=secure)
    return app, secret


def app_from_environment() -> FastAPI:
    """The application of the Compose stack: `uvicorn --factory atoll.web.serving:app_from_environment`.

    It stands behind nginx, which checks nothing: the token comes from ATOLL_TOKEN, the host names from ATOLL_HOSTS.
    """
    known = environment()
    names = tuple(name.strip() for name in known.get(HOSTS_VARIABLE, "").split(",") if name.strip())
    folder = Path(known.get(WORKSPACE_VARIABLE) or "/workspace")
    serving = Serving(workspace=folder, host="0.0.0.0", host_names=names)  # noqa: S104 - inside the stack's network
    return make_application(serving, port=serving.port)[0]


def hosts_of(serving: Serving) -> frozenset[str]:
    """The host names that are ours: loopback's, the address that is listened on, and those that were given.

    Raises:
        InputError: a name that is none.
    """
    names = {"127.0.0.1", "localhost", "[::1]"}
    if serving.host not in {"0.0.0.0", "::", ""}:  # noqa: S104 - compared, not bound
        names.add(f"[{serving.host}]" if ":" in serving.host else serving.host)
    for name in serving.host_names:
        if not _NAME.fullmatch(name):
            raise InputError(f"{name!r} is no host name; write it like atoll.example or *.lan, without a port.")
    return frozenset({*names, *(name.lower() for name in serving.host_names)})


def check_exposure(serving: Serving) -> None:
    """An address that other machines reach needs TLS, or a proxy that speaks it."""
    if serving.tls is None and serving.behind_proxy is None and not _is_loopback(serving.host):
        raise InputError(
            f"--host {serving.host} can be reached from other machines, and tokens would cross the network in the"
            " clear. Add --tls CERT,KEY, --tls self-signed, or --behind-proxy ADDRESS where a proxy speaks TLS."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def token_path(workspace: Path, known: dict[str, str]) -> Path:
    """Outside the workspace, which may be shared, in the user's own state folder."""
    base = known.get("XDG_STATE_HOME") or str(Path(known.get("HOME") or "/tmp") / ".local" / "state")  # noqa: S108
    name = hashlib.sha256(str(workspace).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return Path(base) / "atoll" / f"tokens-{name}.db"


def certificate_of(serving: Serving) -> tuple[str, str] | None:
    """Certificate and key as files, made on the spot for `self-signed`."""
    if serving.tls is None:
        return None
    if serving.tls == SELF_SIGNED:
        return _self_signed(serving)
    return pair_of(serving.tls)


def _self_signed(serving: Serving) -> tuple[str, str]:
    folder = make_folder(token_path(Path(serving.workspace).resolve(), serving.environment).parent)
    cert, key = folder / "self-signed.crt", folder / "self-signed.key"
    if not cert.is_file() or not key.is_file():
        make_self_signed(cert, key, names=[f"DNS:{name}" for name in serving.host_names], shell=RealShell())
    return str(cert), str(key)


def _listen(serving: Serving) -> socket.socket:
    family = socket.AF_INET6 if ":" in serving.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((serving.host, serving.port))
        listening.listen(512)
    except OSError as error:
        listening.close()
        raise InputError(
            f"{serving.host}:{serving.port} cannot be listened on: {error.strerror or error}. Choose another --port."
        ) from None
    listening.set_inheritable(False)
    return listening
