"""Bodies of requests and responses that are no noun of their own."""

from atoll.documents import Document
from atoll.store.catalog import RunEntry


class Health(Document):
    """The control plane and its catalogue answer."""

    status: str = "ok"
    version: str


class Runs(Document):
    """Runs of the catalogue, newest first."""

    runs: tuple[RunEntry, ...]


class Problem(Document):
    """An error of ours: the sentence that the command line would show."""

    error: str
