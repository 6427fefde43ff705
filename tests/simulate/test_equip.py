"""A layout's replicas as virtual engines: the same as the plan reckons with."""

import pytest

from atoll.errors import NothingFits
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import find_card
from atoll.plan.workbench import Workbench
from atoll.simulate.equip import equip_layout

CARD = find_card("Qwen2.5-32B-Instruct")
PACKED = CARD.replace(quantisation=CARD.quantisation.replace(kv_dtype="fp8"))
BOX = make_box("H100-NVL-94GB", 2)


def equipped(card, **flags):
    replicas = (Replica(gpus=(0, 1), tensor_parallel=2),)
    return equip_layout(Layout(name="x", model="m", box=BOX, replicas=replicas, flags=EngineFlags(**flags)), card)


def a_step(equipment):
    return float(equipment.timers[0].decode_seconds(30, 90_000, 1)[0])


def test_a_checkpoint_that_asks_for_an_fp8_cache_has_one():
    """Twice the tokens, and less to read in a step; vLLM's `auto` takes what the checkpoint says."""
    plain, packed, told = equipped(CARD), equipped(PACKED), equipped(CARD, kv_cache_dtype="fp8")
    assert packed.kv_blocks == told.kv_blocks
    assert packed.kv_blocks[0] > 1.99 * plain.kv_blocks[0]
    assert a_step(packed) == a_step(told) < a_step(plain)


def test_plan_and_simulation_reckon_with_the_same_engine():
    for card in (CARD, PACKED):
        bench = Workbench(box=BOX, card=card, kinds={index: find_gpu("H100-NVL-94GB") for index in BOX.indices})
        replica, flags = Replica(gpus=(0, 1), tensor_parallel=2), EngineFlags(max_num_seqs=32)
        equipment = equipped(card, max_num_seqs=32)
        assert bench.fit(replica, flags).kv_blocks == equipment.kv_blocks[0]
        assert float(bench.timer(replica, flags).decode_seconds(30, 90_000, 1)[0]) == a_step(equipment)


def test_whole_experts_split_where_slices_of_them_would_cut_fp8_blocks():
    """1536 / 8 channels of an expert are no whole number of blocks of 128."""
    card = find_card("Qwen3-235B-A22B-Instruct-2507-FP8")
    replicas = (Replica(gpus=tuple(range(8)), tensor_parallel=8),)
    layout = Layout(name="x", model="m", box=make_box("H100-SXM-80GB", 8), replicas=replicas)
    with pytest.raises(NothingFits, match="blocks of 128"):
        equip_layout(layout, card)
    whole = layout.replace(flags=layout.flags.replace(enable_expert_parallel=True))
    assert equip_layout(whole, card).kv_blocks[0] > 0
