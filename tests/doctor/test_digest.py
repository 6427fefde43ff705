"""What holds for services that are alike is told once, small habits together, the worst first."""

from atoll.doctor.digest import in_reading_order, join_alike, sum_up
from atoll.doctor.files import HeldFiles
from atoll.doctor.finding import Finding, FixClass, Severity
from atoll.workflows.diagnose import Diagnosis, ask, diagnose

FOUR = "".join(
    f"  gem_{n}:\n    image: vllm/vllm-openai:v0.33.0\n    ipc: host\n    command: Qwen/Qwen2.5-7B-Instruct --swap-space 4\n"
    f'    gpus: [{{device_ids: ["{n}"]}}]\n    volumes: ["./hf:/root/.cache/huggingface"]\n'
    for n in range(4)
)
NGINX = """events {}
http {
  upstream up { server gem_0:8000; server gem_1:8000; server gem_2:8000; server gem_3:8000; }
  server { listen 80; location / { proxy_pass http://up; } }
}
"""


def diagnosis(**files: str) -> Diagnosis:
    named = {name.replace("_", "."): text for name, text in files.items()}
    return diagnose(ask(["."]), HeldFiles(named))


def test_four_replicas_with_one_fault_are_one_finding_with_four_places():
    told = diagnosis(compose_yaml="services:\n" + FOUR).told(everything=True)
    gone = [finding for finding in told if finding.rule == "VL001"]
    assert [finding.what for finding in gone] == ["--swap-space is gone in vLLM 0.33 (in 4 places)"]
    assert [spot.line for spot in gone[0].places] == [5, 11, 17, 23]
    assert len(gone[0].edits) == 4
    killed = next(finding for finding in told if finding.rule == "DC016")
    assert killed.what == "gem_0 is killed 10 s after it is told to stop (and gem_1, gem_2 and gem_3)"
    assert [spot.name for spot in killed.places] == ["gem_0", "gem_1", "gem_2", "gem_3"]


def test_findings_that_say_different_things_stay_apart():
    text = "services:\n" + FOUR.replace('["3"]', '["2"]').replace('["1"]', '["0"]')
    shared = [finding for finding in diagnosis(compose_yaml=text).told() if finding.rule == "TP008"]
    assert [finding.what for finding in shared] == [
        "GPU 0 is given to gem_0 and to gem_1",
        "GPU 2 is given to gem_2 and to gem_3",
    ]


def test_a_third_service_on_a_card_is_named():
    text = "services:\n" + "".join(FOUR.split("  gem_3")[0]).replace('["1"]', '["0"]').replace('["2"]', '["0"]')
    shared = [finding for finding in diagnosis(compose_yaml=text).told() if finding.rule == "TP008"]
    assert [finding.what for finding in shared] == ["GPU 0 is given to gem_0 and to gem_1 (and gem_2)"]


def test_small_habits_are_one_finding_unless_all_is_asked_for():
    made = diagnosis(compose_yaml="services:\n" + FOUR)
    summary = [finding for finding in made.told() if finding.rule == "AT005"]
    assert len(summary) == 1
    assert {part.rule for part in summary[0].parts} >= {"DC005", "DC009", "DC012", "DC017"}
    assert not {finding.rule for finding in made.told()} & {part.rule for part in summary[0].parts}
    assert {part.rule for part in summary[0].parts} <= {finding.rule for finding in made.told(everything=True)}


def test_one_habit_alone_stays_what_it_is_and_errors_are_never_summed_up():
    habit = Finding(file="a", line=1, what="a is killed", rule="DC016", severity=Severity.WARNING)
    worse = Finding(file="a", line=2, what="b", rule="DC017", severity=Severity.ERROR)
    assert sum_up([habit, worse], ["DC016", "DC017"]) == (habit, worse)


def test_the_file_with_the_worst_comes_first_and_in_it_the_worst():
    told = diagnosis(compose_yaml="services:\n" + FOUR.replace(" --swap-space 4", ""), nginx_conf=NGINX).told()
    assert told[0].file == "nginx.conf"
    for file in {finding.file for finding in told}:
        ranks = [finding.severity.rank for finding in told if finding.file == file]
        assert ranks == sorted(ranks)


def test_classes_are_kept_apart():
    one = Finding(file="a", line=1, what="x of svc", rule="X", risk="it moves")
    other = Finding(file="a", line=2, what="x of web", rule="X", risk=None)
    assert len(join_alike([one, other], ["svc", "web"])) == 2
    assert one.fix_class is FixClass.BY_HAND
    assert in_reading_order([other, one]) == (one, other)
