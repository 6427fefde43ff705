"""A layout on disk becomes a bundle on disk."""

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
from atoll.outside.files import read_bytes, read_text, write_over, write_whole
from atoll.render import Bundle, RenderSettings, render_bundle
from atoll.render.app import SECRETS
from atoll.render.dotenv import keep_settings
from atoll.render.monitoring import MONITORING, MONITORING_SECRETS
from atoll.render.reference import check_image
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
    chosen |= {"extras": extras, "secrets": {name: secret() for name in wanted}}
    return RenderSettings(**chosen)


def pinned_requirements() -> str:
    """What an image with atoll installs: exact versions with the hashes of their wheels, as `make lock` wrote them."""
    return resources.files("atoll").joinpath("data/requirements.txt").read_text(encoding="utf-8")
