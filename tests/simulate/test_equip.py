"""A layout's replicas as virtual engines: the same as the plan reckons with."""

import pytest

from atoll.analyse.summary import summarise
from atoll.errors import NothingFits
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.model.read import find_card
from atoll.plan.workbench import Workbench
from atoll.simulate.equip import equip_layout
from atoll.simulate.run import simulate_layout
from atoll.traffic.workload import Workload

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


def two_kinds(names, **flags):
    """One replica on each card."""
    box = make_box("H100-NVL-94GB", 2)
    box = box.replace(gpus=tuple(gpu.replace(name=name) for gpu, name in zip(box.gpus, names, strict=True)))
    replicas = tuple(Replica(gpus=(gpu,), tensor_parallel=1) for gpu in (0, 1))
    router = Router(policy=Policy.ROUND_ROBIN)
    return Layout(name="x", model="m", box=box, replicas=replicas, router=router, flags=EngineFlags(**flags))


def test_each_replica_has_its_own_cards_limits_in_whatever_order_they_stand():
    """An H100 takes 1024 sequences and steps of 8192 tokens by itself, an L40S 256 and 2048."""
    names = ("H100-NVL-94GB", "L40S-48GB")
    card = find_card("Llama-3.1-8B-Instruct")
    there, back = (equip_layout(two_kinds(order), card) for order in (names, names[::-1]))
    assert [(one.max_num_seqs, one.max_num_batched_tokens) for one in there.limits] == [(1024, 8192), (256, 2048)]
    assert back.limits == there.limits[::-1]
    assert back.kv_blocks == there.kv_blocks[::-1]


def test_the_order_of_unlike_replicas_changes_nothing_and_plan_simulates_the_same():
    card = find_card("Llama-3.1-8B-Instruct")
    load = Workload(users=600, requests=1200, prompt=900, output=40, start="at_once")
    found = {}
    for names in (("H100-NVL-94GB", "L40S-48GB"), ("L40S-48GB", "H100-NVL-94GB")):
        layout = two_kinds(names)
        given = equip_layout(layout, card)
        bench = Workbench(box=layout.box, card=card, kinds={n: find_gpu(name) for n, name in enumerate(names)})
        specs = [bench.spec(replica, layout.flags) for replica in layout.replicas]
        ways = {
            "simulate": {"timers": given.timers, "kv_blocks": given.kv_blocks, "limits": given.limits},
            "plan": {
                "timers": [bench.timer(replica, layout.flags) for replica in layout.replicas],
                "kv_blocks": [bench.fit(replica, layout.flags).kv_blocks for replica in layout.replicas],
                "limits": [spec.limits for spec in specs],
            },
        }
        for way, parts in ways.items():
            summary = summarise(simulate_layout(layout, card, load, **parts))
            found[names, way] = (summary.ttft_s.p95, summary.output_tokens_per_s)
    there, planned, back, planned_back = found.values()
    assert (planned, planned_back) == (there, back)
    assert back == pytest.approx(there, rel=0.02)  # other users come to the faster card
