"""The order in which replicas are replaced, and what happens to each; no process is started."""

import asyncio
from dataclasses import dataclass, field

import pytest

from atoll.errors import InputError, StartFailed
from atoll.layout.layout import Replica
from atoll.render.pool import UpstreamServer
from atoll.run.roll import Seat, on_same_cards, plan_roll, roll
from stand_ins.clock import ManualClock


def seat(number: int, gpus: tuple[int, ...], made_of: str = "old") -> Seat:
    return Seat(
        key=f"{made_of}-{number}",
        replica=Replica(gpus=gpus, tensor_parallel=len(gpus)),
        server=UpstreamServer(number=number, host="127.0.0.1", port=8000 + number),
        made_of=made_of,
    )


PAIRS = (seat(0, (0, 1)), seat(1, (2, 3)))


def told(running, wanted, **more):
    """`old-1>new-1`: who leaves, then who comes; and who serves in the end."""
    final, steps = plan_roll(running, wanted, clash=on_same_cards, **more)
    words = ["+".join(s.key for s in step.leaving) + ">" + (step.coming.key if step.coming else "") for step in steps]
    for step in steps:
        assert step.after
        assert step.between
        assert not {s.key for s in step.leaving} & {s.key for s in step.between}
    return words, [s.key for s in final]


@pytest.mark.parametrize(
    ("running", "wanted", "steps", "final"),
    [
        (PAIRS, PAIRS, [], ["old-0", "old-1"]),
        (
            PAIRS,
            (seat(0, (0, 1), "new"), seat(1, (2, 3), "new")),
            ["old-0>new-0", "old-1>new-1"],
            ["new-0", "new-1"],
        ),
        (PAIRS, (PAIRS[0], seat(1, (2, 3), "new")), ["old-1>new-1"], ["old-0", "new-1"]),
        # free cards first: the new ones come before the old ones go
        (PAIRS, (seat(0, (4, 5), "new"), seat(1, (6, 7), "new")), [">new-0", ">new-1", "old-0+old-1>"], ["new-0", "new-1"]),
        (PAIRS[:1], (seat(0, (2,), "new"), seat(1, (0,), "new")), [">new-0", "old-0>new-1"], ["new-0", "new-1"]),
        # narrower and wider groups on the same cards
        (
            PAIRS,
            tuple(seat(n, (n,), "new") for n in range(4)),
            ["old-0>new-0", ">new-1", "old-1>new-2", ">new-3"],
            ["new-0", "new-1", "new-2", "new-3"],
        ),
        (
            tuple(seat(n, (n,)) for n in range(4)),
            (seat(0, (0, 1), "new"), seat(1, (2, 3), "new")),
            ["old-0+old-1>new-0", "old-2+old-3>new-1"],
            ["new-0", "new-1"],
        ),
        (PAIRS, PAIRS[:1], ["old-1>"], ["old-0"]),
    ],
    ids=["nothing", "all", "one", "free cards", "some free", "narrower", "wider", "fewer"],
)  # fmt: skip
def test_the_order(running, wanted, steps, final):
    assert told(running, wanted) == (steps, final)


def test_one_that_is_to_come_again_comes_though_nothing_changed():
    assert told(PAIRS, PAIRS, again=frozenset({1}))[0] == ["old-1>old-1"]


def test_nobody_left_to_serve_is_refused_before_anything_has_changed():
    with pytest.raises(InputError, match=r"replica 0 \(GPUs 0, 1, 2, 3\) needs the cards of all that serves"):
        told(PAIRS, [seat(0, (0, 1, 2, 3), "new")])


@dataclass
class Stage:
    """A site that notes what is asked of it; an old replica holds so many requests at each look."""

    held: list[float | None] = field(default_factory=lambda: [2.0, 0.0, 1.0, 0.0, 0.0, None])
    fails: str = ""
    did: list[str] = field(default_factory=list)

    async def show(self, serving):
        self.did.append("show " + " ".join(s.key for s in serving))

    async def requests(self, seat):
        left = self.held.pop(0) if len(self.held) > 1 else self.held[0]
        self.did.append(f"look {left}")
        return left

    async def start(self, seat):
        self.did.append(f"start {seat.key}")
        if seat.key == self.fails:
            raise StartFailed("it ended")

    async def stop(self, seat):
        self.did.append(f"stop {seat.key}")


def go(stage, **more):
    said = []
    _, steps = plan_roll(PAIRS, (PAIRS[0], seat(1, (2, 3), "new")), clash=on_same_cards)
    asyncio.run(roll(steps, site=stage, clock=ManualClock(flows=True), say=said.append, **more))
    return said


def test_a_replica_leaves_when_it_was_quiet_for_a_while_and_the_new_one_serves_when_it_answers():
    stage = Stage()
    said = go(stage)
    assert stage.did == [
        "show old-0", "look 2.0", "look 0.0", "look 1.0", "look 0.0", "look 0.0", "look None",
        "stop old-1", "start new-1", "show old-0 new-1",
    ]  # fmt: skip
    assert said[-1] == "replica 1 (GPUs 2, 3) serves"


def test_answers_that_do_not_end_are_cut_at_the_limit_and_said():
    stage = Stage(held=[3.0])
    said = go(stage, drain_s=60)
    assert "replica 1 (GPUs 2, 3) still has 3 requests after 60 s; they are cut" in said
    assert "stop old-1" in stage.did


def test_a_new_replica_that_does_not_come_up_goes_and_is_never_shown():
    stage = Stage(held=[0.0], fails="new-1")
    with pytest.raises(StartFailed, match="it ended"):
        go(stage)
    assert stage.did[-2:] == ["start new-1", "stop new-1"]
