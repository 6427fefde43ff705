"""What planner and doctor say, in Korean: the table is whole, and what it does not have is found here."""

import re
import tomllib
from importlib import resources
from pathlib import Path

import pytest

from atoll.model.read import read_model
from atoll.plan.explain import explain_choice
from atoll.plan.goal import Goal
from atoll.report.sentences import tell, tell_words, untold, with_particles
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Lengths, Workload
from atoll.workflows.boxes import named_box
from atoll.workflows.diagnose import diagnose_folder
from atoll.workflows.plan import plan_model, verdict

DATA = Path(__file__).parents[1] / "data" / "doctor"
TABLE = tomllib.loads(resources.files("atoll.report").joinpath("templates/sentences.toml").read_text(encoding="utf-8"))
COMMONEST = {"DC001", "DC005", "DC009", "DC012", "DC016", "DC017", "NG005", "VL001", "VL004", "VL018"}
# A box, how many cards, a model, users, prompt, answer, TTFT, TPOT.
QUESTIONS = [
    ("H100-NVL-94GB", 4, "Qwen/Qwen2.5-7B-Instruct", 30, 1500, 300, 1.0, 0.05),
    ("L40S-48GB", 2, "Qwen/Qwen2.5-32B-Instruct", 64, 1024, 512, 1.0, 0.05),
    ("A100-SXM-80GB", 8, "Qwen/Qwen2.5-72B-Instruct", 16, 2000, 300, 2.0, 0.1),
    ("RTX-4090-24GB", 4, "Qwen/Qwen2.5-14B-Instruct", 8, 500, 200, None, None),
    ("H100-SXM-80GB", 2, "meta-llama/Llama-3.1-70B-Instruct", 200, 4000, 512, 0.5, 0.02),
]


def test_every_row_has_its_holes_and_both_languages_in_both():
    for row in [*TABLE["sentence"], *TABLE["phrase"]]:
        assert set(row) == {"en", "ko"}
        assert set(re.findall(r"\{\w+\}", row["ko"])) <= set(re.findall(r"\{\w+\}", row["en"])), row["en"]
        assert re.search("[가-힣]", row["ko"]) or row in TABLE["phrase"]
    english = [row["en"] for row in TABLE["sentence"]]
    assert len(english) == len(set(english))


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda one: f"{one[1]}x{one[0]}")
def test_all_that_the_planner_says_by_formula_is_in_the_table(question):
    """A sentence that is new or was changed goes into report/templates/sentences.toml."""
    gpu, gpus, model, users, prompt, output, ttft_s, tpot_s = question
    load = Workload(users=users, prompt=Lengths(mean=prompt), output=Lengths(mean=output), duration_s=600)
    goal = Goal(workload=load, slo=SLO(ttft_s=ttft_s, tpot_s=tpot_s))
    box = named_box(gpu=gpu, gpus=gpus)
    plan = plan_model(read_model(model), box, goal, model=model, simulate=False, vary_load=False)
    said = [*verdict(plan), *box.notes, *(one.why for one in plan.search.rejected)]
    for choice in plan.search.choices:
        said += [explain_choice(choice, plan.search, plan.workbench), *choice.warnings]
    assert [sentence for text in said for sentence in untold(text, "ko")] == []
    assert all(tell(text, "en") == text for text in said)


def test_all_of_the_doctors_ten_commonest_findings_is_in_the_table():
    """A finding whose words are new or were changed goes into report/templates/sentences.toml."""
    folders = [DATA / "stack-a", DATA / "stack-b", *sorted((DATA / "corpus").iterdir())]
    found = [one for folder in folders[:12] for one in diagnose_folder(folder) if one.rule in COMMONEST]
    assert len({one.rule for one in found}) >= 8
    said = [(one.rule, text) for one in found for text in (one.what, one.why, one.fix)]
    assert [(rule, sentence) for rule, text in said for sentence in untold(text, "ko")] == []


def test_a_text_is_told_sentence_by_sentence_and_what_is_not_known_stays():
    text = "It is the only layout that is possible. This is new. It does as well as 2xTP2."
    assert tell(text, "ko") == "가능한 배치는 이것뿐입니다. This is new. 2xTP2 배치와 성능이 같습니다."
    assert untold(text, "ko") == ["This is new."]
    assert tell_words("30 users", "ko") == "30명"
    assert tell("x: ; kept " * 50_000, "ko").startswith("x: ; kept x")  # at once


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("8을(를)", "8을"), ("2을(를)", "2를"), ("3은(는)", "3은"), ("서버이(가)", "서버가"), ("팀장이(가)", "팀장이"),
        ("7(으)로", "7로"), ("3(으)로", "3으로"), ("4(으)로", "4로"), ("80GB이(가)", "80GB가"), ("auto을(를)", "auto을(를)"),
    ],
)  # fmt: skip
def test_particles_follow_the_sound_before_them(given, told):
    assert with_particles(given) == told
