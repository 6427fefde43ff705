"""An engine, a form of bundle and a way to start it are each one module and one line in a dict; no other file hears of it."""

import asyncio
import inspect

import pytest

from atoll.documents import parse_yaml
from atoll.engines import ENGINES, all_counter_names, find_engine, read_counters
from atoll.engines.engine import Engine
from atoll.engines.spec import EngineSpec
from atoll.inventory.catalog import make_box
from atoll.model.read import read_model
from atoll.plan.goal import Goal
from atoll.render import RENDERERS, render_bundle
from atoll.render.bundle import Renderer
from atoll.run.runner import RUNNERS, Runner
from atoll.simulate.run import simulate_layout
from atoll.traffic.record import Outcome
from atoll.traffic.workload import Workload
from atoll.workflows.deploy import bring_up, deployment_status, dry_run, find_deployable, say_logs, take_down
from atoll.workflows.plan import plan_model
from atoll.workflows.simulate import equipment_for
from stand_ins.toys import engine, renderer, runner

MODEL = "Qwen/Qwen2.5-7B-Instruct"
CARD = read_model(MODEL)
BOX = make_box("H100-NVL-94GB", 4)


@pytest.fixture(autouse=True)
def _toys(monkeypatch):
    """The three lines."""
    monkeypatch.setitem(ENGINES, "toy", engine)
    monkeypatch.setitem(RENDERERS, "toy", renderer)
    monkeypatch.setitem(RUNNERS, "toy", runner)


@pytest.fixture(scope="module")
def layout():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENGINES, "toy", engine)
        goal = Goal(workload=Workload(users=20, prompt=500, output=100))
        return plan_model(CARD, BOX, goal, engine="toy", engine_version="3").best.layout


@pytest.mark.parametrize(("shape", "kinds"), [(Engine, ENGINES), (Renderer, RENDERERS), (Runner, RUNNERS)])
def test_every_kind_has_the_whole_shape(shape, kinds):
    """What the type checker holds our own modules to, held for the toys too: names, and the arguments of functions."""
    for module in kinds.values():
        for name in shape.__annotations__:
            assert hasattr(module, name), (module, name)
        for name, function in inspect.getmembers(shape, inspect.isfunction):
            if not name.startswith("_"):
                wanted = [one for one in inspect.signature(function).parameters if one != "self"]
                inspect.signature(getattr(module, name)).bind(**dict.fromkeys(wanted))


def test_it_is_planned_by_its_own_rules(layout):
    assert (layout.engine, layout.engine_version) == ("toy", "3")
    assert max(replica.tensor_parallel for replica in layout.replicas) <= 2
    spec = EngineSpec.of(layout, layout.replicas[0], CARD)
    assert (spec.max_num_seqs, spec.max_num_batched_tokens) == (12, 2048)
    assert spec.version == (3, 0, 0)


def test_it_is_simulated_with_its_own_limits(layout):
    one = layout.replace(replicas=layout.replicas[:1])
    made = equipment_for(one, CARD, None)
    load = Workload(users=30, requests=60, prompt=500, output=100, start="at_once")
    table = simulate_layout(one, CARD, load, timers=made.timers, kv_blocks=made.kv_blocks, limits=made.limits)
    assert set(table.outcome) == {Outcome.OK}
    first = sorted(table.first_token_s[:30])
    assert first[11] < min(table.last_token_s) < first[12]  # the thirteenth of thirty waits for a seat


def test_it_is_rendered_in_every_form(layout):
    compose = render_bundle(layout, CARD, to="compose").files
    service = parse_yaml(compose["compose.yaml"], origin="compose.yaml")["services"]["toy-0"]
    assert (service["image"], service["entrypoint"]) == ("example.org/toy:3", ["toy-serve"])
    assert service["healthcheck"]["test"] == ["CMD", "toy-alive", "8000"]
    assert len(service["volumes"]) == 1  # the models; it keeps no cache
    assert "keepalive_timeout" in compose["nginx.conf"]
    assert "argv: [toy-serve" in render_bundle(layout, CARD, to="process").files["process.yaml"]
    assert (
        render_bundle(layout, CARD, to="toy").files["toy.txt"].startswith("toy-serve Qwen/Qwen2.5-7B-Instruct --listen")
    )


def test_it_is_started_looked_at_and_ended(layout, tmp_path):
    (tmp_path / "layout.yaml").write_text(layout.to_yaml())
    said = []
    target = find_deployable(tmp_path / "layout.yaml", to="toy", folder=tmp_path / "b")
    assert [line.split()[0] for line in dry_run(target)[1]] == ["toy-serve"] * len(layout.replicas)
    deployment = asyncio.run(bring_up(target, say=said.append))
    assert (deployment.kind, deployment.url) == ("toy", "http://127.0.0.1:20000")
    assert said == [f"wrote {tmp_path / 'b'}", "toys run"]
    there = find_deployable(tmp_path / "b")
    assert asyncio.run(deployment_status(there)).state == "up"
    asyncio.run(say_logs(there, say=said.append))
    assert said[-1] == "a toy is quiet"
    assert asyncio.run(take_down(there)) == ("toy-0",)


def test_its_counters_are_read_wherever_counters_are():
    page = "toy_running 3\ntoy_tokens_total 7\n"
    for names in (find_engine("toy").counters, all_counter_names()):
        assert read_counters(page, names).known() == {"running": 3, "output_tokens": 7}
