"""TLS at the door: the files in the bundle, and what nginx listens with."""

import re
from dataclasses import dataclass

from atoll.errors import InputError

CERTIFICATE, KEY = "tls/door.crt", "tls/door.key"  # a folder is mounted, so that a file put anew there is seen
KEY_MODE = 0o600
CONTAINER_TLS_PORT = 8443  # published; the plain one stays for what stands on the bundle's own networks
NGINX_USER = 101  # the image's
HTTP2_DIRECTIVE = (1, 25, 1)  # before it a word of `listen`, which later ones warn of
KEEPS_CONNECTIONS = (1, 27, 4)  # keepalive_min_timeout
Version = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DoorTls:
    """PEM texts of a certificate (with those between it and its authority) and its key, and who may read the key."""

    certificate: str
    key: str
    owner: tuple[int, int]  # user and group that the key belongs to; in a container nginx runs as these


def tls_files(tls: DoorTls | None) -> dict[str, str]:
    return {} if tls is None else {CERTIFICATE: tls.certificate, KEY: tls.key}


def tls_modes(tls: DoorTls | None) -> dict[str, int]:
    return {} if tls is None else {KEY: KEY_MODE}


def refuse_tls(tls: DoorTls | None, where: str) -> None:
    """For the forms that have none."""
    if tls is not None:
        raise InputError(f"--tls is for one model by Compose or plain processes; {where}.")


def version_in(text: str | None) -> Version | None:
    """The release in what `nginx -v` or an image's tag says; None where it says none."""
    found = re.search(r"(?:nginx/|:)(\d+)\.(\d+)\.(\d+)", text or "")
    return tuple(map(int, found.groups())) if found else None


def listen_lines(where: str, version: Version | None) -> tuple[str, ...]:
    """HTTP/2 in the form that this nginx has; one of an unknown release takes the older form with a warning."""
    modern = version is not None and version >= HTTP2_DIRECTIVE
    return (
        *((f"listen {where} ssl;", "http2 on;") if modern else (f"listen {where} ssl http2;",)),
        f"ssl_certificate {CERTIFICATE};",
        f"ssl_certificate_key {KEY};",
        "ssl_protocols TLSv1.2 TLSv1.3;",
        "ssl_session_cache shared:tls:10m;",
        "ssl_session_timeout 1d;",
        "ssl_session_tickets off;",
    )
