"""Open the catalogue that an address names: one dict of the modules that have its shape."""

from collections.abc import Callable

from atoll.errors import InputError
from atoll.store.catalog import Catalog
from atoll.store.mongo import MongoCatalog
from atoll.store.sqlite import SqliteCatalog


def open_catalog(url: str) -> Catalog:
    """`sqlite:runs.db` or `mongodb://host/database`.

    Raises:
        InputError: another kind of address.
        MissingProgram: MongoDB is asked for and pymongo is not installed.
    """
    scheme = url.split(":", 1)[0]
    if scheme not in _OPENERS:
        raise InputError(f"{url!r} is no catalogue. Write sqlite:PATH or mongodb://HOST/DATABASE.")
    return _OPENERS[scheme](url)


def _open_sqlite(url: str) -> Catalog:
    return SqliteCatalog(url.removeprefix("sqlite:").removeprefix("//"))


_OPENERS: dict[str, Callable[[str], Catalog]] = {
    "sqlite": _open_sqlite,
    "mongodb": MongoCatalog,
    "mongodb+srv": MongoCatalog,
}
