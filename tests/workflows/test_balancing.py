"""What docs/balancing.md concludes holds for a seed that it has not seen."""

import importlib.util
import sys
from pathlib import Path

import pytest

from atoll.layout.layout import Policy

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "balancing" / "study.py"


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("balancing_study", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["balancing_study"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def measured(study):
    cases = {case.name: case for case in study.scenarios() if case.name in {"lognormal", "seats", "slow"}}

    def measure(name, policy):
        return study.measures(study.run(cases[name], policy, 1001), cases[name].workload)

    return measure


def test_least_conn_does_not_swing_and_round_robin_drifts(measured):
    looking, by_turns = (measured("lognormal", policy) for policy in (Policy.LEAST_CONN, Policy.ROUND_ROBIN))
    assert looking["most_apart"] <= 1
    assert by_turns["most_apart"] >= 5
    assert looking["swings"] == 0


def test_with_seats_to_spare_the_policy_does_not_matter(measured):
    looking, by_turns = (measured("lognormal", policy) for policy in (Policy.LEAST_CONN, Policy.ROUND_ROBIN))
    assert looking["ttft_p99"] == pytest.approx(by_turns["ttft_p99"], abs=0.15)
    assert looking["tokens_per_s"] == pytest.approx(by_turns["tokens_per_s"], rel=0.02)


def test_short_of_seats_round_robin_makes_users_wait(measured):
    assert measured("seats", Policy.LEAST_CONN)["ttft_p99"] < 0.5
    assert measured("seats", Policy.ROUND_ROBIN)["ttft_p99"] > 4


def test_beside_a_slow_replica_least_conn_serves_more(measured):
    looking, by_turns = (measured("slow", policy) for policy in (Policy.LEAST_CONN, Policy.ROUND_ROBIN))
    assert looking["tokens_per_s"] > 1.02 * by_turns["tokens_per_s"]


def test_measures_of_a_hand_made_run(study):
    import numpy as np

    assert study.swings(np.array([0, 5, 3, 4, -1, -4, -6, 2, 4])) == 2
    assert study.longest_run(["0", "1", "1", "1", "0"]) == 3


def test_every_figure_in_the_pages_text_is_one_that_the_study_writes(study, tmp_path):
    import numpy as np

    page = Path(__file__).parents[2] / "docs" / "balancing.md"
    names = ("ttft_p50", "ttft_p99", "e2e_p99", "tokens_per_s", "apart", "most_apart", "uneven", "level_after")
    ones = {policy: dict.fromkeys(names, np.ones(24)) for policy in study.POLICIES}
    found = study.facts({case.name: ones for case in study.scenarios()})
    copy = tmp_path / "balancing.md"
    copy.write_text(page.read_text())
    study.write_facts(copy, found)
    assert "<!--=slow-tokens-->0%<!--/--> more tokens per second" in copy.read_text()
    assert "<!--=seeds-->24<!--/--> seeds" in copy.read_text()
