"""Names of GPUs mean nothing, more GPUs never make the best layout worse, better links never slow it down."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.inventory.box import Box, Link, LinkKind
from atoll.inventory.catalog import find_gpu, make_box
from atoll.model.catalog import find_card
from atoll.plan.loads import TIE
from atoll.plan.search import search_layouts
from atoll.plan.workbench import Workbench
from stand_ins.goals import plain_goal

KINDS = st.sampled_from(("H100-NVL-94GB", "H100-SXM-80GB", "A100-SXM-80GB", "L40S-48GB", "RTX-4090-24GB"))
MODELS = st.sampled_from(("Qwen2.5-7B-Instruct", "Qwen2.5-32B-Instruct", "Qwen3-30B-A3B", "Qwen2.5-14B-Instruct-AWQ"))
GOALS = st.builds(
    lambda users, prompt, output: plain_goal(users=users, prompt=prompt, output=output),
    st.integers(1, 200),
    st.integers(50, 4000),
    st.integers(20, 2000),
)


def search(box, name, goal):
    kinds = {gpu.index: find_gpu(gpu.name) for gpu in box.gpus}
    bench = Workbench(box=box, card=find_card(name), kinds=kinds)
    return search_layouts(bench, goal, model=name, vary_load=False)


def renamed(box, order):
    """The same box with other numbers on its cards; order[i] is the new number of card i."""
    links = [
        link.replace(a=min(order[link.a], order[link.b]), b=max(order[link.a], order[link.b])) for link in box.links
    ]
    gpus = sorted((gpu.replace(index=order[gpu.index]) for gpu in box.gpus), key=lambda gpu: gpu.index)
    return Box(gpus=tuple(gpus), links=tuple(links))


@given(KINDS, MODELS, GOALS, st.permutations(range(4)))
@settings(max_examples=25, deadline=None)
def test_renaming_gpus_changes_nothing_but_names(kind, model, goal, order):
    box = make_box(kind, 4)
    one, other = search(box, model, goal), search(renamed(box, order), model, goal)
    assert {c.name: c.predicted for c in one.choices} == {c.name: c.predicted for c in other.choices}
    assert [r.why for r in one.rejected] == [r.why for r in other.rejected]


@given(KINDS, MODELS, GOALS, st.integers(1, 5), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_more_gpus_never_give_a_worse_best_layout(kind, model, goal, count, more):
    few, many = search(make_box(kind, count), model, goal), search(make_box(kind, count + more), model, goal)
    if few.choices:
        assert many.choices
        assert many.best.predicted.cost(goal) <= few.best.predicted.cost(goal) * (1 + 2 * TIE)


@given(MODELS, GOALS)
@settings(max_examples=20, deadline=None)
def test_better_links_never_make_the_best_layout_worse(model, goal):
    """H100s through NVSwitch against the same cards over PCIe."""
    switch = make_box("H100-SXM-80GB", 4)
    far = tuple(Link(a=link.a, b=link.b, kind=LinkKind.SYS) for link in switch.links)
    fast, slow = search(switch, model, goal), search(switch.replace(links=far), model, goal)
    assert fast.best.predicted.cost(goal) <= slow.best.predicted.cost(goal) * (1 + TIE)


@given(KINDS, MODELS, GOALS)
@settings(max_examples=25, deadline=None)
def test_every_choice_stands_on_the_box_and_within_the_cards(kind, model, goal):
    box = make_box(kind, 4)
    bench = Workbench(box=box, card=find_card(model), kinds={gpu.index: find_gpu(gpu.name) for gpu in box.gpus})
    for choice in search_layouts(bench, goal, model=model, vary_load=False).choices:
        for replica in choice.layout.replicas:
            fit = bench.fit(replica, choice.layout.flags)
            assert fit.fits
            assert fit.kv_tokens >= goal.longest
            assert fit.kv_tokens >= (choice.layout.flags.max_model_len or bench.card.max_context)
