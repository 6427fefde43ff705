"""How the weights are stored: config.json's quantization_config, or ModelOpt's hf_quant_config.json."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from atoll.errors import BadModel
from atoll.model.card import Quantisation
from atoll.model.fields import Fields
from atoll.model.modules import Module

_FP8 = {"fp8", "fbgemm_fp8", "ptpc_fp8"}
_INT4 = {"awq", "gptq", "awq_marlin", "gptq_marlin", "auto-round", "intel/auto-round", "autoround"}


def parse_quantisation(config: Fields, sidecar: Fields, *, modules: Sequence[Module]) -> Quantisation:
    """The quantisation of a checkpoint; plain when neither file speaks of one.

    Args:
        config: the whole config.json.
        sidecar: hf_quant_config.json, empty when there is none.
        modules: the model's linear layers, which lists of exceptions name.

    Raises:
        BadModel: a method that atoll does not know.
    """
    stated = config.part("quantization_config", "compression_config")
    if isinstance(config.find("quantization_config"), str):
        raise BadModel(f"{config.origin}: quantization_config is a text; an object with quant_method is expected.")
    if stated.has("quantization"):  # ModelOpt's file, put whole into config.json
        stated = Fields({"quant_method": "modelopt", **stated.part("quantization").plain}, origin=stated.origin)
    if not stated.plain and sidecar.has("quantization"):
        stated = sidecar.part("quantization")
        stated = Fields({"quant_method": "modelopt", **stated.plain}, origin=sidecar.origin)
    if not stated.plain:
        return Quantisation()
    found = _by_method(stated)
    shares = _plain_shares(stated, modules)
    skips = tuple(part for part, share in shares.items() if share > MOST)
    return found.replace(skips=skips, plain_shares=tuple(shares.items()), kv_dtype=_kv_dtype(stated))


def _by_method(stated: Fields) -> Quantisation:
    method = stated.word("quant_method").lower()
    if method in _FP8:
        return Quantisation(method="fp8", weight_bits=8, activation_bits=8, block_size=_block(stated))
    if method in _INT4:
        name = "awq" if method.startswith("awq") else "gptq"
        return Quantisation(method=name, weight_bits=_stated_bits(stated, default=4), group_size=_group(stated))
    if method in {"compressed-tensors", "compressed_tensors"}:
        return _compressed_tensors(stated)
    if method.startswith("modelopt") or stated.has("quant_algo"):
        return _modelopt(stated)
    return _by_rarer_method(method, stated)


def _by_rarer_method(method: str, stated: Fields) -> Quantisation:
    if method == "mxfp4":
        return Quantisation(method="mxfp4", weight_bits=4, group_size=32)
    if method == "bitsandbytes":
        four = stated.flag("load_in_4bit", "_load_in_4bit")
        # A scale for 64 weights, itself held in 8 bits: 0.127 bits a weight (QLoRA, arXiv 2305.14314, section 3).
        return Quantisation(method="bitsandbytes", weight_bits=4.127 if four else 8)
    if method and stated.has("bits", "nbits"):
        return Quantisation(method=method, weight_bits=_stated_bits(stated), group_size=_group(stated))
    raise BadModel(
        f"{stated.origin}: quantization_config.quant_method {method or '(none)'!r} is not one that atoll can size;"
        " it knows fp8, awq, gptq, mxfp4, compressed-tensors, modelopt and bitsandbytes."
    )


def _compressed_tensors(stated: Fields) -> Quantisation:
    groups = stated.part("config_groups").plain
    first = next((Fields(group, origin=stated.origin) for group in groups.values() if isinstance(group, dict)), None)
    if first is None or not first.has("weights"):
        raise BadModel(f"{stated.origin}: quantization_config.config_groups names no weights.")
    weights = first.part("weights")
    bits = _bits(weights, weights.whole("num_bits"))
    inputs = first.part("input_activations")
    activation = inputs.whole("num_bits", default=16)
    is_float = weights.word("type") == "float"
    group = _group(weights)
    if is_float and bits == 4:
        return Quantisation(method="nvfp4", weight_bits=4, group_size=group or 16, activation_bits=min(activation, 16))
    return Quantisation(
        method="fp8" if is_float else "compressed-tensors",
        weight_bits=bits,
        group_size=group,
        activation_bits=8 if activation == 8 else 16,
        block_size=_block(Fields({"weight_block_size": weights.find("block_structure")}, origin=stated.origin)),
    )


def _modelopt(stated: Fields) -> Quantisation:
    algorithm = stated.word("quant_algo").upper()
    if "FP8" in algorithm and "W4" not in algorithm:
        return Quantisation(method="fp8", weight_bits=8, activation_bits=8)
    if "NVFP4" in algorithm:
        return Quantisation(
            method="nvfp4", weight_bits=4, group_size=16, activation_bits=16 if "A16" in algorithm else 4
        )
    if "INT8" in algorithm or "W8A8" in algorithm:
        return Quantisation(method="compressed-tensors", weight_bits=8, activation_bits=8)
    if "W4A16" in algorithm or "AWQ" in algorithm:
        return Quantisation(method="awq", weight_bits=4, group_size=_group(stated) or 128)
    if stated.has("config_groups"):
        return _compressed_tensors(stated)
    raise BadModel(f"{stated.origin}: quant_algo {algorithm or '(none)'!r} is not one that atoll can size.")


def _stated_bits(stated: Fields, *, default: int | None = None) -> int:
    return _bits(stated, stated.whole("bits", "nbits", "w_bit", default=default))


def _bits(stated: Fields, bits: int) -> int:
    if bits > 16:
        raise BadModel(f"{stated.origin}: quantization_config says {bits} bits a weight; 2 to 16 are expected.")
    return bits


def _group(stated: Fields) -> int | None:
    value = stated.find("group_size", "q_group_size")
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65536 else None


def _block(stated: Fields) -> tuple[int, int] | None:
    value = stated.find("weight_block_size")
    sizes = [item for item in value if isinstance(item, int) and 0 < item <= 65536] if isinstance(value, list) else []
    return (sizes[0], sizes[1]) if len(sizes) == 2 else None


def _kv_dtype(stated: Fields) -> str | None:
    scheme = stated.part("kv_cache_scheme")
    if stated.word("kv_cache_quant_algo").upper() == "FP8" or scheme.find("num_bits") == 8:
        return "fp8"
    return None


MOST = 0.5  # a part is left out when more than so much of it is
_EXCEPTIONS = ("modules_to_not_convert", "ignore", "ignored_layers", "exclude_modules")
_LAYER_STAR = re.compile(r"(layers\.\d+)\*")
_PLACES = ("model.", "model.language_model.", "language_model.model.", "language_model.", "")


def _plain_shares(stated: Fields, modules: Sequence[Module]) -> dict[str, float]:
    """How much of each part the lists of exceptions leave at full precision; parts of which nothing is are left out."""
    listed = tuple(entry for name in _EXCEPTIONS for entry in stated.words(name))
    if not listed:
        return {}
    exceptions = _Exceptions(listed)
    whole: dict[str, int] = {}
    plain: dict[str, int] = {}
    for module in modules:
        whole[module.part] = whole.get(module.part, 0) + module.weights
        if exceptions.name(module):
            plain[module.part] = plain.get(module.part, 0) + module.weights
    return {part: found / whole[part] for part, found in plain.items()}


class _Exceptions:
    """The names that a checkpoint leaves at full precision, as compressed-tensors, AWQ, fp8 and ModelOpt write them.

    A whole name (`model.layers.0.mlp.down_proj`), the beginning of one, a word out of it (`self_attn`), a pattern of
    the shell (`model.layers.*.self_attn*`), or a regular expression, which `re:` marks. Names of an encoder's layers
    (`vision_tower.transformer.layers.0.attention.q_proj`) are no names of the language model's.
    """

    def __init__(self, listed: Iterable[str]) -> None:
        self._exact: set[str] = set()
        self._words: list[str] = []
        self._globs: list[str] = []
        self._expressions: list[re.Pattern[str]] = []
        for entry in listed:
            self._sort(entry.strip())

    def _sort(self, entry: str) -> None:
        if entry.startswith("re:") or any(sign in entry for sign in "\\^$|("):
            try:
                self._expressions.append(re.compile(entry.removeprefix("re:")))
            except re.error:
                return  # vLLM fails on it too; no name matches
        elif "*" in entry:
            entry = _LAYER_STAR.sub(r"\1.*", entry)  # `layers.1*` is meant for layer 1, not for 10 to 19 too
            self._globs += [entry, f"{entry}.*", entry.replace(".*", "*")]
        elif "layers." in entry:
            self._exact.add(entry)
        elif entry:
            self._words.append(entry)

    def name(self, module: Module) -> bool:
        """Whether the module is one of them."""
        return any(self._names(f"{place}layers.{module.layer}.{name}") for name in module.names for place in _PLACES)

    def _names(self, name: str) -> bool:
        pieces = name.split(".")
        beginnings = {".".join(pieces[:count]) for count in range(3, len(pieces) + 1)}
        return (
            not self._exact.isdisjoint(beginnings)
            or any(f".{word}." in f".{name}." for word in self._words)
            or any(fnmatchcase(name, pattern) for pattern in self._globs)
            or any(expression.match(name) for expression in self._expressions)
        )
