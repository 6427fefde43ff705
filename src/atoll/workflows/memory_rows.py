"""A table of start-up logs: each row becomes one engine with its settings, or the reason why it cannot.

The columns are those of docs/validation.md. A flag that is not given is the default of the row's version.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from atoll.engines.spec import EngineSpec
from atoll.errors import AtollError
from atoll.inventory.catalog import find_gpu
from atoll.layout.layout import ENGINE_VERSION, EngineFlags
from atoll.misfits import misfit, show_path
from atoll.model.read import read_model
from atoll.units import GIB

MARKS = ("measured_kv_tokens", "measured_weights_gib")  # the columns by which such a table is known

STARTED, REFUSED = "started", "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """One start of one engine, and what its log said; None where it was not printed or is not to be relied on."""

    id: str
    source: str
    attention: str  # full, sliding, hybrid, mla: as the row has it
    spec: EngineSpec
    kv_tokens: int | None
    kv_bytes: int | None  # of one GPU; below 0 where so much was missing
    weight_bytes: int | None  # of one GPU
    started: bool | None  # None: not known


class Unfit(Exception):
    """A row that cannot be expressed; its text is the reason."""


def is_of_starts(rows: Sequence[Mapping[str, str]]) -> bool:
    """Whether the table is one of start-up logs."""
    return bool(rows) and all(mark in rows[0] for mark in MARKS)


def starts_or_reasons(rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[str, Start | str]]:
    """Every row's id with its start, or with the reason why there is none."""
    for row in rows:
        try:
            yield row.get("id", ""), make_start(row)
        except (Unfit, AtollError) as reason:
            yield row.get("id", ""), str(reason)


def make_start(row: Mapping[str, str]) -> Start:
    """The row as an engine and what was measured.

    Raises:
        Unfit: a value is no number, or out of range.
        UnknownModel, BadModel, UnknownGpu, InputError: model, card or version is not known.
    """
    doubt = set(row.get("doubt", "").split())
    outcome = None if doubt & {"outcome", "all"} else row.get("outcome")
    kv, weights = not doubt & {"kv", "all"}, not doubt & {"weights", "all"}
    return Start(
        id=row["id"],
        source=row.get("source", ""),
        attention=row.get("attention", ""),
        spec=_spec(row),
        kv_tokens=_whole(row, "measured_kv_tokens") if kv else None,
        kv_bytes=_gib(row, "measured_kv_gib") if kv else None,
        weight_bytes=_gib(row, "measured_weights_gib") if weights else None,
        started={STARTED: True, REFUSED: False}.get(outcome or ""),
    )


def _spec(row: Mapping[str, str]) -> EngineSpec:
    card = read_model(row.get("config") or row["model"])
    try:
        flags = EngineFlags(
            quantization=row.get("quantization") or None,
            kv_cache_dtype=row.get("kv_dtype") or "auto",
            max_model_len=_whole(row, "max_model_len"),
            max_num_seqs=_whole(row, "max_num_seqs"),
            max_num_batched_tokens=_whole(row, "max_num_batched_tokens"),
            gpu_memory_utilization=_number(row, "gpu_memory_utilization"),
            enforce_eager=row.get("enforce_eager", "").lower() in {"yes", "true", "1"},
            extra=("--enable-prefix-caching",) if "prefix caching on" in row.get("notes", "").lower() else (),
        )
    except ValidationError as error:
        problem = error.errors()[0]
        raise Unfit(misfit(problem, place=show_path(problem["loc"]))) from None
    return EngineSpec.on(
        card,
        find_gpu(row["gpu"]),
        tensor_parallel=_whole(row, "tp") or 1,
        pipeline_parallel=_whole(row, "pp") or 1,
        flags=flags,
        engine_version=row.get("vllm_version") or ENGINE_VERSION,
        from_image=False,  # it matters for 0.11.0 alone, of which two logs of three are of other builds
    )


def _number(row: Mapping[str, str], column: str) -> float | None:
    text = row.get(column, "")
    try:
        return float(text) if text else None
    except ValueError:
        raise Unfit(f"{column} is {text!r}, not a number") from None


def _whole(row: Mapping[str, str], column: str) -> int | None:
    value = _number(row, column)
    if value is not None and not value.is_integer():
        raise Unfit(f"{column} is {row[column]!r}, not a whole number")
    return None if value is None else int(value)


def _gib(row: Mapping[str, str], column: str) -> int | None:
    value = _number(row, column)
    return None if value is None else round(value * GIB)
