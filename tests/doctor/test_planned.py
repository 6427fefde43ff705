"""Where a layout carries its load, rules about sizes and seats ask what the planner makes of it, and not a rule of thumb."""

import pytest

from atoll.doctor.planned import _clearly_better
from atoll.inventory.box import Box
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.catalog import find_card
from atoll.plan.goal import Goal
from atoll.traffic.workload import Workload
from atoll.workflows.diagnose import diagnose_bundle, diagnose_layout
from atoll.workflows.render import render_layout

QWEN = "Qwen/Qwen2.5-32B-Instruct"
FLAGS = EngineFlags()
PAIRS = make_box("H100-NVL-94GB", 4)


def layout(*groups, box: Box = PAIRS, model: str = QWEN, flags: EngineFlags = FLAGS, **load) -> Layout:
    return Layout(
        name="written",
        model=model,
        box=box,
        replicas=tuple(Replica(gpus=group, tensor_parallel=len(group)) for group in groups),
        flags=flags,
        workload=Workload.from_plain(load, origin="load") if load else None,
    )


def rules(one: Layout) -> list[str]:
    return sorted({finding.rule for finding in diagnose_layout(one)})


def fixes(one: Layout, rule: str) -> list[str]:
    return [finding.fix for finding in diagnose_layout(one) if finding.rule == rule]


def test_a_group_over_islands_is_no_fault_where_few_users_want_all_cards():
    wide = layout((0, 1, 2, 3))
    assert rules(wide) == ["TP001", "TP006"]
    assert rules(wide.replace(workload=Workload(users=8, prompt=500, output=100))) == []


def test_a_group_over_islands_is_a_fault_where_many_users_want_replicas():
    wide = layout((0, 1, 2, 3), users=400, prompt=500, output=100)
    assert rules(wide) == ["TP001", "TP006"]
    assert fixes(wide, "TP001") == [
        "4xTP1 on GPUs 0 and 1 and 2 and 3, which `atoll plan` puts before it for 400 users."
    ]


def test_a_card_left_idle_is_named_where_another_replica_would_clearly_serve_better():
    one = layout((0, 1), users=1, prompt=500, output=100)
    assert rules(one) == []
    assert "MF007" in rules(one.replace(workload=Workload(users=400, prompt=500, output=100)))


def test_a_replica_on_slower_cards_is_not_asked_for_where_it_would_hold_up_the_answers():
    cards = make_box("H100-PCIe-80GB", 2)
    mixed = cards.replace(gpus=(cards.gpus[0], cards.gpus[1].replace(name="L40S-48GB", memory_bytes=None)))
    alone = layout((0,), box=mixed, model="Qwen/Qwen3-32B-AWQ", users=8, prompt=1024, output=512)
    assert rules(alone) == []
    assert fixes(alone.replace(workload=None), "MF007") == ["Another replica."]


def test_near_saturation_nothing_is_said_that_a_little_less_load_would_turn_round():
    """At 6 requests/s, which neither keeps up with, two cards answer a third more by formula; at 4.8 hardly a fifth."""
    cards = make_box("H100-PCIe-80GB", 2)
    mixed = cards.replace(gpus=(cards.gpus[0], cards.gpus[1].replace(name="L40S-48GB", memory_bytes=None)))
    flags = EngineFlags(max_num_seqs=512, max_num_batched_tokens=8192)
    alone = layout((0,), box=mixed, model="openai/gpt-oss-20b", flags=flags, rate=6.0, prompt=1500, output=3000)
    assert rules(alone) == []
    swamped = alone.replace(workload=alone.workload.replace(rate=15.0))
    assert fixes(swamped, "MF007") == ["2xTP1 on GPUs 0 and 1, which `atoll plan` puts before it for 15 requests/s."]


def test_a_fault_stays_one_where_the_lengths_stand_in_a_trace():
    traced = layout((0, 1, 2, 3), users=8, trace="trace.csv")
    assert rules(traced) == ["TP001", "TP006"]


V100 = make_box("V100-SXM-32GB", 4)
GEMMA = "google/gemma-3-27b-it"  # 4 x V100 hold 295 k tokens of its KV cache


@pytest.mark.parametrize(("users", "seats", "named"), [(256, 256, []), (1000, 256, []), (1000, 1024, ["MF006"])])
def test_seats_are_counted_at_their_mean_length_and_may_be_twice_what_the_cache_holds(users, seats, named):
    """256 seats where 230 have room serve sooner than 128 do (simulated: 175 s an answer against 179)."""
    flags = EngineFlags(max_num_seqs=seats, dtype="half")
    one = layout((0, 1, 2, 3), box=V100, model=GEMMA, flags=flags, users=users, prompt=1024, output=512)
    assert [rule for rule in rules(one) if rule == "MF006"] == named


def test_seats_that_suit_the_larger_card_are_no_fault_of_the_smaller_one():
    """The flags are those of all replicas: with seats for the smaller card alone the larger one would idle."""
    cards = make_box("H100-PCIe-80GB", 2)
    mixed = cards.replace(gpus=(cards.gpus[0], cards.gpus[1].replace(name="L40S-48GB", memory_bytes=None)))
    one = layout((0,), (1,), box=mixed, model="Qwen/Qwen2.5-32B-Instruct-AWQ", users=1000, prompt=2000, output=400)
    assert "MF006" not in rules(one.replace(flags=EngineFlags(max_num_seqs=128)))
    assert "MF006" in rules(one.replace(flags=EngineFlags(max_num_seqs=1024)))


AWQ = "Qwen/Qwen2.5-14B-Instruct-AWQ"


def length_warnings(one: Layout) -> list[str]:
    return [finding.what for finding in diagnose_bundle(render_layout(one).bundle) if finding.rule == "VL013"]


def test_a_known_load_needs_no_length_limit_where_the_start_is_certain():
    """2 x RTX 3090: the cache of each holds one request and a half of the model's longest."""
    one = layout((0,), (1,), box=make_box("RTX-3090-24GB", 2), model=AWQ)
    assert len(length_warnings(one)) == 2
    assert length_warnings(one.replace(workload=Workload(users=8, prompt=500, output=100))) == []


def test_a_known_load_still_needs_one_where_the_arithmetic_may_be_wrong_about_the_start():
    fit_narrowly = EngineFlags(gpu_memory_utilization=0.70)  # the cache holds 5 % more than the model's longest
    one = layout((0,), box=make_box("RTX-3090-24GB", 1), model=AWQ, flags=fit_narrowly, users=8, prompt=500, output=100)
    assert len(length_warnings(one)) == 1


def test_no_layout_whose_users_wait_for_a_seat_is_put_before_one_whose_users_have_theirs():
    """By formula 2xTP2 answers a third sooner, after a wait of most of an answer; simulated, it answers later."""
    cards = make_box("RTX-4060-TI-16GB", 4)
    one = layout((0, 1, 2, 3), box=cards, model="Qwen/Qwen2.5-32B-Instruct-AWQ", users=100, prompt=1024, output=512)
    kinds = tuple((gpu, find_gpu("RTX-4060-TI-16GB")) for gpu in range(4))
    ahead = _clearly_better(one, find_card("Qwen2.5-32B-Instruct-AWQ"), Goal(workload=one.workload), kinds)
    assert [other.name for other in ahead] == ["1xTP1PP4"]
