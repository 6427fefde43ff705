"""Other loads: seats for more where they cost nothing, and what a layout carries as it is written."""

from dataclasses import replace

import pytest

from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags
from atoll.model.catalog import find_card
from atoll.plan.draft import Question, score_layout
from atoll.plan.enumerate import Wanted
from atoll.plan.explain import explain_seats, explain_tuning
from atoll.plan.search import search_layouts
from atoll.plan.workbench import Workbench
from stand_ins.goals import plain_goal

PAIR = Wanted(tensor_parallel=2, replicas=2)


def bench(kind="H100-NVL-94GB", gpus=4, model="Qwen2.5-32B-Instruct"):
    box = make_box(kind, gpus)
    return Workbench(box=box, card=find_card(model), kinds={gpu.index: find_gpu(gpu.name) for gpu in box.gpus})


def search(goal, where=None, **options):
    where = where or bench()
    return search_layouts(where, goal, model=where.card.name, **{"wanted": PAIR, **options})


def goal(**changes):
    return plain_goal(**{"users": 30, "prompt": 2000, "output": 1500, "slo_ttft_s": 1.0, **changes})


def as_the_formula_says(layout, goal, formula):
    return formula


def test_more_seats_are_written_where_they_cost_nothing_and_the_words_say_so():
    found = search(goal(), simulate=as_the_formula_says)
    best = found.best
    assert (best.widened_from, best.layout.flags.max_num_seqs) == (32, 120)
    assert best.most_users > 64
    (sentence,) = explain_seats(found)
    assert sentence == (
        "2xTP2 is written with --max-num-seqs 120, though 32 would do for 30 users: that changes nothing for them, and"
        " with 32 a request that finds 64 others would wait for a seat."
    )
    (line,) = (line for line in explain_tuning(best, found.goal) if line.startswith("max-num-seqs"))
    assert line.endswith("120 (no change); took 120 instead of 32.")


def test_no_more_seats_than_the_cache_has_room_for():
    found = search(goal(slo_ttft_s=60.0), simulate=as_the_formula_says)
    fit = bench().fit(found.best.layout.replicas[0], found.best.layout.flags)
    assert found.best.layout.flags.max_num_seqs * 3500 <= fit.kv_tokens


def test_seats_that_slow_the_load_down_are_not_taken_and_the_fewer_ones_carry_less():
    def simulate(layout, goal, formula):
        if layout.flags.max_num_seqs <= 64:
            return formula
        answer = formula.summary.e2e_s
        longer = answer.replace(mean=1.1 * answer.mean)
        return replace(formula, summary=formula.summary.replace(e2e_s=longer))

    found = search(goal(), simulate=simulate)
    assert found.best.widened_from is None
    assert found.best.layout.flags.max_num_seqs == 32
    assert found.best.most_users <= 66
    assert list(explain_seats(found)) == []


def test_seats_that_are_given_stay():
    found = search(goal(), flags=EngineFlags(max_num_seqs=16))
    assert found.best.layout.flags.max_num_seqs == 16
    assert found.best.most_users <= 33


@pytest.mark.parametrize("load", [{"users": 30}, {"users": None, "rate": 1.0}])
def test_what_is_carried_is_found_on_the_layout_as_it_is_written(load):
    where, asked = bench(), goal(**load)
    found = search(asked, where)
    question = Question(workbench=where, goal=asked, model="m", wanted=PAIR)
    most = found.best.most.load
    assert score_layout(question.at_load(most), found.best.layout).meets(asked)
    assert not score_layout(question.at_load(1.1 * most), found.best.layout).meets(asked)
