"""What a bundle's door shows who asks by https, and what its next files keep of it."""

from pathlib import Path

from atoll.outside.files import read_text
from atoll.render.tls import CERTIFICATE, KEY, DoorTls


def door_certificate(folder: Path) -> Path | None:
    """The certificate of the door of the bundle in a folder; None where it speaks plain HTTP."""
    conf = folder / "nginx.conf"
    if not conf.is_file() or f"ssl_certificate {CERTIFICATE};" not in read_text(conf):
        return None
    return folder / CERTIFICATE


def door_scheme(folder: Path) -> str:
    return "http" if door_certificate(folder) is None else "https"


def door_tls(folder: Path) -> DoorTls | None:
    """The pair that lies in the bundle, read anew; raises InputError where a file of it is gone."""
    certificate = door_certificate(folder)
    if certificate is None:
        return None
    key = folder / KEY
    text = read_text(key)
    owner = key.stat()
    return DoorTls(certificate=read_text(certificate), key=text, owner=(owner.st_uid, owner.st_gid))
