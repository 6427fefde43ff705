"""A study of three variants with records made by hand: one good, one slow, one that did not start."""

from collections.abc import Callable

import numpy as np
import pytest

from atoll.analyse.rank import Contender, rank_runs
from atoll.analyse.summary import summarise
from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout, Policy, Replica, Router
from atoll.report.view import RunView, StudyView
from atoll.traffic.record import Outcome, Record, RecordTable, Source
from atoll.traffic.workload import Workload

BOX = make_box("H100-NVL-94GB", 4)


def build_records(*, wait_s: float, step_s: float, replicas: int, count: int = 120, failed: int = 0) -> RecordTable:
    """`count` requests of 10 users over 60 s; waits spread around `wait_s`, 20 tokens each."""
    rng = np.random.default_rng(3)
    records = []
    for number in range(count):
        sent = 0.5 * number
        first = sent + wait_s * float(rng.uniform(0.5, 1.5))
        times = tuple(first + step_s * token for token in range(20))
        ok = number >= failed
        records.append(
            Record(
                number=number,
                user=number % 10,
                sent_s=sent,
                token_s=times if ok else (),
                done_s=times[-1] if ok else sent + 0.1,
                prompt_tokens=100,
                output_tokens=20 if ok else 0,
                outcome=Outcome.OK if ok else Outcome.FAILED,
                error=None if ok else "http_503",
                replica=str(number % replicas),
            )
        )
    return RecordTable.from_records(records)


def build_layout(name: str, groups: tuple[tuple[int, ...], ...]) -> Layout:
    replicas = tuple(Replica(gpus=group, tensor_parallel=len(group)) for group in groups)
    return Layout(name=name, model="m", box=BOX, replicas=replicas, router=Router(policy=Policy.LEAST_CONN))


@pytest.fixture(scope="session")
def make_records() -> Callable[..., RecordTable]:
    return build_records


@pytest.fixture(scope="session")
def make_layout() -> Callable[..., Layout]:
    return build_layout


@pytest.fixture(scope="session")
def make_view() -> Callable[..., StudyView]:
    def make(**changes: object) -> StudyView:
        pair = build_records(wait_s=0.2, step_s=0.02, replicas=2)
        wide = build_records(wait_s=2.0, step_s=0.03, replicas=1, failed=3)
        runs = (
            RunView(name="1xTP4", layout=build_layout("1xTP4", ((0, 1, 2, 3),)), table=wide, summary=summarise(wide)),
            RunView(
                name="2xTP2",
                layout=build_layout("2xTP2", ((0, 1), (2, 3))),
                table=pair,
                summary=summarise(pair),
                predicted=summarise(build_records(wait_s=0.25, step_s=0.02, replicas=2)),
                commands=("vllm serve m --tensor-parallel-size 2",),
                files={"nginx.conf": "upstream replicas {}\n"},
                digest="0123456789abcdef" * 4,
            ),
            RunView(
                name="4xTP1", layout=build_layout("4xTP1", ((0,), (1,), (2,), (3,))), failure="the model does not fit"
            ),
        )
        contenders = [Contender(name=run.name, table=run.table, summary=run.summary) for run in runs if run.table]
        values: dict[str, object] = {
            "name": "study",
            "title": "Three ways over four cards",
            "engine": "emulated",
            "source": Source.EMULATED,
            "model": "Qwen/Qwen2.5-32B-Instruct",
            "box": BOX,
            "workload": Workload(users=10, prompt=100, output=20, duration_s=60.0, warmup_s=5.0),
            "runs": runs,
            "ranking": rank_runs(contenders, baseline="1xTP4"),
            "baseline": "1xTP4",
            "atoll_version": "0.1.0",
        }
        return StudyView(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def view(make_view: Callable[..., StudyView]) -> StudyView:
    return make_view()
