"""A vLLM command line, read as vLLM's own parser reads it, by version."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from typing import Any

from pydantic import ValidationError

from atoll.doctor.words import Word
from atoll.engines.vllm.defaults import memory_utilization
from atoll.engines.vllm.options import Option, known_versions, listed_version, options_of
from atoll.engines.vllm.versions import parse_version
from atoll.layout.layout import EngineFlags

Version = tuple[int, ...]
_MORE_THAN_ANY_BOX = 10_000  # GPUs; a larger number is a slip
Span = tuple[Word, ...]


def show_version(version: Version) -> str:
    return ".".join(map(str, version))


@dataclass(frozen=True, kw_only=True)
class OptionTable:
    """The options of one release of `vllm serve`: every spelling with what it takes."""

    version: Version
    kinds: dict[str, str]  # value, switch, many, optional
    longs: dict[str, str]  # -tp -> --tensor-parallel-size
    deprecated: frozenset[str]

    def known(self, name: str) -> bool:
        return name in self.kinds

    def longer(self, prefix: str) -> tuple[str, ...]:
        """The options that begin with this prefix: argparse accepts it while there is exactly one."""
        return tuple(sorted(name for name in self.kinds if name.startswith(prefix) and name.startswith("--")))

    def near(self, name: str) -> tuple[str, ...]:
        """Up to two names that look like it."""
        return tuple(get_close_matches(name, self.kinds, n=2, cutoff=0.8))


@cache
def _table(version: str) -> OptionTable:
    options = options_of(version)
    kinds = {name: _kind(option) for name, option in options.items()}
    # `--no-enable-x` is accepted beside `--disable-x` since 0.33 (utils/argparse_utils.py, EnableDisableAction)
    paired = [name for name, kind in kinds.items() if kind == "switch" and re.match(r"--(enable|disable)-", name)]
    return OptionTable(
        version=parse_version(version),
        kinds={**{f"--no-{name[2:]}": "switch" for name in paired}, **kinds},
        longs={name: option.long for name, option in options.items() if not name.startswith("--")},
        deprecated=frozenset(name for name, option in options.items() if option.deprecated),
    )


def _kind(option: Option) -> str:
    if option.long == "--hf-token":
        return "optional"  # with or without a value
    return "many" if option.several else "value" if option.takes_value else "switch"


def newest_version() -> Version:
    return parse_version(known_versions()[-1])


def table_for(version: Version | None) -> OptionTable:
    """The options of a release: its own list, else that of the nearest older one; None (`latest`) is the newest."""
    return _table(known_versions()[-1] if version is None else listed_version(show_version(version)))


def is_listed(version: Version | None) -> bool:
    """Whether the list is that release's own, so that a missing name is truly missing."""
    if version is None or version[:2] > newest_version()[:2]:
        return version is None
    return table_for(version).version[:2] == version[:2]


@dataclass(frozen=True, kw_only=True)
class GivenOption:
    """One option as it is written. `name` is the long form, dashes only; `value` None for a bare switch."""

    name: str
    value: str | None
    words: Span  # the option's word, then the words of its value
    joined: bool = False  # --name=value
    path: str = ""  # of --name.a.b=value: "a.b"

    @property
    def word(self) -> Word:
        return self.words[0]

    @property
    def known(self) -> bool:
        return all(word.known for word in self.words)

    def integer(self) -> int | None:
        """The value as vLLM reads it: 32768, 32k (1000s), 32K (1024s); None for anything else."""
        found = re.fullmatch(r"(\d{1,18}(?:\.\d{1,18})?)([kKmMgG]?)", (self.value or "").replace("_", ""))
        if found is None:
            return None
        sizes = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "K": 2**10, "M": 2**20, "G": 2**30}
        return int(float(found[1]) * sizes[found[2]])

    def number(self) -> float | None:
        try:
            return float(self.value) if self.value is not None else None
        except ValueError:
            return None

    def document(self) -> Any:
        """The value as JSON; None when it is not."""
        try:
            return json.loads(self.value or "")
        except ValueError:
            return None


@dataclass(frozen=True, kw_only=True)
class VllmCommand:
    """What `vllm serve` is given: the model, the options, and how it is started."""

    words: tuple[Word, ...]  # the arguments alone
    version: Version | None  # None: latest, or not to be told from the image
    version_known: bool  # the image's tag names a release
    program: tuple[Word, ...] = ()  # `vllm serve`, `python -m ...`, as far as written out
    environment: dict[str, Word] = field(default_factory=dict)  # assignments before the program, exports
    stray: tuple[Word, ...] = ()  # `serve` given to an image that already says it
    unsplit: tuple[Word, ...] = ()  # items that hold several words, which no program takes apart

    @cached_property
    def options(self) -> tuple[GivenOption, ...]:
        return tuple(_read_options(self.words, self.table))

    @cached_property
    def table(self) -> OptionTable:
        return table_for(self.version)

    @cached_property
    def _last(self) -> dict[str, GivenOption]:
        return {self._whole_name(option.name): option for option in self.options if not option.path}

    def _whole_name(self, name: str) -> str:
        """Of an abbreviation that only one option begins with, that option's: argparse reads it so (VL007)."""
        longer = () if self.table.known(name) or len(name) < 5 else self.table.longer(name)
        return longer[0] if len(longer) == 1 else name

    def option(self, *names: str) -> GivenOption | None:
        """The last of these options: argparse lets the last one win."""
        return next((self._last[name] for name in names if name in self._last), None)

    def has(self, *names: str) -> bool:
        return self.option(*names) is not None

    def integer(self, name: str, default: int | None = None) -> int | None:
        """Its integer; `default` when it is not given, None when what is given cannot be told."""
        option = self.option(name)
        return default if option is None else option.integer()

    def text(self, name: str) -> str | None:
        option = self.option(name)
        return option.value if option is not None and option.known else None

    @cached_property
    def model_word(self) -> Word | None:
        """The word that names the model: `--model X`, or the first argument that is no option's."""
        option = self.option("--model")
        if option is not None and option.value is not None:
            return option.words[-1]
        taken = {id(word) for option in self.options for word in option.words}
        return next((word for word in self.words if id(word) not in taken), None)

    @property
    def model(self) -> str | None:
        word = self.model_word
        if word is None or not word.known:
            return None
        return word.text.partition("=")[2] if word.text.startswith("--model=") else word.text

    @property
    def tensor_parallel(self) -> int | None:
        return self._size("--tensor-parallel-size")

    @property
    def pipeline_parallel(self) -> int | None:
        return self._size("--pipeline-parallel-size")

    @property
    def data_parallel(self) -> int | None:
        return self._size("--data-parallel-size")

    @cached_property
    def open_ended(self) -> bool:
        """Whether arguments may come in that are not written here: `"$@"`, `${EXTRA_ARGS}` without a value."""
        taken = {id(word) for option in self.options for word in option.words[1:]}
        loose = [word.text for word in self.words if id(word) not in taken and not _is_option(word.text)]
        return any(_MORE_ARGUMENTS.match(text) for text in loose) or any(
            re.fullmatch(r"\$\{\w+\}", text) for text in loose[1 if self.option("--model") is None else 0 :]
        )

    def _size(self, name: str) -> int | None:
        """1 unless told otherwise; None for what is not known or is no size."""
        size = self.integer(name, None if self.open_ended else 1)
        return size if size is not None and 0 < size < _MORE_THAN_ANY_BOX else None

    @property
    def world_size(self) -> int | None:
        """GPUs that it needs: TP x PP x DP; None when one of them cannot be told."""
        sizes = (self.tensor_parallel, self.pipeline_parallel, self.data_parallel)
        return sizes[0] * sizes[1] * sizes[2] if None not in sizes else None  # type: ignore[operator]

    @property
    def memory_utilization(self) -> float | None:
        option = self.option("--gpu-memory-utilization")
        return memory_utilization(self.release) if option is None else option.number()

    @property
    def release(self) -> str:
        """The release whose options and defaults hold for it, written out."""
        return show_version(self.table.version)

    @cached_property
    def flags(self) -> EngineFlags | None:
        """The options that a layout has too, as far as they can be told; None when one has a value that cannot be."""
        share = self.memory_utilization
        try:
            return EngineFlags(
                dtype=self.text("--dtype") or "auto",
                quantization=self.text("--quantization"),
                kv_cache_dtype=self.text("--kv-cache-dtype") or "auto",
                max_model_len=self.integer("--max-model-len"),
                max_num_seqs=self.integer("--max-num-seqs"),
                max_num_batched_tokens=self.integer("--max-num-batched-tokens"),
                gpu_memory_utilization=memory_utilization(self.release) if share is None else share,
                enable_prefix_caching=not self.has("--no-enable-prefix-caching"),
                enable_chunked_prefill=not self.has("--no-enable-chunked-prefill", "--disable-chunked-prefill"),
                enforce_eager=self.has("--enforce-eager"),
                enable_expert_parallel=self.has("--enable-expert-parallel") or None,
                max_num_queued_reqs=self.integer("--max-num-queued-reqs"),
            )
        except ValidationError:
            return None


_MORE_ARGUMENTS = re.compile(r"^\$\{(?:[@*]|\w*(?:ARG|OPT|FLAG|EXTRA|PARAM)\w*)\}$", re.IGNORECASE)


def _read_options(words: Sequence[Word], table: OptionTable) -> Iterator[GivenOption]:
    place = 0
    while place < len(words):
        word = words[place]
        if not _is_option(word.text):
            place += 1
            continue
        option = _read_option(words, place, table)
        place += len(option.words)
        yield option


def _is_option(text: str) -> bool:
    return bool(re.match(r"^--?[A-Za-z]", text))


def _read_option(words: Sequence[Word], place: int, table: OptionTable) -> GivenOption:
    word = words[place]
    written, equals, value = word.text.partition("=")
    name, path = long_name(written, table)
    if equals:
        return GivenOption(name=name, value=value, words=(word,), joined=True, path=path)
    if re.fullmatch(r"-O\d", written):
        return GivenOption(name="--optimization-level", value=written[2:], words=(word,))
    following = words[place + 1 : place + 1 + _most_values(name, path, table)]
    taken = []
    for next_word in following:
        if _is_option(next_word.text):
            break
        taken.append(next_word)
    joined = " ".join(part.text for part in taken) if taken else None
    return GivenOption(name=name, value=joined, words=(word, *taken), path=path)


def long_name(written: str, table: OptionTable) -> tuple[str, str]:
    """`-tp` is --tensor-parallel-size; `--max_model_len` has dashes; `--hf-overrides.rope.type` has a path."""
    if not written.startswith("--"):
        return table.longs.get(written, written), ""
    name, _, path = written.partition(".")
    return "--" + name[2:].replace("_", "-"), path


# Options of the past, which the newest table does not hold: what they took, so that their value is not the model.
_FORMER_SWITCHES = re.compile(
    r"^--(no-)?(enable|disable|use|enforce|trust|return|skip|numa|worker-use|engine-use|calculate|tokens-only)\b"
)


def _most_values(name: str, path: str, table: OptionTable) -> int:
    if path:
        return 1
    kind = table.kinds.get(name)
    if kind is None:
        candidates = table.longer(name)
        kind = table.kinds[candidates[0]] if candidates else None
    if kind is None:
        kind = "switch" if _FORMER_SWITCHES.match(name) else "value"
    return {"switch": 0, "value": 1, "optional": 1, "many": 1000}[kind]
