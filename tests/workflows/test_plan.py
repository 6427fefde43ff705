"""atoll plan and atoll model as a user runs them."""

import json
from pathlib import Path

import pytest

from atoll.analyse.summary import Summary
from atoll.errors import BadTopology, InputError, NothingFits
from atoll.layout.layout import Layout
from atoll.model.read import read_model
from atoll.plan.outlook import Outlook
from atoll.workflows.boxes import named_box
from atoll.workflows.engine_options import EngineOptions
from atoll.workflows.model import report_model
from atoll.workflows.plan import check_something_fits, plan_box, plan_document, plan_model, save_chart, verdict
from atoll.workflows.simulate import simulate_run
from stand_ins.goals import plain_goal

PAIRS = """\
	GPU0	GPU1	GPU2	GPU3	CPU Affinity	NUMA Affinity
GPU0	 X 	NV12	SYS	SYS	0-31	0
GPU1	NV12	 X 	SYS	SYS	0-31	0
GPU2	SYS	SYS	 X 	NV12	32-63	1
GPU3	SYS	SYS	NV12	 X 	32-63	1
"""
QWEN = "Qwen/Qwen2.5-32B-Instruct"


def goal(**changes):
    return plain_goal(**{"users": 30, "prompt": 2000, "output": 1500, **changes})


GOAL = goal()


@pytest.fixture(scope="module")
def capture(tmp_path_factory):
    path = tmp_path_factory.mktemp("box") / "topo.txt"
    path.write_text(PAIRS)
    return str(path)


@pytest.fixture(scope="module")
def plan(capture):
    return plan_box(model=QWEN, goal=goal(slo_ttft_s=1.0), capture=capture, gpu="H100-NVL-94GB")


def test_the_document_has_what_others_rely_on(plan):
    document = json.loads(json.dumps(plan_document(plan), allow_nan=False))
    first = document["choices"][0]
    assert first["replicas"][0].keys() >= {"gpus", "tensor_parallel"}
    assert {"name", "policy", "flags", "predicted", "why", "warnings", "score"} <= first.keys()
    for choice in document["choices"]:
        Summary.from_plain(choice["predicted"], origin="predicted")
    assert {"name", "why"} == document["rejected"][0].keys()


def test_the_pairs_win_on_bridged_pairs(plan):
    assert plan.best.name == "2xTP2"
    assert [replica.gpus for replica in plan.best.layout.replicas] == [(0, 1), (2, 3)]


def test_the_contenders_were_simulated_and_the_formula_agrees(plan):
    simulated = [choice for choice in plan.search.choices if choice.predicted.simulated]
    assert len(simulated) >= 4
    for choice in simulated:
        assert choice.predicted.summary.e2e_s.mean == pytest.approx(choice.formula.summary.e2e_s.mean, rel=0.05)
        assert choice.predicted.summary.tpot_s.mean == pytest.approx(choice.formula.summary.tpot_s.mean, rel=0.05)


def test_throughput_is_that_of_all_users_at_work(plan):
    for choice in plan.search.choices:
        predicted = choice.predicted
        assert predicted.summary.requests_per_s * predicted.summary.e2e_s.mean == pytest.approx(30, rel=0.01)


def test_the_verdict_tells_users_and_crossover(plan):
    words = " ".join(verdict(plan))
    assert "back-to-back users within the targets" in words
    assert plan.search.best.most_users
    assert plan.search.best.most_users >= 30


def test_the_best_layout_stands_on_its_own(plan):
    layout = plan.best.layout
    assert Layout.parse(layout.to_yaml(), origin="layout.yaml") == layout


def test_the_same_question_gets_the_same_answer(capture):
    asked = goal(users=8, output=200, slo_ttft_s=1.0)
    one, again = (plan_box(model=QWEN, goal=asked, capture=capture, gpu="H100-NVL-94GB") for _ in range(2))
    assert plan_document(again) == plan_document(one)


def test_a_model_that_does_not_fit_says_what_would(capture):
    made = plan_box(model="deepseek-ai/DeepSeek-R1", goal=GOAL, capture=capture, gpu="H100-NVL-94GB")
    assert made.search.choices == ()
    assert plan_document(made)["rejected"]
    with pytest.raises(NothingFits) as caught:
        check_something_fits(made)
    assert str(caught.value).startswith("deepseek-ai/DeepSeek-R1 cannot be served on 4 x H100-NVL-94GB: ")
    assert str(caught.value).endswith("8 x H100-NVL-94GB with tensor parallel 8 would hold it.")


def test_an_illegal_size_names_the_legal_ones(capture):
    from atoll.plan.enumerate import Wanted

    made = plan_box(
        model=QWEN, goal=GOAL, capture=capture, gpu="H100-NVL-94GB", wanted=Wanted(tensor_parallel=3), simulate=False
    )
    with pytest.raises(NothingFits, match="legal sizes are 1, 2, 4 and 8"):
        check_something_fits(made)


def test_a_capture_that_is_none_passes_through(tmp_path):
    (tmp_path / "none.txt").write_text("hello")
    with pytest.raises(BadTopology):
        plan_box(model=QWEN, goal=GOAL, capture=str(tmp_path / "none.txt"), gpu="H100-NVL-94GB")


def test_nameless_cards_must_be_named(capture):
    with pytest.raises(InputError, match="name it with --gpu"):
        plan_box(model=QWEN, goal=GOAL, capture=capture)


def test_a_request_longer_than_the_context_is_refused(capture):
    with pytest.raises(InputError, match="longer than the context"):
        plan_box(model=QWEN, goal=goal(prompt=40000), capture=capture, gpu="H100-NVL-94GB")


def test_the_most_users_are_simulated_for_the_contenders_and_marked(plan):
    document = {choice["name"]: choice for choice in plan_document(plan)["choices"]}
    assert document["2xTP2"]["most_method"] == document["1xTP4"]["most_method"] == "simulated"
    assert document["4xTP1"]["most_method"] == "simulated"  # the best of its size
    assert document["1xTP1"]["most_method"] == "formula"
    assert document["1xTP1"]["most_rate"] is None


@pytest.fixture(scope="module")
def open_plan(capture):
    goal = plain_goal(rate=1.0, prompt=2000, output=500, slo_ttft_s=1.0, slo_tpot_s=0.04)
    return plan_box(model=QWEN, goal=goal, capture=capture, gpu="H100-NVL-94GB")


def test_an_open_loop_is_planned_too(open_plan):
    best = open_plan.best.predicted
    assert best.simulated
    assert not best.saturated
    assert best.summary.requests_per_s == pytest.approx(1.0, rel=0.08)  # 600 of them, give or take 25


def test_an_open_loop_has_a_most_and_a_crossover_in_requests_per_second(open_plan):
    document = plan_document(open_plan)
    choices = {choice["name"]: choice for choice in document["choices"]}
    assert choices["2xTP2"]["most_method"] == "simulated"
    assert choices["1xTP4"]["most_rate"] < choices["2xTP2"]["most_rate"]
    assert choices["2xTP2"]["most_users"] is None
    assert document["crossover"]["load"] == "requests_per_s"
    (flip,) = document["crossover"]["flips"]
    assert (flip["before"], flip["after"]) == ("1xTP4", "2xTP2")
    loads = [point["load"] for point in document["crossover"]["curves"][0]["points"]]
    assert loads[-1] > choices["2xTP2"]["most_rate"]
    words = " ".join(verdict(open_plan))
    assert f"carries {open_plan.best.most_rate:g} requests/s within the targets (simulated)." in words
    assert f"From about {flip['load']:.2g} requests/s on, 2xTP2 is better than 1xTP4" in words


def test_engines_that_cannot_keep_up_are_ranked_by_what_they_answer_when_full():
    """An L40S beside an H100 answers as well; a run in which its queue empties last tells little of that."""
    cards = named_box(gpu="H100-PCIe-80GB", gpus=2)
    slower = cards.gpus[1].replace(name="L40S-48GB", memory_bytes=None)
    box = cards.replace(gpus=(cards.gpus[0], slower))
    card = read_model("openai/gpt-oss-20b")
    made = plan_model(card, box, plain_goal(rate=15, prompt=1500, output=3000), vary_load=False)
    assert made.best.name == "2xTP1"
    assert made.best.predicted.saturated
    best, alone = made.search.choices[:2]
    assert best.predicted.answered_per_s > alone.predicted.answered_per_s


def test_a_cluster_of_arrivals_is_no_queue_that_grows():
    """Two A100 PCIe seemed to pile up at 4.6 requests/s, in a sample of 400, and carry 5.7 over ten minutes."""
    from atoll.plan.draft import Question, score_layout
    from atoll.workflows.simulator import Simulator

    box = named_box(gpu="A100-PCIe-80GB", gpus=2)
    made = plan_model(
        read_model("Qwen/Qwen2.5-14B-Instruct"), box, plain_goal(rate=3, prompt=1000, output=300), vary_load=False
    )
    layout = next(one.layout for one in made.search.choices if one.name == "1xTP2")
    asked = Question(workbench=made.workbench, goal=plain_goal(rate=4.6, prompt=1000, output=300), model="14B")
    predicted = Simulator(made.workbench)(layout, asked.goal, score_layout(asked, layout))
    assert not predicted.saturated


def test_a_run_that_other_flags_would_not_change_is_not_repeated():
    from atoll.plan.draft import Question, score_layout
    from atoll.workflows.simulator import Simulator

    made = plan_model(
        read_model("Qwen/Qwen2.5-7B-Instruct"),
        named_box(gpu="RTX-4090-24GB", gpus=2),
        plain_goal(users=10, prompt=1024, output=100),
        vary_load=False,
        simulate=False,
    )
    layout = next(one.layout for one in made.search.choices if one.name == "2xTP1")
    asked = Question(workbench=made.workbench, goal=plain_goal(users=10, prompt=1024, output=100), model="7B")

    def simulated(simulator, seats, tokens):
        flags = layout.flags.replace(max_num_seqs=seats, max_num_batched_tokens=tokens)
        other = layout.replace(flags=flags)
        return simulator(other, asked.goal, score_layout(asked, other))

    shared = Simulator(made.workbench)
    first = simulated(shared, 32, 8192)
    for seats, tokens, is_same in ((64, 8192, True), (32, 16384, True), (2, 8192, False), (32, 1024, False)):
        alone = simulated(Simulator(made.workbench), seats, tokens)
        assert simulated(shared, seats, tokens) == alone  # to the last digit, whether it was run or not
        assert (simulated(shared, seats, tokens) is first) is is_same


@pytest.mark.parametrize(("part", "over"), [(0.7, False), (0.9, False), (1.2, True), (2.0, True)])
def test_a_growing_queue_is_told_from_a_busy_engine(open_plan, part, over):
    """One engine of TP 2 with 16 seats, under so much of what 16 answers at a time are."""
    from atoll.layout.layout import EngineFlags
    from atoll.plan.budget import sample_of
    from atoll.plan.score import score_stations
    from atoll.workflows.simulator import Simulator

    bench = open_plan.workbench
    layout = next(c.layout for c in open_plan.search.choices if c.name == "1xTP2")
    layout = layout.replace(flags=EngineFlags(max_num_seqs=16, max_num_batched_tokens=8192))
    station = bench.station(layout.replicas[0], layout.flags)
    asked = goal(users=16, output=500)
    full = score_stations([station], asked, shares=[1.0]).summary.requests_per_s
    loaded = plain_goal(rate=part * full, prompt=2000, output=500)
    formula = score_stations([station], loaded, shares=[1.0])
    assert sample_of(loaded, formula).requests < 2000
    predicted = Simulator(bench)(layout, loaded, formula)
    assert predicted.saturated is over
    if over:
        assert predicted.summary.requests_per_s == pytest.approx(full, rel=0.05)


@pytest.mark.parametrize(
    ("box", "model", "load", "targets"),
    [
        (("H100-NVL-94GB", 4), QWEN, {"users": 30, "prompt": 1500, "output": 3000}, {"slo_ttft_s": 1.0}),
        (("RTX-4090-24GB", 2), "Qwen/Qwen2.5-7B-Instruct", {"users": 20}, {}),
        (("H100-SXM-80GB", 2), "Qwen/Qwen2.5-14B-Instruct", {"rate": 1.5}, {"slo_ttft_s": 1.0}),
        (("RTX-4090-24GB", 1), "Qwen/Qwen2.5-7B-Instruct", {"users": 40, "output": 1000}, {}),  # users wait for a seat
        (
            ("H100-SXM-80GB", 4),
            "Qwen/Qwen2.5-14B-Instruct",
            {"users": 500, "output": 1000},
            {},
        ),  # half a round is measured
    ],
)
def test_the_written_layout_simulates_to_the_plans_figures(box, model, load, targets, tmp_path):
    gpu, gpus = box
    best = plan_box(model=model, goal=plain_goal(**load, **targets), gpu=gpu, gpus=gpus, vary_load=False).best
    layout = Layout.parse(best.layout.to_yaml(), origin="layout.yaml")
    simulated, planned = simulate_run(layout, layout.workload).summary, best.predicted.summary
    assert planned.ttft_s.p50 == pytest.approx(simulated.ttft_s.p50, rel=0.15)
    assert planned.tpot_s.p50 == pytest.approx(simulated.tpot_s.p50, rel=0.05)
    assert planned.e2e_s.mean == pytest.approx(simulated.e2e_s.mean, rel=0.05)
    assert planned.output_tokens_per_s == pytest.approx(simulated.output_tokens_per_s, rel=0.05)


@pytest.mark.parametrize(
    ("box", "model", "load"),
    [
        (("RTX-4090-24GB", 2), "Qwen/Qwen2.5-7B-Instruct", {"users": 20}),
        (("A100-PCIe-80GB", 2), "Qwen/Qwen2.5-14B-Instruct", {"rate": 2.0}),
    ],
)
def test_the_most_that_is_stated_is_what_the_written_layout_carries(box, model, load):
    gpu, gpus = box
    asked = plain_goal(**load, slo_ttft_s=1.0)
    best = plan_box(model=model, goal=asked, gpu=gpu, gpus=gpus).best
    assert best.most.simulated
    for more, holds in ((1.0, True), (1.15, False)):
        workload = asked.with_load(more * best.most.load).workload
        outlook = Outlook(summary=simulate_run(best.layout, workload).summary, simulated=True)
        assert outlook.meets(asked) is holds


def test_a_crowd_is_planned_within_the_effort_and_the_words_say_what_was_cut(capture):
    many = plan_box(model=QWEN, goal=goal(users=1500), capture=capture, gpu="H100-NVL-94GB")
    assert many.best.predicted.simulated
    assert many.search.curves
    assert any("takes long to simulate: of" in line for line in verdict(many))
    assert plan_document(many)["cuts"] == list(many.search.cuts)


def test_charts_are_png_or_svg(plan, tmp_path):
    save_chart(plan, tmp_path / "flip.svg")
    save_chart(plan, tmp_path / "flip.png")
    assert (tmp_path / "flip.svg").read_text().startswith("<svg")
    assert (tmp_path / "flip.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"should end in \.png or \.svg"):
        save_chart(plan, Path("flip.pdf"))


# atoll model


def test_a_model_on_every_kind():
    report = report_model(QWEN)
    assert report.legal_tensor_parallel == (1, 2, 4, 8)
    assert (report.parameters, report.weight_bytes, report.kv_bytes_per_token) == (32763876352, 65527752704, 262144)
    by_place = {(fit.gpu, fit.tensor_parallel): fit for fit in report.fits}
    assert by_place["H100-NVL-94GB", 1].fits
    assert not by_place["RTX-4090-24GB", 2].fits
    assert "32.8 GB of weights" in (by_place["RTX-4090-24GB", 2].why or "")
    assert not by_place["P100-PCIe-16GB", 8].fits


def test_longer_contexts_leave_room_for_fewer_users():
    short, long = (report_model(QWEN, gpu="H200", context=context).fits[0].users for context in (2048, 8192))
    assert short == pytest.approx(4 * long, abs=4)


def test_fp8_keys_make_room_for_twice_as_many():
    plain, fp8 = (
        report_model(QWEN, gpu="H100-NVL-94GB", options=EngineOptions(kv_cache_dtype=dtype)).fits[1].users
        for dtype in ("auto", "fp8")
    )
    assert fp8 == pytest.approx(2 * plain, abs=2)


def test_a_rate_at_which_hardly_anybody_comes_in_ten_minutes_is_planned_for():
    """Three requests, and none at a hundredth of the rate, from which on the most that is carried is looked for."""
    goal = plain_goal(users=None, rate=0.005, prompt=2000, output=400, slo_ttft_s=0.0001)
    made = plan_box(model="Qwen/Qwen2.5-7B-Instruct", goal=goal, gpu="L4", gpus=1)
    assert not made.best.predicted.meets(goal)
