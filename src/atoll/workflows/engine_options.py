"""What a command line says of the engine, by vLLM's names; the same options in every command."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from pydantic import ValidationError

from atoll.engines import find_engine
from atoll.engines.spec import DEFAULT_ENGINE
from atoll.errors import InputError
from atoll.layout.layout import ENGINE_VERSION, EngineFlags
from atoll.misfits import misfit
from atoll.workflows.memory_rows import is_of_starts

EITHER = "either"  # plan's own word: an fp8 cache where it serves better


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineOptions:
    """None: it says nothing, and the default of that version holds."""

    gpu_memory_utilization: float | None = None
    max_model_len: int | None = None
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_cache_dtype: str | None = None
    quantization: str | None = None
    pp: int | None = None
    enforce_eager: bool | None = None
    engine_version: str | None = None

    @property
    def given(self) -> tuple[str, ...]:
        """The names of those that say something."""
        return tuple(field.name for field in fields(self) if getattr(self, field.name) is not None)

    @property
    def version(self) -> str:
        return self.engine_version or ENGINE_VERSION

    def flags(self, *, context: int | None = None) -> EngineFlags:
        """As flags of a layout.

        Args:
            context: the model's, where that is known.

        Raises:
            InputError: an option with which that version would not start.
        """
        engine = find_engine(DEFAULT_ENGINE)
        engine.check_version(self.version)
        split = {"pp", "engine_version"}
        try:
            flags = EngineFlags(**{name: getattr(self, name) for name in self.given if name not in split})
        except ValidationError as error:
            problem = error.errors()[0]
            option = str(problem["loc"][0]).replace("_", "-")
            raise InputError(f"{misfit(problem, place=f'--{option}')}.") from None
        why = engine.why_not_flags(flags, max_model_len=context)
        if why is not None:
            raise InputError(f"{why}.")
        return flags


def check_version(text: str, *, engine: str | None = None) -> None:
    """Of `--engine-version`; raises InputError for what is no version of the engine, or none that is known."""
    find_engine(engine or DEFAULT_ENGINE).check_version(text)


NOTHING = EngineOptions()

# How a table of benchmarks says the same, in its notes; the beginning tells whether it does.
_NOTES = {
    "gpu_memory_utilization": "gpu-memory-utilization {}",
    "max_model_len": "max-model-len {}",
    "max_num_seqs": "max-num-seqs {}",
    "max_num_batched_tokens": "max-num-batched-tokens {}",
    "kv_cache_dtype": "{} kv",
    "pp": "pp={} pipeline",
    "enforce_eager": "enforce-eager",
}
# And in its columns, which are those of a table of start-up logs.
_COLUMNS = {"kv_cache_dtype": "kv_dtype", "engine_version": "vllm_version"}


def fill_rows(rows: Sequence[Mapping[str, str]], options: EngineOptions) -> list[dict[str, str]]:
    """A table's rows with what they leave open as the options have it."""
    return [_fill_start(row, options) if is_of_starts(rows) else _fill_notes(row, options) for row in rows]


def _fill_start(row: Mapping[str, str], options: EngineOptions) -> dict[str, str]:
    said = {_COLUMNS.get(name, name): _word(options, name) for name in options.given}
    return {**row, **{name: text for name, text in said.items() if not row.get(name)}}


def _fill_notes(row: Mapping[str, str], options: EngineOptions) -> dict[str, str]:
    notes = row.get("notes", "")
    words = [pattern.format(_word(options, name)) for name, pattern in _NOTES.items() if name in options.given]
    news = [word for word in words if word.split("{")[0].split()[0].split("=")[0] not in notes.lower()]
    filled = {**row, "notes": "; ".join([*filter(None, [notes]), *news])}
    if options.engine_version and not row.get("engine_version"):
        filled["engine_version"] = options.engine_version
    return filled


def _word(options: EngineOptions, name: str) -> str:
    value = getattr(options, name)
    return "yes" if value is True else f"{value}"
