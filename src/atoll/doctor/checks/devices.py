"""Which GPUs a service gets, and who else does."""

import re
from collections.abc import Iterable, Iterator, Sequence

from atoll.doctor.checks.places import counted, found, join, remove_setting, with_ids
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits, add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.other_engines import asked_gpus
from atoll.doctor.rule import ERROR, WARNING, rule
from atoll.inventory.box import Box
from atoll.inventory.islands import best_groups


@rule("TP007", ERROR)
def ids_and_split_differ(facts: Facts) -> Iterable[Finding]:
    yield from _others(facts)
    for engine in facts.engines:
        request, needed = engine.service.gpus, engine.command.world_size
        local = engine.command.integer("--data-parallel-size-local")
        nodes = engine.command.integer("--nnodes", 1)
        if request is None or needed is None or local is not None or nodes != 1:
            continue
        size = _most_gpus(facts, engine.service, needed)
        if size is not None and size != needed:
            idle = size - needed
            few = "it will not start" if idle < 0 else f"{idle} {'stays' if idle == 1 else 'stay'} idle"
            yield found(request.node, f"{_gets(engine.name, size, needed)}: {few}")


def _gets(name: str, size: int, needed: int) -> str:
    return f"{name} gets {counted(size, 'GPU')} and its flags ask for {needed}"


def _others(facts: Facts) -> Iterator[Finding]:
    """The same of SGLang, TGI and LMDeploy, as far as their flags say how many they split a model over."""
    for service in facts.services:
        asked = asked_gpus(service.kind, service.words) if service.vllm is None else None
        size = service.gpus.size if service.gpus is not None else None
        if asked is not None and service.gpus is not None and size is not None and size < asked[0]:
            yield found(
                service.gpus.node,
                f"{_gets(service.name, size, asked[0])}: it will not start",
            )


def _most_gpus(facts: Facts, service: Service, needed: int) -> int | None:
    """How many GPUs a service gets; of a request for all, those of the box where they are too few (else TP010's)."""
    request, box = service.gpus, facts.box_of(service)
    if request is not None and request.all and box is not None and len(box.gpus) < needed:
        return len(box.gpus)
    return request.size if request is not None else None


@rule("TP008", ERROR, risk="The services run on other GPUs.")
def shared_gpu(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        taken: dict[str, Service] = {}
        numbered = any(name.isdecimal() for service in project.gpu_services for name in facts.gpu_names(service))
        for service in project.gpu_services:
            ids = facts.gpu_names(service) or _first_ones(service, numbered=numbered)
            both = [name for name in ids if name in taken and taken[name].together_with(service)]
            if both and _counted(taken[both[0]]) and _counted(service):
                continue  # TP009 says that of both
            if both and not _share_on_purpose(taken[both[0]], service) and service.gpus is not None:
                other = taken[both[0]]
                given = f"GPUs {join(both)} are" if len(both) > 1 else f"GPU {both[0]} is"
                what = f"{given} given to {other.name} and to {service.name}"
                yield found(service.gpus.node, what, edits=_free_ids(facts, project))
            taken |= dict.fromkeys(ids, service)


def _counted(service: Service) -> bool:
    return service.gpus is not None and service.gpus.is_count_of_the_first


def _first_ones(service: Service, *, numbered: bool) -> tuple[str, ...]:
    """Those that Docker gives for `count: N`: the first (moby, countToDevices), where others name theirs by number."""
    request = service.gpus
    if request is None or not numbered or not request.is_count_of_the_first or not request.count:
        return ()
    return tuple(map(str, range(request.count)))


_TAKES_ALL = {"vllm", "tgi", "sglang", "lmdeploy"}  # engines that fill a card unless told otherwise


def _share_on_purpose(one: Service, other: Service) -> bool:
    """No engine that fills the card is among them, or those that would say their share of it (VL014 adds them up)."""
    greedy = [service for service in (one, other) if service.kind in _TAKES_ALL]
    shares = ("--gpu-memory-utilization", "--kv-cache-memory-bytes")
    return all(service.vllm is not None and service.vllm.has(*shares) for service in greedy)


def _free_ids(facts: Facts, project: Project) -> Edits:
    """Every service on GPUs of its own, in order, when the box has so many."""
    requests = [service.gpus for service in project.gpu_services if service.gpus is not None]
    box = facts.box_of(project.gpu_services[0])
    sizes = [len(request.id_nodes) for request in requests]
    if box is None or 0 in sizes or sum(sizes) > len(box.gpus):
        return ()
    order = sorted(range(len(sizes)), key=lambda n: -sizes[n])
    groups = best_groups(box, [sizes[n] for n in order])
    return tuple(
        edit for n, group in zip(order, groups, strict=True) for edit in with_ids(project.gpu_services[n], group)
    )


@rule("TP009", ERROR, risk="The services run on the GPUs that are named.")
def counted_gpus(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        counted = [s for s in project.gpu_services if s.gpus is not None and s.gpus.is_count_of_the_first]
        together = [s for s in counted if any(o is not s and o.together_with(s) for o in counted)]
        if len(together) < 2:
            continue
        first, all_of = 0, "both" if len(together) == 2 else "all"
        for service in together:
            request = service.gpus
            assert request is not None
            count = request.count or 1
            ids = list(range(first, first + count))
            first += count
            alone = len(project.gpu_services) == len(together)
            yield found(
                request.node,
                f"{join([s.name for s in together])} {all_of} get the first GPUs of the box",
                edits=_ids_for_count(service, ids) if alone and _has(facts.box_of(service), ids) else (),
            )


def _has(box: Box | None, gpus: Iterable[int]) -> bool:
    """Whether the box is known and has these GPUs: ids are written for no other."""
    return box is not None and set(gpus) <= set(box.indices)


def _ids_for_count(service: Service, ids: Sequence[int]) -> Edits:
    """`device_ids: [...]` in place of `count: N` or of `gpus: all`."""
    request = service.gpus
    if request is None:
        return ()
    node = request.node
    quoted = ", ".join(f'"{gpu}"' for gpu in ids)
    listed = f"device_ids: [{quoted}]"
    if node is service.get("gpus"):
        return replace_value(node, f"[{{{listed}}}]")
    if not node.is_map:
        return ()
    entry = node.entries.get("count")
    if entry is None:
        return add_key(node, (listed,))
    if not entry.value.source.fixable or entry.merged:
        return ()
    return (Edit(file=entry.value.file, start=entry.key.start, end=entry.value.end, text=listed),)


@rule("TP010", WARNING, risk="The service sees only the GPUs that are named.")
def holds_all_gpus(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        request, needed, box = engine.service.gpus, engine.command.world_size, facts.box_of(engine.service)
        if request is None or not request.all or needed is None:
            continue
        others = [s for s in facts.project_of(engine.service).gpu_services if s is not engine.service]
        many = box is not None and needed < len(box.gpus)
        if many or (box is None and needed == 1) or others:
            ids = best_groups(box, [needed])[0] if many and box is not None else range(needed)
            rest = f"and {others[0].name} wants some too" if others else f"and uses {needed}"
            yield found(
                request.node,
                f"{engine.name} is given all GPUs {rest}",
                edits=_ids_for_count(engine.service, list(ids)) if not others and many else (),
            )


@rule("TP011", ERROR, risk="The engine sees all GPUs of its container.")
def host_numbers_inside(facts: Facts) -> Iterable[Finding]:
    for service in facts.services:
        setting, request = service.environment.get("CUDA_VISIBLE_DEVICES"), service.requested_gpus
        if setting is None or setting.value is None or request is None or request.size is None:
            continue
        asked = (
            [int(part) for part in re.findall(r"\d+", setting.value)] if re.fullmatch(r"[\d, ]+", setting.value) else []
        )
        seen = counted(request.size, "GPU")
        if asked and max(asked) >= request.size:
            yield found(
                setting.node,
                f"CUDA_VISIBLE_DEVICES={setting.value} in a container that sees {seen}, numbered from 0",
                edits=remove_setting(service, setting),
            )


@rule("TP012", WARNING, risk="GPU numbers mean other cards than today, where CUDA ordered them by speed.")
def numbers_on_a_mixed_box(facts: Facts) -> Iterable[Finding]:
    for service in (service for project in facts.projects for service in project.gpu_services):
        box, request = facts.box_of(service), service.gpus
        if box is None or request is None or request.indices is None:
            continue
        kinds = {gpu.name for gpu in box.gpus if gpu.name is not None}
        order = service.environment.get("CUDA_DEVICE_ORDER")
        if len(kinds) > 1 and (order is None or order.value != "PCI_BUS_ID"):
            yield found(
                request.node,
                f"GPU numbers are ambiguous on a box with {join(sorted(kinds))}",
                edits=_add_variable(service, "CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            )


def _add_variable(service: Service, name: str, value: str) -> Edits:
    node = service.get("environment")
    if node is None:
        return add_key(service.node, ("environment:", f"  {name}: {value}")) if service.node.style == "block" else ()
    return add_key(node, (f"{name}: {value}",)) if node.is_map else ()
