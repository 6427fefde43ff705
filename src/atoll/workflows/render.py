"""A layout on disk becomes a bundle on disk."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from secrets import token_urlsafe
from typing import Any

import atoll
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.outside.certificates import SELF_SIGNED, make_self_signed, name_of_this_machine, read_pair
from atoll.outside.files import read_bytes, read_text, temporary_folder, write_over, write_whole
from atoll.outside.shell import RealShell
from atoll.render import Bundle, RenderSettings, render_bundle
from atoll.render.app import SECRETS
from atoll.render.dotenv import keep_settings
from atoll.render.monitoring import MONITORING, MONITORING_SECRETS
from atoll.render.reference import check_image
from atoll.render.tls import CERTIFICATE, KEY, NGINX_USER, DoorTls
from atoll.run import process
from atoll.workflows.backend import read_backend


@dataclass(frozen=True, kw_only=True, slots=True)
class Rendered:
    """A bundle and where it lies; None when it was only made."""

    bundle: Bundle
    folder: Path | None


def new_secret() -> str:
    """256 bits that may stand in a URL."""
    return token_urlsafe(32)


def read_layout(path: Path | str) -> Layout:
    """A layout file; a model's folder is named by its absolute path, since the bundle is used from another folder.

    Raises InputError when there is no such file and BadDocument when it is no layout.
    """
    layout = Layout.parse(read_text(path), origin=str(path))
    model = Path(layout.model).expanduser()
    return layout.replace(model=str(model.resolve())) if model.is_dir() else layout


def render_layout(
    layout: Layout,
    *,
    to: str = "compose",
    folder: Path | None = None,
    settings: RenderSettings | None = None,
    card: ModelCard | None = None,
) -> Rendered:
    """Make the bundle and, with a folder, write it there; what .env already says stays.

    Raises:
        InputError: the model is unknown, the layout cannot be rendered so, or the folder cannot be written.
    """
    settings = replace(settings or RenderSettings(), requirements=pinned_requirements)
    if to == process.name:
        settings = replace(settings, nginx_version=settings.nginx_version or process.nginx_release(RealShell()))
    bundle = render_bundle(layout, card or read_model(layout.model), to=to, settings=settings)
    if folder is not None:
        write_bundle(bundle, folder)
    return Rendered(bundle=bundle, folder=folder)


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write each file whole; what .env already says stays. Raises InputError where one cannot be written."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a bundle needs a folder.")
    for path, made in bundle.files.items():
        target = folder / path
        text = keep_settings(made, read_text(target)) if path == ".env" and target.exists() else made
        if path == "nginx.conf":
            write_over(target, text)  # a running container goes on showing the file that it was given
        else:
            write_whole(target, text, mode=bundle.modes.get(path, 0o644))
        if path in bundle.owners and os.geteuid() == 0:
            os.chown(target, *bundle.owners[path])
    if "backend/Dockerfile" in bundle.files:
        _copy_atoll(folder / "backend" / "src" / "atoll")


def _copy_atoll(target: Path) -> None:
    """The backend's image is built from the atoll that rendered it, so no registry is needed for it."""
    source = Path(atoll.__file__).parent
    for path in sorted(source.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            write_whole(target / path.relative_to(source), read_bytes(path))


def render_settings(
    *,
    stack: str | None = None,
    backend: str | None = None,
    extras: tuple[str, ...] = (),
    secret: Callable[[], str] = new_secret,
    tls: DoorTls | None = None,
    **given: str | None,
) -> RenderSettings:
    """Settings from what a person gave; what was not given (None) keeps its default.

    Raises:
        InputError: an image whose name is none, a backend without the stack that it stands in, or one that cannot be
            read.
    """
    chosen: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    for key, option in (("engine_image", "--image"), ("nginx_image", "--nginx-image")):
        if key in chosen:
            check_image(chosen[key], option=option)
    if backend is not None:
        if stack != "app":
            raise InputError("--backend is the backend of a stack; say --stack app too.")
        chosen["backend"] = read_backend(backend)
    wanted = (*(SECRETS if stack is not None else ()), *(MONITORING_SECRETS if MONITORING in extras else ()))
    if stack is not None:
        chosen["stack"] = stack
    chosen |= {"extras": extras, "tls": tls, "secrets": {name: secret() for name in wanted}}
    return RenderSettings(**chosen)


def make_tls(given: str | None, *, folder: Path | None, bind: str | None = None) -> DoorTls | None:
    """The door's certificate and key: given files, or a self-signed pair; one that the folder has already stays.

    Args:
        given: CERT,KEY or `self-signed`; None: no TLS.
        folder: where the bundle will lie; None: it is only shown.
        bind: a further address of the door.

    Raises:
        InputError: files that are not there, or do not belong together.
        MissingProgram: openssl is not there to make one.
    """
    if given is None:
        return None
    user = (os.geteuid(), os.getegid()) if os.geteuid() else (NGINX_USER, NGINX_USER)
    if given != SELF_SIGNED:
        certificate, key = read_pair(given)
        return DoorTls(certificate=certificate, key=key, owner=user)
    if folder is not None and (folder / CERTIFICATE).is_file() and (folder / KEY).is_file():
        certificate, key = read_pair(f"{folder / CERTIFICATE},{folder / KEY}")
        return DoorTls(certificate=certificate, key=key, owner=user)
    with temporary_folder() as made:
        cert, own = made / "door.crt", made / "door.key"
        make_self_signed(cert, own, names=_names_of_this_machine(bind), shell=RealShell())
        return DoorTls(certificate=read_text(cert), key=read_text(own), owner=user)


def _names_of_this_machine(bind: str | None) -> list[str]:
    name, address = name_of_this_machine(), (bind or "").strip("[]")
    return [
        *([f"DNS:{name}"] if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", name) else []),
        *([f"IP:{address}"] if address not in {"", "0.0.0.0", "::"} else []),  # noqa: S104 - compared, not bound
    ]


def pinned_requirements() -> str:
    """What an image with atoll installs: exact versions with the hashes of their wheels, as `make lock` wrote them."""
    return resources.files("atoll").joinpath("data/requirements.txt").read_text(encoding="utf-8")
