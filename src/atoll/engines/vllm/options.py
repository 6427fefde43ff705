"""Which options `vllm serve` has in which version, and what may stand behind them.

The table data/vllm_options.json was read from vLLM's own parsers.
"""

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from atoll.engines.vllm.versions import parse_version
from atoll.errors import InputError
from atoll.layout.layout import EngineFlags

# What `vllm serve` reads and does since which version.
ON_BY_DEFAULT_SINCE = (0, 9)  # chunked prefill and the prefix cache
MODEL_FIRST_SINCE = (0, 10)  # the model is the first argument, and --model is announced for removal
# vllm/vllm-openai starts `vllm serve`. Up to mid-2025 it was the module openai.api_server, which reads a first argument
# and serves its default model all the same (pull request 32294); between lies no release whose image was looked at.
IMAGE_SERVES_SINCE = (0, 26)
MODULE_STARTS_UP_TO = (0, 10, 2)  # its image is certain to start the module, which knows the model by --model alone
MODERN_VALUES_SINCE = (0, 12)  # JSON where older releases read name=value or a bare number
AUTO_LENGTH_SINCE = (0, 20)  # --max-model-len auto


@dataclass(frozen=True, kw_only=True, slots=True)
class Option:
    """One option of `vllm serve` in one version."""

    name: str  # the spelling looked up: --max-num-seqs, -tp or --no-enforce-eager
    long: str  # the option's main name
    takes_value: bool
    several: bool  # takes a list of values
    choices: tuple[str, ...] | None
    default: Any  # as JSON; None is also what an engine writes for "decided later"
    deprecated: bool


def known_versions() -> tuple[str, ...]:
    """The versions whose parser was read, oldest first: the last release of each minor version."""
    return tuple(_table()["versions"])


def check_version(text: str) -> None:
    """Of a version that somebody asks for by name; what a file or an image says may be newer than what is known.

    Raises:
        InputError: it is no version, or newer than all that were read.
    """
    first, last = known_versions()[0], known_versions()[-1]
    if parse_version(text)[:2] > parse_version(last)[:2]:
        raise InputError(
            f"vLLM {text} is not known; known are the releases up to {last}, from {first} on with all their options."
            f" For a newer one take {last}, the nearest."
        )


def listed_version(version: str) -> str:
    """The listed version whose options hold for `version`: that of its minor version, else the nearest older one.

    A version older than all gets the oldest list.
    """
    wanted = parse_version(version)[:2]
    older = [known for known in known_versions() if parse_version(known)[:2] <= wanted]
    return older[-1] if older else known_versions()[0]


def options_of(version: str) -> dict[str, Option]:
    """Every spelling that `vllm serve` of this version accepts, with what it takes."""
    return _options(listed_version(version))


def has_option(version: str, name: str) -> bool:
    return name in options_of(version)


# cache_dtype in vllm/config/cache.py of 0.32, those that a GPU of NVIDIA holds keys and values in.
CACHE_DTYPES = ("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "nvfp4")


def why_not_flags(flags: EngineFlags, *, max_model_len: int | None = None) -> str | None:
    """Why vLLM would not start with these options; None when it would.

    The batch sizes are held against each other as config/scheduler.py does (verify_max_model_len).

    Args:
        flags: as they were asked for.
        max_model_len: the model's own, which counts where the flags have none; None: not known.
    """
    if flags.kv_cache_dtype not in CACHE_DTYPES:
        return f"kv_cache_dtype {flags.kv_cache_dtype} is not one of {', '.join(CACHE_DTYPES)}"
    tokens, sequences = flags.max_num_batched_tokens, flags.max_num_seqs
    if tokens is not None and sequences is not None and tokens < sequences:
        return f"max_num_batched_tokens {tokens} is less than max_num_seqs {sequences}, which needs one for each"
    longest = flags.max_model_len or max_model_len
    if tokens is not None and longest is not None and tokens < longest and not flags.enable_chunked_prefill:
        return (
            f"max_num_batched_tokens {tokens} is less than max_model_len {longest}, and prompts are not cut in chunks"
        )
    return None


@cache
def _options(version: str) -> dict[str, Option]:
    place = known_versions().index(version)
    found: dict[str, Option] = {}
    for long, spans in _table()["options"].items():
        for span in spans:
            if span["from"] <= place <= span["to"]:
                names = (long, *span.get("also", ()), *_hidden_names(long, span, version))
                found |= {name: _option(name, long, span) for name in names}
    return found


def _hidden_names(long: str, span: dict[str, Any], version: str) -> tuple[str, ...]:
    """From 0.33 on `--enable-x` pairs with `--disable-x`; `--no-enable-x` is accepted still, and not in the help.

    vllm/utils/argparse_utils.py, EnableDisableAction.
    """
    switch = long.removeprefix("--enable-").removeprefix("--disable-")
    pairs = {f"--enable-{switch}", f"--disable-{switch}"} <= {long, *span.get("also", ())}
    return (f"--no-{long.removeprefix('--')}",) if pairs and parse_version(version) >= (0, 33, 0) else ()


def _option(name: str, long: str, span: dict[str, Any]) -> Option:
    choices = span.get("choices")
    return Option(
        name=name,
        long=long,
        takes_value=span.get("takes_value", True),
        several=span.get("several", False),
        choices=None if choices is None else tuple(choices),
        default=span.get("default"),
        deprecated=span.get("deprecated", False),
    )


@cache
def _table() -> dict[str, Any]:
    text = files("atoll").joinpath("data/vllm_options.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table
