"""Sweeps and the search for the most users, over a server made of numbers."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.analyse.summary import summarise
from atoll.errors import InputError
from atoll.load.selfwatch import ClientReport
from atoll.traffic.record import Record, RecordTable
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.capacity import search_users, sweep

TARGETS = SLO(ttft_s=1.0)


@dataclass
class Result:
    """As much of a BenchResult as is looked at."""

    summary: object
    client: ClientReport
    stopped: str | None = None


def server(most, *, noise=()):
    """Keeps within the targets for all requests up to so many users, for half of them beyond. `noise` spoils single runs."""
    runs = []

    def measure(load, folder):
        runs.append((load.users, folder.name))
        good = load.users <= most and len(runs) - 1 not in noise
        slow = 0 if good else 8 if len(runs) - 1 in noise else 50
        records = [
            Record(
                number=n,
                user=n,
                sent_s=0.0,
                token_s=(2.0 if n < slow else 0.5, 3.0),
                done_s=3.0,
                output_tokens=2,
            )
            for n in range(100)
        ]
        summary = summarise(RecordTable.from_records(records), slo=TARGETS)
        return Result(summary, ClientReport(limited=False, verdict=""))

    return measure, runs


def search(measure, *, start=1, **more):
    load = Workload(users=start, duration_s=1, prompt=1, output=1, start="at_once")
    return search_users(load, Path("x"), slo=TARGETS, measure=measure, say=lambda _: None, **more)


@pytest.mark.parametrize("most", [1, 2, 7, 8, 19, 20])
def test_the_most_users_are_found_exactly_when_they_are_few(most):
    measure, _ = server(most)
    found = search(measure)
    assert found.users == most
    assert not found.limited


@pytest.mark.parametrize("most", [137, 500, 999])
def test_and_within_five_percent_when_they_are_many(most):
    measure, runs = server(most)
    found = search(measure)
    assert most * 0.95 <= found.users <= most
    assert len(runs) < 20


def test_nobody_at_all():
    measure, _ = server(0)
    assert search(measure).users == 0


def test_the_upper_end_is_told_of():
    measure, _ = server(10**6)
    found = search(measure, highest=40)
    assert found.limited
    assert found.users >= 32


def test_a_level_near_the_edge_is_measured_again_and_its_median_counts():
    measure, runs = server(8, noise={3})  # the first run of 8 users has 92 % good ones
    assert search(measure).users == 8
    assert [name for users, name in runs if users == 8] == ["users-8", "users-8-2", "users-8-3"]


def test_a_moments_trouble_that_ends_the_search_is_looked_at_again():
    measure, runs = server(7)

    def troubled(load, folder):
        return server(0)[0](load, folder) if folder.name == "users-2" else measure(load, folder)

    assert search(troubled).users == 7
    assert [name for users, name in runs if users == 2] == ["users-2-2", "users-2-3"]


def test_a_verdict_near_the_edge_says_between_what_it_lies():
    def measure(load, folder):
        slow = {1: 0, 2: 1, 3: 1, 4: 10}.get(load.users, 20)  # of 25 requests
        records = [
            Record(
                number=n,
                user=n,
                sent_s=0.0,
                token_s=(2.0 if n < slow else 0.5, 3.0),
                done_s=3.0,
                output_tokens=2,
            )
            for n in range(25)
        ]
        summary = summarise(RecordTable.from_records(records), slo=TARGETS)
        return Result(summary, ClientReport(limited=False, verdict=""))

    found = search(measure)
    assert (found.users, found.at_least, found.at_most) == (3, 1, 3)
    assert [level.load for level in found.in_doubt] == [2, 3]
    sure = search(server(7)[0])
    assert (sure.users, sure.at_least, sure.at_most, sure.in_doubt) == (7, 7, 7, ())


def test_a_search_without_a_target_is_refused():
    with pytest.raises(InputError, match="needs a target"):
        search_users(
            Workload(users=1, duration_s=1, prompt=1, output=1, start="at_once"),
            Path("x"),
            slo=None,
            measure=server(1)[0],
            say=lambda _: None,
        )


def test_a_sweep_measures_each_level_once_lowest_first():
    measure, runs = server(10)
    load = Workload(users=1, duration_s=1, prompt=1, output=1, start="at_once")
    found = sweep(load, [8, 1, 4, 4], Path("x"), measure=measure, say=lambda _: None)
    assert [users for users, _ in runs] == [1, 4, 8]
    assert [level.load for level in found.levels] == [1, 4, 8]
    assert (found.knee, found.still_helps_at) == (1, None)  # one latency and one rate: the first is as good as the last


def test_a_sweep_that_ends_before_the_knee_says_so():
    def measure(load, folder):
        rows = [
            Record(number=n, user=n, sent_s=0.0, token_s=(0.5, 3.0), done_s=3.0, output_tokens=2)
            for n in range(load.users)
        ]
        return Result(summarise(RecordTable.from_records(rows)), ClientReport(limited=False, verdict=""))

    load = Workload(users=1, duration_s=1, prompt=1, output=1, start="at_once")
    found = sweep(load, [4, 8, 16], Path("x"), measure=measure, say=lambda _: None)
    assert (found.knee, found.still_helps_at) == (None, 16)


def test_every_level_and_repeat_has_a_seed_of_its_own_and_the_same_one_again():
    def seeds(seed):
        used = []

        def measure(load, folder):
            used.append(load.seed)
            return server(8, noise={3})[0](load, folder)

        search_users(
            Workload(users=1, duration_s=1, prompt=1, output=1, start="at_once", seed=seed),
            Path("x"),
            slo=TARGETS,
            measure=measure,
            say=lambda _: None,
        )
        return used

    first = seeds(1)
    assert len(set(first)) == len(first) > 4
    assert seeds(1) == first
    assert not set(first) & set(seeds(2))
