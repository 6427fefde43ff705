"""Several models on one box behind one door: what is asked for, and the layouts that came of it."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, NamedTuple

from pydantic import Field, model_validator

from atoll.documents import Document, OneLine
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.layout.ports import FIRST_PORT
from atoll.layout.study import BoxName
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload

MOST_MODELS = 8


class StackModel(Document):
    """One model of a stack, as people write it: its load and the latencies that it is to keep."""

    model: OneLine
    workload: Workload = Workload()
    slo: SLO | None = None
    flags: EngineFlags = EngineFlags()


class StackGoal(Document):
    """`box` is the path of a capture, relative to the file, or `{gpu: H100-SXM-80GB, gpus: 8}`."""

    noun: ClassVar[str] = "a stack of several models"

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    box: str | BoxName
    gpu: str | None = None  # the cards' kind, where the capture does not say
    models: tuple[StackModel, ...] = Field(min_length=1, max_length=MOST_MODELS)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "StackGoal":
        names = [one.model for one in self.models]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} stands twice; the door tells models apart by their names")
        return self


class Placed(NamedTuple):
    """A replica of a stack: its number among all of them, its layout, and its number there."""

    number: int
    layout: Layout
    own: int

    @property
    def replica(self) -> Replica:
        return self.layout.replicas[self.own]


class Stack(Document):
    """The layouts of several models on one box. Two of them may share a card, each with a part of its memory.

    The first one's router holds for the door: its port, and what a client's address may do at once.
    """

    noun: ClassVar[str] = "the layouts of a stack"

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    layouts: tuple[Layout, ...] = Field(min_length=1, max_length=MOST_MODELS)
    met: bool | None = None  # whether all targets hold, as planned; None: there are none
    shares: dict[str, float] = {}  # of a card's time by layout, where it has to share one; stated, not measured

    @model_validator(mode="after")
    def _models_are_distinct(self) -> "Stack":
        for what, names in (
            ("model", [layout.model for layout in self.layouts]),
            ("name", [layout.name for layout in self.layouts]),
        ):
            for name in names:
                if names.count(name) > 1:
                    raise ValueError(f"two layouts have the {what} {name}")
        return self

    @property
    def replicas(self) -> Iterator[Placed]:
        """Every replica, numbered through."""
        placed = [(layout, own) for layout in self.layouts for own in range(len(layout.replicas))]
        return (Placed(number, layout, own) for number, (layout, own) in enumerate(placed))

    @property
    def idle_gpus(self) -> tuple[int, ...]:
        taken = {gpu for placed in self.replicas for gpu in placed.replica.gpus}
        return tuple(index for index in self.layouts[0].box.indices if index not in taken)

    def with_layouts(self, layouts: Sequence[Layout]) -> "Stack":
        return self.replace(layouts=tuple(layouts))


def give_stack_ports(stack: Stack) -> Stack:
    """The same stack with a port for every replica, none twice and none the door's."""
    door = stack.layouts[0].router.port
    taken = {placed.replica.port for placed in stack.replicas} | {door}
    free = (port for port in range(FIRST_PORT, 65536) if port not in taken)
    return stack.with_layouts(
        [
            layout.replace(
                replicas=tuple(r if r.port is not None else r.replace(port=next(free)) for r in layout.replicas),
                router=layout.router.replace(port=door),
            )
            for layout in stack.layouts
        ]
    )
