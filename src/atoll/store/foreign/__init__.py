"""Runs of other load generators, read and written: plain modules of one shape in one dict. Text in, text out."""

from atoll.errors import BadRun
from atoll.store.foreign import aiperf, guidellm, plain, vllm
from atoll.store.foreign.shape import Foreign, Reader, Writer

READERS: dict[str, Reader] = {
    "vllm": vllm.read,
    "guidellm": guidellm.read,
    "aiperf": aiperf.read,
    "aiperf-records": aiperf.read_records,
    "aiperf-csv": aiperf.read_csv,
    "csv": plain.read_csv,
}
WRITERS: dict[str, Writer] = {
    "vllm": vllm.write,
    "guidellm": guidellm.write,
    "aiperf": aiperf.write,
    "aiperf-records": aiperf.write_records,
    "aiperf-csv": aiperf.write_csv,
    "csv": plain.write_csv,
    "prometheus": plain.write_prometheus,
}


def read_foreign(text: str, *, origin: str, tool: str | None = None) -> tuple[Foreign, ...]:
    """The runs in a file of another load generator.

    Args:
        text: the file's text.
        origin: its name, for the error sentence.
        tool: a name of READERS; None: found out by trying.

    Raises:
        BadRun: it is no file of any of them.
    """
    if tool is not None:
        if tool not in READERS:
            raise BadRun(f"{tool!r} is not a format that is read: {', '.join(READERS)}.")
        return READERS[tool](text, origin)
    for reader in READERS.values():
        try:
            return reader(text, origin)
        except BadRun:
            continue
    raise BadRun(f"{origin} is no result of {', '.join(READERS)}.")


__all__ = ["READERS", "WRITERS", "Foreign", "read_foreign"]
