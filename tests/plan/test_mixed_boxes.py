"""Boxes with cards of several kinds: each kind by itself, kinds together, and the order of the cards does not matter."""

from itertools import permutations

import pytest

from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import find_gpu
from atoll.model.catalog import find_card
from atoll.plan.candidates import find_candidates
from atoll.plan.draft import Question
from atoll.plan.enumerate import Wanted
from atoll.plan.explain import explain_choice
from atoll.plan.search import search_layouts
from atoll.plan.workbench import Workbench
from stand_ins.goals import plain_goal

GOAL = plain_goal(users=24, prompt=1024, output=512)


def question(*cards, model="Qwen3-32B-AWQ", goal=GOAL, wanted=None):
    """So many cards of these kinds, in this order, on one host bridge."""
    gpus = tuple(Gpu(index=n, name=name) for n, name in enumerate(cards))
    links = tuple(Link(a=a, b=b, kind=LinkKind.PHB) for a in range(len(cards)) for b in range(a + 1, len(cards)))
    bench = Workbench(
        box=Box(gpus=gpus, links=links),
        card=find_card(model),
        kinds={n: find_gpu(name) for n, name in enumerate(cards)},
    )
    return Question(workbench=bench, goal=goal, model=model, wanted=wanted or Wanted())


def found(asked):
    return {one.name: [replica.gpus for replica in one.layout.replicas] for one in find_candidates(asked).drafts}


def test_each_kind_is_looked_at_by_itself_and_both_together():
    assert found(question("L40S-48GB", "H100-PCIe-80GB")) == {
        "1xTP1.H100-PCIe-80GB": [(1,)],
        "1xTP1.L40S-48GB": [(0,)],
        "2xTP1": [(0,), (1,)],
    }


def test_what_each_kind_holds_is_said_of_each():
    """Both have the weights; the larger card has twenty times the room beside them."""
    asked = question("RTX-PRO-6000-96GB", "RTX-4090-24GB")
    both = search_layouts(asked.workbench, asked.goal, model=asked.model)
    words = explain_choice(next(one for one in both.choices if one.name == "2xTP1"), both, asked.workbench)
    assert "GPU 0 holds 19.3 GB of weights and 73.9 GB of KV cache" in words
    assert "GPU 1 holds 19.3 GB of weights and 3.28 GB of KV cache" in words
    assert "Each GPU" not in words


def test_cards_that_alternate_are_grouped_by_kind():
    cards = ("H100-PCIe-80GB", "L40S-48GB") * 2
    layouts = found(question(*cards, wanted=Wanted(tensor_parallel=2)))
    assert layouts["1xTP2.H100-PCIe-80GB"] == [(0, 2)]
    assert layouts["2xTP2"] == [(0, 2), (1, 3)]


def test_kinds_may_be_split_differently():
    layouts = found(question("L4-24GB", "L4-24GB", "L40S-48GB", model="Qwen2.5-14B-Instruct"))
    assert layouts["1xTP2.L4-24GB_1xTP1.L40S-48GB"] == [(0, 1), (2,)]


@pytest.mark.parametrize("model", ["Qwen3-30B-A3B-FP8", "Qwen2.5-14B-Instruct", "Qwen3-32B-AWQ"])
def test_the_order_of_the_cards_does_not_matter(model):
    scored = []
    for cards in permutations(("RTX-4090-24GB", "RTX-PRO-6000-96GB", "L40S-48GB")):
        drafts = find_candidates(question(*cards, model=model)).drafts
        scored.append([(one.name, one.predicted.summary.output_tokens_per_s) for one in drafts])
    assert all([name for name, _ in one] == [name for name, _ in scored[0]] for one in scored)
    for one in scored:
        assert [rate for _, rate in one] == pytest.approx([rate for _, rate in scored[0]])


def test_a_model_that_only_the_larger_card_holds_goes_there_wherever_it_stands():
    asked = question("RTX-4090-24GB", "RTX-PRO-6000-96GB", model="Qwen2.5-14B-Instruct")
    assert found(asked) == {"1xTP1.RTX-PRO-6000-96GB": [(1,)]}
    refused = {one.name: one.why for one in find_candidates(asked).too_big}
    assert refused["1xTP2"].startswith("A replica on cards of several kinds (")
    assert "does not fit" in refused["TP1.RTX-4090-24GB"]


def test_a_kind_that_cannot_run_the_model_leaves_the_other_its_layouts():
    assert found(question("P100-PCIe-16GB", "L40S-48GB")) == {"1xTP1.L40S-48GB": [(1,)]}


def test_a_size_that_no_kind_has_the_cards_for_is_refused_in_the_boxes_words():
    refused = find_candidates(question("L40S-48GB", "H100-PCIe-80GB", wanted=Wanted(tensor_parallel=2)))
    assert refused.drafts == ()
    assert [one.name for one in (*refused.illegal, *refused.too_big)] == ["1xTP2"]
    refused = find_candidates(question("L40S-48GB", "H100-PCIe-80GB", wanted=Wanted(tensor_parallel=8)))
    assert [one.why for one in refused.too_big] == ["Tensor parallel 8 needs 8 GPUs; this box has 2."]
