"""A study: runs of one model on one box under one workload, to be compared. The document behind `atoll study`."""

from collections.abc import Iterable, Sequence
from typing import ClassVar

from pydantic import Field, model_validator

from atoll.documents import Document, Name, OneLine
from atoll.errors import InputError
from atoll.inventory.box import Box
from atoll.inventory.islands import best_groups
from atoll.layout.layout import ENGINE_VERSION, EngineFlags, Layout, Policy, Replica, Router
from atoll.layout.trouble import Failure, Slowness, Trouble
from atoll.traffic.workload import Workload


class BoxName(Document):
    """A box from the catalogue, for want of a capture."""

    gpu: str
    gpus: int = Field(ge=1, le=1024)


class Variant(Document):
    """One layout of the study. GPUs are chosen by the best split unless they are listed."""

    name: Name
    tensor_parallel: int = Field(default=1, ge=1, le=1024)
    pipeline_parallel: int = Field(default=1, ge=1, le=1024)
    replicas: int = Field(default=1, ge=1, le=1024)
    gpus: tuple[tuple[int, ...], ...] | None = None  # of each replica, instead of the best split
    policy: Policy | None = None  # None: the study's
    router: Router | None = None  # all of the router, instead of a policy
    flags: EngineFlags | None = None  # None: the study's
    engine_version: str | None = None
    fail: tuple[Failure, ...] | None = None  # replicas that die, in virtual time only; None: the study's
    slow: tuple[Slowness, ...] | None = None  # replicas that are slow, likewise

    @model_validator(mode="after")
    def _groups_match_replicas(self) -> "Variant":
        if self.gpus is not None and len(self.gpus) != self.replicas:
            raise ValueError(f"gpus lists {len(self.gpus)} groups for {self.replicas} replicas")
        if self.policy is not None and self.router is not None:
            raise ValueError("give a policy or a router, not both")
        return self


class Study(Document):
    """`box` is the path of a capture, relative to the study's file, or `{gpu: H100-SXM-80GB, gpus: 8}`."""

    noun: ClassVar[str] = "a study"

    name: Name
    title: str | None = None
    box: str | BoxName
    gpu: str | None = None  # the cards' kind, where the capture does not say
    model: OneLine
    workload: Workload
    policy: Policy = Policy.LEAST_CONN
    flags: EngineFlags = EngineFlags()
    engine_version: str = ENGINE_VERSION
    profile: str | None = None  # a machine profile that `atoll calibrate` wrote, relative to the study's file
    fail: tuple[Failure, ...] | None = None
    slow: tuple[Slowness, ...] | None = None
    cooldown_s: float = Field(default=0.0, ge=0)  # pause between measured variants
    baseline: str | None = None  # the variant that the others are compared with; None: the first
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=1000)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> "Study":
        names = [variant.name for variant in self.variants]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two variants are called {name}")
        if self.baseline is not None and self.baseline not in names:
            raise ValueError(f"baseline {self.baseline} is none of the variants")
        return self

    @model_validator(mode="after")
    def _troubled_replicas_are_there(self) -> "Study":
        for variant in self.variants:
            for option in ("fail", "slow"):
                for trouble in getattr(self.trouble_of(variant.name), option):
                    if trouble.replica >= variant.replicas:
                        raise ValueError(
                            f"{option} names replica {trouble.replica} and variant {variant.name} has"
                            f" {_numbered(variant.replicas)}; say it under the variants that it is for"
                        )
        return self

    @property
    def baseline_name(self) -> str:
        return self.baseline or self.variants[0].name

    def trouble_of(self, name: str) -> Trouble:
        """What goes wrong in a variant: what it says itself, else what the study says."""
        variant = next(variant for variant in self.variants if variant.name == name)
        fail = self.fail if variant.fail is None else variant.fail
        slow = self.slow if variant.slow is None else variant.slow
        return Trouble(fail=fail or (), slow=slow or ())

    @property
    def is_troubled(self) -> bool:
        """Whether something goes wrong in any variant."""
        return any(self.trouble_of(variant.name).words for variant in self.variants)


def _numbered(replicas: int) -> str:
    return "only replica 0" if replicas == 1 else f"0-{replicas - 1}"


def study_layouts(study: Study, box: Box, *, only: Iterable[str] | None = None) -> tuple[Layout, ...]:
    """The layout of every variant, in the study's order.

    Args:
        study: the document.
        box: its box, already read.
        only: names of the variants that are wanted.

    Raises:
        InputError: a variant asks for more GPUs than there are, or `only` names one that is not there.
    """
    wanted = [variant.name for variant in study.variants] if only is None else list(only)
    known = {variant.name: variant for variant in study.variants}
    for name in wanted:
        if name not in known:
            raise InputError(f"study {study.name} has no variant {name}; it has {', '.join(known)}.")
    return tuple(_layout(study, known[name], box) for name in wanted)


def _layout(study: Study, variant: Variant, box: Box) -> Layout:
    router = variant.router or Router(policy=variant.policy or study.policy)
    load = study.workload if router.policy.is_affine else None  # which tells when a replica is hot
    return Layout(
        name=variant.name,
        model=study.model,
        box=box,
        replicas=tuple(
            Replica(gpus=group, tensor_parallel=variant.tensor_parallel, pipeline_parallel=variant.pipeline_parallel)
            for group in _groups(study, variant, box)
        ),
        router=router,
        flags=variant.flags or study.flags,
        engine_version=variant.engine_version or study.engine_version,
        workload=load,
    )


def _groups(study: Study, variant: Variant, box: Box) -> tuple[tuple[int, ...], ...]:
    if variant.gpus is not None:
        return variant.gpus
    size = variant.tensor_parallel * variant.pipeline_parallel
    if size * variant.replicas > len(box.gpus):
        raise InputError(
            f"study {study.name}: variant {variant.name} needs {size} x {variant.replicas} GPUs;"
            f" this box has {len(box.gpus)}."
        )
    return best_groups(box, [size] * variant.replicas)


def study_of_layouts(name: str, layouts: Sequence[Layout], *, box: str | BoxName, workload: Workload) -> Study:
    """The study that compares these layouts, the first being the one that the others are held against.

    Args:
        name: the study's.
        layouts: of one model on one box.
        box: how the study's file names that box.
        workload: the load of all of them.

    Raises:
        InputError: no layouts, or one whose replicas are split in different ways, which a variant cannot say.
    """
    if not layouts:
        raise InputError("Choose at least one layout to make a study of.")
    for layout in layouts:
        splits = {(one.tensor_parallel, one.pipeline_parallel) for one in layout.replicas}
        if len(splits) > 1:
            raise InputError(f"{layout.name} has replicas of different sizes, which a study's variant cannot have.")
    first = layouts[0]
    return Study(
        name=name,
        box=box,
        model=first.model,
        workload=workload,
        engine_version=first.engine_version,
        variants=tuple(_variant_of(layout) for layout in layouts),
    )


def _variant_of(layout: Layout) -> Variant:
    replica = layout.replicas[0]
    return Variant(
        name=layout.name,
        tensor_parallel=replica.tensor_parallel,
        pipeline_parallel=replica.pipeline_parallel,
        replicas=len(layout.replicas),
        gpus=tuple(one.gpus for one in layout.replicas),
        router=layout.router,
        flags=layout.flags,
    )
