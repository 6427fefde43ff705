"""Runs of other load generators, read and written: plain modules of one shape in one dict. Text in, text out."""

import csv

import numpy as np

from atoll.errors import BadRun
from atoll.store.foreign import (
    aiperf,
    evalscope,
    genai_bench,
    guidellm,
    guidellm_csv,
    inference_perf,
    locust,
    plain,
    vllm,
)
from atoll.store.foreign.blame import blame
from atoll.store.foreign.shape import Foreign, Reader, Writer, impossible

READERS: dict[str, Reader] = {
    "vllm": vllm.read,
    "guidellm": guidellm.read,
    "aiperf": aiperf.read,
    "aiperf-records": aiperf.read_records,
    "aiperf-csv": aiperf.read_csv,
    "guidellm-csv": guidellm_csv.read,
    "inference-perf": inference_perf.read,
    "evalscope": evalscope.read,
    "genai-bench": genai_bench.read,
    "locust": locust.read,
    "csv": plain.read_csv,
}
WRITERS: dict[str, Writer] = {
    "vllm": vllm.write,
    "guidellm": guidellm.write,
    "aiperf": aiperf.write,
    "aiperf-records": aiperf.write_records,
    "aiperf-csv": aiperf.write_csv,
    "guidellm-csv": guidellm_csv.write,
    "inference-perf": inference_perf.write,
    "evalscope": evalscope.write,
    "genai-bench": genai_bench.write,
    "locust": locust.write,
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
        return _read(tool, text, origin)
    damaged: Damaged | None = None
    for name in READERS:
        try:
            return _read(name, text, origin)
        except Damaged as error:
            damaged = damaged or error
        except BadRun:
            continue
    if damaged is not None:
        raise damaged
    raise BadRun(f"{origin} is no result of {', '.join(READERS)}.")


class Damaged(BadRun):
    """It is a result of this tool, with values in it that cannot be."""


# What a reader meets where a list is cut short, a number is a word or a mapping is a list; csv.Error of binary files.
_MISFITS = (TypeError, KeyError, IndexError, ValueError, AttributeError, ArithmeticError, RecursionError, csv.Error)


def _read(name: str, text: str, origin: str) -> tuple[Foreign, ...]:
    try:
        with np.errstate(all="ignore"):  # figures without end are looked for below
            found = READERS[name](text, origin)
    except BadRun:
        raise
    except csv.Error:
        raise BadRun(f"{origin} is no result of {name}: it is no CSV.") from None
    except _MISFITS as error:
        raise Damaged(f"{origin} is no whole result of {name}; {blame(text, error)}.") from None
    for run in found:
        with np.errstate(all="ignore"):
            wrong = impossible(run)
        if wrong is not None:
            raise Damaged(f"{origin} is no result of a load test: {wrong}.")
    return found


__all__ = ["READERS", "WRITERS", "Foreign", "read_foreign"]
