"""The part of a multimodal model that sees: how many weights it has, and what it takes when it is tried out.

Sizes from config.json's vision_config; where that is empty, which is how some are published, from the defaults of the
model's own configuration class (transformers, models/*/configuration_*.py).
"""

from dataclasses import dataclass
from typing import Any

from atoll.model.card import Encoder
from atoll.model.fields import Fields


@dataclass(frozen=True, kw_only=True, slots=True)
class _Tower:
    """What encoders of a kind have in common."""

    defaults: dict[str, Any]
    gated: bool = False
    merge: int = 1  # patches to a side of a token
    projector: int = 2  # matrices between encoder and language model, each of about its width squared
    largest_tokens: int = 4096
    widths: float = 4.0  # residual, norm, queries
    split_widths: float = 9.0  # an MLP of 4304 channels, twice


_SIGLIP = {"hidden_size": 1152, "num_hidden_layers": 27, "intermediate_size": 4304, "patch_size": 14}
_SIGLIP_TOWER = _Tower(defaults=_SIGLIP, projector=1, largest_tokens=256)
# Images of any size: up to 16,384 tokens of 2 x 2 patches in Qwen's processors. What a patch takes agrees with logs of
# Qwen3.5 and 3.6 on two RTX 5090 and RTX 3090 (1.2 to 1.5 GiB) and on one RTX 5090 (2.1); Qwen3.5-35B-A3B with a draft
# model on four A100 took 4.3.
_QWEN = _Tower(defaults={**_SIGLIP, "patch_size": 16, "temporal_patch_size": 2}, merge=2, largest_tokens=16384)
_QWEN25 = _Tower(
    defaults={"hidden_size": 1280, "num_hidden_layers": 32, "intermediate_size": 3420, "patch_size": 14},
    gated=True,
    merge=2,
    largest_tokens=16384,
)
_PIXTRAL = _Tower(
    defaults={"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096, "patch_size": 14},
    gated=True,
    merge=2,
    largest_tokens=3025,
)
_LLAMA4 = _Tower(
    defaults={"hidden_size": 1408, "num_hidden_layers": 34, "intermediate_size": 5632, "patch_size": 14},
    largest_tokens=2448,
)
_TOWERS: tuple[tuple[str, _Tower], ...] = (
    ("gemma", _SIGLIP_TOWER),
    ("qwen2_5_vl", _QWEN25),
    ("qwen2_vl", _Tower(defaults={**_QWEN25.defaults, "intermediate_size": 5120}, merge=2, largest_tokens=16384)),
    ("qwen", _QWEN),
    ("glm", _QWEN),
    ("kimi", _Tower(defaults=_SIGLIP, merge=2, largest_tokens=1024, split_widths=36.0)),
    ("mistral3", _PIXTRAL),
    ("pixtral", _PIXTRAL),
    ("llama4", _LLAMA4),
    ("llava", _Tower(defaults=_SIGLIP, largest_tokens=4096)),
)
_OTHER = _Tower(defaults=_SIGLIP)


def read_encoder(whole: Fields, *, hidden: int) -> Encoder | None:
    """The encoder of a config.json with a vision_config; None where there is none.

    Args:
        whole: the outer config.
        hidden: the language model's width.

    Worked: Mistral-Small-3.1 has 24 layers of 4 x 1024^2 + 3 x 1024 x 4096 weights, a merger of 4096 x 1024 and a
    projector to and in 5120: 0.44 B; its log says 0.85 GiB more than the language model.
    """
    if not isinstance(whole.find("vision_config"), dict):
        return None
    kind = whole.word("model_type")
    tower = next((tower for name, tower in _TOWERS if name in kind), _OTHER)
    stated = {key: value for key, value in whole.part("vision_config").plain.items() if value is not None}
    fields = Fields({**tower.defaults, **_as_named(stated)}, origin=whole.origin)
    width = fields.whole("hidden_size")
    merge = fields.whole("spatial_merge_size", default=tower.merge)
    return Encoder(
        parameters=_layers(fields, width, gated=tower.gated) + _ends(fields, tower, width, merge=merge, hidden=hidden),
        hidden_size=width,
        patches_a_token=merge * merge,
        largest_tokens=tower.largest_tokens,
        patch_values=3 * fields.whole("patch_size") ** 2 * fields.whole("temporal_patch_size", default=1),
        widths=tower.widths,
        split_widths=tower.split_widths,
    )


def _as_named(stated: dict[str, Any]) -> dict[str, Any]:
    """Under the names that most encoders use."""
    named = dict(stated)
    for other, usual in (("depth", "num_hidden_layers"), ("num_layers", "num_hidden_layers"), ("width", "hidden_size")):
        if other in named:
            named.setdefault(usual, named[other])
    ratio = named.get("mlp_ratio")
    if isinstance(ratio, int | float) and isinstance(named.get("hidden_size"), int):
        named.setdefault("intermediate_size", int(ratio * named["hidden_size"]))
    if isinstance(named.get("embed_dim"), int):  # Qwen2-VL's hidden_size is the language model's
        named["hidden_size"] = named["embed_dim"]
        named.setdefault("intermediate_size", int(named.get("mlp_ratio", 4) * named["embed_dim"]))
    return named


def _layers(fields: Fields, width: int, *, gated: bool) -> int:
    inner = fields.whole("intermediate_size")
    return fields.whole("num_hidden_layers") * (4 * width * width + (3 if gated else 2) * width * inner + 9 * width)


def _ends(fields: Fields, tower: _Tower, width: int, *, merge: int, hidden: int) -> int:
    """Patches in, tokens of the language model's width out."""
    patch = fields.whole("patch_size")
    patches = 3 * patch * patch * width * fields.whole("temporal_patch_size", default=1)
    merged = width * merge * merge
    if merge == 1:
        return patches + 4096 * width + width * hidden + (tower.projector - 1) * hidden * hidden
    if not tower.gated or tower.largest_tokens > 4096:  # Qwen's and Moonshot's mergers work in the merged width
        extra = len(fields.plain.get("deepstack_visual_indexes") or ())
        return patches + (1 + extra) * (merged * merged + merged * hidden)
    return patches + merged * width + width * hidden + hidden * hidden
