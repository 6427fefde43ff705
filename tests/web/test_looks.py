"""Looks at deployments: known ones are given at once, one at a time is under way, what hangs is told of."""

import threading
from pathlib import Path

from atoll.errors import CommandFailed
from atoll.inventory.meter import GpuReading
from atoll.run.deployment import DeploymentStatus, ServiceState
from atoll.web.looks import FRESH_S, IDLE_FRESH_S, LATE_S, Looks, Meter
from atoll.workflows.look import DeploymentLook
from stand_ins.clock import ManualClock
from stand_ins.patience import PATIENCE_S, wait_until

FOLDER = Path("bundle")


class Engine:
    """What is looked at; it answers when it is let."""

    def __init__(self):
        self.asked, self.may_answer, self.error = 0, threading.Event(), None

    async def look(self, folder):
        self.asked += 1
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return DeploymentLook()


def test_nobody_waits_and_one_look_at_a_time_is_under_way():
    engine, clock = Engine(), ManualClock()
    looks = Looks(clock, engine.look)
    for _ in range(5):
        assert looks.latest(FOLDER).look is None
    clock.advance(LATE_S + 1)
    late = looks.latest(FOLDER)
    assert (late.look, late.late_s) == (None, LATE_S + 1)
    engine.may_answer.set()
    wait_until(lambda: looks.latest(FOLDER).look is not None)
    assert looks.latest(FOLDER).late_s is None
    assert engine.asked == 1
    clock.advance(FRESH_S)
    looks.latest(FOLDER)
    wait_until(lambda: engine.asked == 2)


def test_what_is_down_is_asked_less_often_in_a_list():
    engine, clock = Engine(), ManualClock()
    engine.may_answer.set()
    looks = Looks(clock, engine.look)
    wait_until(lambda: looks.latest(FOLDER, in_list=True).look is not None)
    clock.advance(IDLE_FRESH_S - FRESH_S)
    assert looks.latest(FOLDER, in_list=True).look is not None
    assert engine.asked == 1
    looks.latest(FOLDER)
    wait_until(lambda: engine.asked == 2)


def test_an_error_is_its_sentence_and_the_next_look_may_go_well():
    engine, clock = Engine(), ManualClock()
    engine.may_answer.set()
    engine.error = CommandFailed("Docker does not answer.")
    looks = Looks(clock, engine.look)
    wait_until(lambda: looks.latest(FOLDER).problem == "Docker does not answer.")
    engine.error = ZeroDivisionError("oh")
    clock.advance(FRESH_S)
    wait_until(lambda: "ZeroDivisionError" in looks.latest(FOLDER).problem)
    engine.error = None
    clock.advance(FRESH_S)
    wait_until(lambda: looks.latest(FOLDER).look is not None)
    assert looks.latest(FOLDER).problem is None


def test_a_look_sums_up_its_replicas():
    def replica(number, **figures):
        return ServiceState(name=f"replica-{number}", number=number, state="healthy", healthy=True, **figures)

    services = (
        replica(0, requests_running=3.0, kv_usage=0.2, output_tokens_per_s=10.0),
        replica(1, requests_running=1.0, kv_usage=0.5),
        ServiceState(name="router", state="healthy", healthy=True),
    )
    status = DeploymentStatus(
        name="n", kind="process", folder=FOLDER, engine="e", model="m", url="u", state="up", services=services
    )
    look = DeploymentLook(status=status, answers={0: 3, 1: 1})
    assert (look.running, look.waiting, look.kv_usage, look.output_tokens_per_s) == (4.0, None, 0.5, 10.0)
    assert (look.door_share(0), look.door_share(1), look.door_share(2)) == (0.75, 0.25, 0.0)
    assert [one.name for one in look.others] == ["router"]
    assert (DeploymentLook().state, DeploymentLook().door_share(0)) == ("down", None)


def reading(index, power_w):
    return GpuReading(
        index=index, utilization=0.5, memory_bytes=1e9, memory_total_bytes=8e10, power_w=power_w, sm_clock_hz=1e9
    )


def test_a_replica_draws_what_its_gpus_draw():
    look = DeploymentLook(power_w={0: 300.0, 1: 310.0, 2: 90.0})
    assert look.watts((0, 1)) == 610.0
    assert look.watts((2, 3)) is None  # one that does not say
    assert look.watts(()) is None


def test_the_gpus_are_read_once_a_second_and_shown_on_the_first_page(site, client):
    clock, asked = ManualClock(), []
    meter = Meter(clock, lambda: asked.append(1) or (reading(0, 412.5),))
    for _ in range(3):
        assert meter.latest()[0].power_w == 412.5
    clock.advance(1.0)
    meter.latest()
    assert len(asked) == 2
    assert "GPU 0" not in client.get("/").text
    site.meter = meter
    page = client.get("/").text
    assert "412 W" in page
    assert "50 %" in page
