"""Any JSON gives a ModelCard or one BadModel sentence; counts grow with sizes."""

import json
from importlib.resources import files

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import BadModel
from atoll.model.card import ModelCard
from atoll.model.parse import card_from_plain, parse_card

CONFIGS = [
    json.loads(path.read_text())["config"]
    for path in sorted((files("atoll") / "data" / "models").iterdir(), key=lambda path: path.name)
]
KEYS = sorted({key for config in CONFIGS for key in config} | {"n_layer", "n_head", "layer_types", "kv_lora_rank"})
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | st.floats() | st.text(max_size=12),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(VALUES)
@settings(max_examples=150, deadline=None)
def test_any_json_is_a_card_or_a_bad_model(value):
    check(lambda: parse_card(json.dumps(value), name="x"))


@given(st.sampled_from(CONFIGS), st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
@settings(max_examples=200, deadline=None)
def test_a_damaged_config_is_a_card_or_a_bad_model(config, damage):
    check(lambda: card_from_plain({**config, **damage}, name="x", index=damage, sidecar=damage))


@given(st.sampled_from([c for c in CONFIGS if "num_hidden_layers" in c and "layer_types" not in c]), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_more_layers_are_more_weights(config, more):
    small = card_from_plain(config, name="x")
    large = card_from_plain({**config, "num_hidden_layers": config["num_hidden_layers"] + more}, name="x")
    assert large.parameters > small.parameters
    assert large.weight_bytes > small.weight_bytes
    assert large.active_parameters > small.active_parameters


def check(parse):
    try:
        card = parse()
    except BadModel as error:
        assert str(error).count("\n") == 0
    else:
        assert isinstance(card, ModelCard)
        assert 0 < card.active_parameters <= card.parameters
        assert card.weight_bytes > 0
