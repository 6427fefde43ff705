"""Several models on one box, from the file that asks for them to the bundle."""

import pytest

from atoll.errors import InputError, NothingFits
from atoll.inventory.catalog import make_box
from atoll.layout.stack import Stack, StackGoal
from atoll.load.target import RequestOptions
from atoll.workflows.diagnose import diagnose_bundle
from atoll.workflows.stack import plan_stack, render_stack_files, stack_document
from atoll.workflows.stack_bench import bench_stack, is_stack_bundle

BIG, SMALL = "Qwen/Qwen2.5-32B-Instruct", "Qwen/Qwen2.5-7B-Instruct"
EMBEDDING, RERANKER = "Qwen/Qwen3-Embedding-0.6B", "Qwen/Qwen3-Reranker-0.6B"


def goal_of(*models):
    plain = {"name": "office", "box": {"gpu": "H100-NVL-94GB", "gpus": 4}, "models": list(models)}
    return StackGoal.from_plain(plain, origin="stack.yaml")


OFFICE = goal_of(
    {"model": BIG, "workload": {"users": 8, "prompt": 1000, "output": 100, "requests": 40}, "slo": {"ttft": "1s"}},
    {"model": SMALL, "workload": {"users": 8, "prompt": 500, "output": 50, "requests": 40}, "slo": {"tpot": "30ms"}},
    {"model": EMBEDDING, "workload": {"rate": 20, "prompt": 400}},
    {"model": RERANKER, "workload": {"rate": 5, "prompt": 800}},
)


@pytest.fixture(scope="module")
def office():
    return plan_stack(OFFICE, make_box("H100-NVL-94GB", 4))


def test_four_models_on_four_cards(office):
    chat, code, embedding, reranker = office.models
    assert office.met
    assert office.stack.met
    assert chat.place.memory is code.place.memory is None
    assert embedding.place.gpus == reranker.place.gpus
    assert embedding.summary is None  # no timing is known, and none is made up
    assert "no timing: measure" in office.why
    assert "stated, with no band" in office.why
    extra = reranker.layout.flags.extra
    assert extra[:2] == ("--runner", "pooling")
    assert "is_original_qwen3_reranker" in extra[3]
    document = stack_document(office)
    assert document["met"]
    assert document["idle_gpus"] == []
    assert [layout["model"] for layout in document["layouts"]] == [BIG, SMALL, EMBEDDING, RERANKER]


def test_what_is_planned_is_read_again_rendered_and_nothing_is_found_against_it(office):
    stack = Stack.parse(office.stack.to_yaml(), origin="office.yaml")
    assert stack == office.stack
    for to in ("process", "compose"):
        bundle = render_stack_files(stack, to=to)
        assert [str(finding) for finding in diagnose_bundle(bundle)] == []


def test_who_gives_way_is_said_with_the_load_that_would_hold():
    asked = goal_of(
        {"model": BIG, "workload": {"users": 600, "output": 40, "requests": 600}, "slo": {"tpot": "25ms"}},
        {"model": SMALL, "workload": {"users": 4, "requests": 8}, "slo": {"ttft": "1s"}},
    )
    made = plan_stack(asked, make_box("H100-NVL-94GB", 4))
    assert not made.met
    assert f"{BIG} gives way: its targets do not hold for 600 users" in made.why
    assert "they would for " in made.why


def test_models_that_do_not_fit_are_refused_with_what_each_needs():
    asked = goal_of({"model": BIG}, {"model": "Qwen/Qwen2.5-72B-Instruct"})
    with pytest.raises(NothingFits, match=r"do not fit on 2 GPUs together: .*32B-Instruct .* card.*2 cards"):
        plan_stack(asked, make_box("H100-NVL-94GB", 2))


def test_a_stack_that_is_not_up_is_not_measured(office, tmp_path):
    bundle = tmp_path / "bundle"
    render_stack_files(office.stack, to="process", folder=bundle)
    assert is_stack_bundle(str(bundle))
    with pytest.raises(InputError, match="is not up"):
        bench_stack(bundle, tmp_path / "runs", options=RequestOptions(), with_load=lambda own: own)
