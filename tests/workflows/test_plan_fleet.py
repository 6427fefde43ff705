"""How many boxes: the fewest that carry a load, what each has of it, and what is said of it."""

import json
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from atoll.cli.main import make_app
from atoll.errors import InputError, NothingFits
from atoll.inventory.catalog import make_box
from atoll.layout.fleet import Fleet, FleetBoxes
from atoll.layout.layout import Layout
from atoll.model.read import read_model
from atoll.workflows.fleet import BoxKind, KnownFleet
from atoll.workflows.plan import plan_model, verdict
from atoll.workflows.plan_fleet import (
    catalogue_fleet,
    choose_boxes,
    curve_of,
    explain_fleet,
    fleet_of,
    fleet_plan_document,
    fleet_weights,
    plan_fleet,
)
from stand_ins.goals import plain_goal

MODEL = "Qwen/Qwen2.5-7B-Instruct"


def goal(users, **changes):
    return plain_goal(
        **{"users": users, "prompt": 1000, "output": 300, "slo_ttft_s": 0.5, "slo_tpot_s": 0.03, **changes}
    )


def planner(model=MODEL):
    card = read_model(model)
    return partial(plan_model, card, model=model)


def two_kinds():
    entries = (
        FleetBoxes(name="small", count=6, gpu="L40S-48GB", gpus=1),
        FleetBoxes(name="big", count=1, gpu="H100-PCIe-80GB", gpus=1, price_per_hour=3),
    )
    kinds = tuple(BoxKind(entry=one, box=make_box(one.gpu, one.gpus)) for one in entries)
    return KnownFleet(fleet=Fleet(name="hall", boxes=entries), kinds=kinds)


@pytest.fixture(scope="module")
def three_boxes():
    known = catalogue_fleet(make_box("L40S-48GB", 1), count=10)
    return plan_fleet(known, goal(60), plan_one=planner(), card=read_model(MODEL), spare=1)


def test_the_fewest_boxes_that_carry_the_load_are_taken_and_a_spare_one(three_boxes):
    most = three_boxes.plans[0].most
    needed = -(-60 // most)
    assert three_boxes.boxes == needed + 1
    assert three_boxes.met
    assert three_boxes.carries_without_spare == needed * most >= 60 > (needed - 1) * most


def test_the_fleet_behind_one_door_keeps_the_targets(three_boxes):
    assert three_boxes.whole.simulated
    assert three_boxes.whole.meets(goal(60))
    assert any("behind that door it keeps the targets" in line for line in explain_fleet(three_boxes))


def test_the_layout_of_a_box_has_its_part_of_the_load(three_boxes):
    layout = three_boxes.shares[0].layout
    assert layout.workload.users == -(-60 // three_boxes.boxes)
    assert Layout.parse(layout.to_yaml(), origin="again") == layout


def test_the_document_has_what_others_rely_on(three_boxes):
    document = json.loads(json.dumps(fleet_plan_document(three_boxes), allow_nan=False))
    assert {"boxes", "layout", "headroom", "curve", "why"} <= document.keys()
    assert document["curve"][1] == {"boxes": 2, "users": 2 * three_boxes.plans[0].most}
    assert document["total"] == {"gpus": document["boxes"], "watts": 350.0 * document["boxes"], "price_per_hour": None}
    assert document["headroom"] >= 0


def test_several_kinds_have_their_shares_and_the_door_weighs_them():
    one = plan_fleet(two_kinds(), goal(40), plan_one=partial(planner(), simulate=False), card=read_model(MODEL))
    load = round(sum(plan.most for plan in one.plans) * 1.2)  # more than one box of each carries
    made = plan_fleet(two_kinds(), goal(load), plan_one=partial(planner(), simulate=False), card=read_model(MODEL))
    big, small = made.shares
    assert (big.of.kind.name, big.count) == ("big", 1)  # what carries most is taken first
    assert big.load / small.load == pytest.approx(big.of.most / small.of.most)
    assert big.load + small.count * small.load == pytest.approx(load)
    weights = fleet_weights(made.shares)
    assert weights[0] == round(20 * big.of.most / small.of.most)
    assert set(weights[1:]) == {20}
    assert len(fleet_plan_document(made)["layouts"]) == 2


def test_too_few_boxes_are_said_to_be_and_how_many_would_do():
    known = catalogue_fleet(make_box("L40S-48GB", 1), count=1)
    made = plan_fleet(known, goal(60), plan_one=planner(), card=read_model(MODEL))
    assert not made.met
    wanted = -(-60 // made.plans[0].most)
    assert f"1 box is too few for 60 users: what is carried within the targets is {made.plans[0].most:.0f} users; " in (
        line := next(explain_fleet(made))
    )
    assert f"{wanted:.0f} boxes like box would do." in line
    assert [point["boxes"] for point in curve_of(made)] == [1]


def test_a_plan_of_one_box_names_the_boxes_that_would_carry_the_load():
    made = plan_model(read_model(MODEL), make_box("L40S-48GB", 1), goal(60), model=MODEL)
    most = max(one.most.load for one in made.search.choices)
    assert f"{-(-60 // most):.0f} such boxes would carry it: --boxes {-(-60 // most):.0f} plans them." in verdict(made)


def test_a_load_that_nothing_limits_and_a_model_that_fits_nowhere_are_refused():
    known = catalogue_fleet(make_box("L40S-48GB", 1), count=2)
    with pytest.raises(InputError, match="give --slo-ttft"):
        plan_fleet(known, goal(60, slo_ttft_s=None, slo_tpot_s=None), plan_one=planner(), card=read_model(MODEL))
    big = "meta-llama/Llama-3.3-70B-Instruct"
    with pytest.raises(NothingFits, match="would hold it"):
        plan_fleet(known, goal(60), plan_one=planner(big), card=read_model(big))


def test_a_model_that_no_box_holds_is_told_how_many_boxes_would_by_memory():
    known = catalogue_fleet(make_box("H100-SXM-80GB", 8), count=2)
    name = "deepseek-ai/DeepSeek-R1"
    with pytest.raises(
        NothingFits, match="By memory 2 boxes of 8 x H100-SXM-80GB would hold it, with tensor parallel 8"
    ):
        plan_fleet(known, goal(60), plan_one=planner(name), card=read_model(name))


def test_more_cards_than_a_box_has_are_boxes_of_eight():
    known = fleet_of(None, boxes=None, spare=None, capture=None, gpu="H100-SXM-80GB", gpus=80)
    assert (known.fleet.count, known.gpus) == (10, 80)
    assert fleet_of(None, boxes=None, spare=None, capture=None, gpu="H100-SXM-80GB", gpus=8) is None


@given(
    most=st.lists(st.integers(1, 500), min_size=1, max_size=5),
    counts=st.lists(st.integers(1, 6), min_size=5, max_size=5),
    load=st.integers(1, 3000),
    spare=st.integers(0, 3),
)
def test_one_box_less_never_carries_the_load(most, counts, load, spare):
    kinds = list(zip(sorted(most, reverse=True), counts, strict=False))
    chosen, met = choose_boxes(kinds, load, spare=spare)
    each = [carried for (carried, _), count in zip(kinds, chosen, strict=True) for _ in range(count)]
    if met:
        assert sum(each[spare:]) >= load
        assert sum(each[:-1][spare:]) < load
    else:
        assert chosen == [count for _, count in kinds]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--spare", "1", "--gpu", "L4"], "--spare is for several boxes"),
        (["--fleet", "f.yaml", "--boxes", "2"], "leave --boxes"),
        (["--boxes", "5000", "--gpu", "L4", "--gpus", "1"], "--boxes 5000 is not 1 to 4,096"),
        (["--boxes", "2"], "Say which box"),
    ],
)
def test_what_does_not_go_together_is_one_sentence(words, said):
    done = CliRunner().invoke(make_app(["plan"]), ["plan", "--model", MODEL, "--slo-ttft", "1s", *words])
    assert isinstance(done.exception, InputError)
    assert said in str(done.exception)
