"""Engines against what joins the GPUs of the box: islands, peers, sockets."""

from collections.abc import Iterable, Iterator
from itertools import combinations

from atoll.doctor.checks.memory import Placement, on_boxes, placements
from atoll.doctor.checks.places import found, join, remove_setting, with_ids
from atoll.doctor.command_edits import add_option
from atoll.doctor.edits import Edits, add_key
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.planned import of_sizes, planned_fix
from atoll.doctor.rule import ERROR, INFO, WARNING, rule
from atoll.inventory.box import Box, LinkKind
from atoll.inventory.islands import best_groups, islands
from atoll.layout.layout import Layout


@rule("TP001", ERROR, risk="The engines run on other GPUs.")
def group_spans_islands(facts: Facts) -> Iterable[Finding]:
    for placed, box, gpus in on_boxes(facts):
        if placed.tensor_parallel < 2 or box.pcie_only or placed.ours or len(gpus) != placed.size:
            continue
        for group in _tensor_groups(placed, gpus):
            if not _nvlinked(box) or _inside_an_island(box, group):
                continue
            fix = planned_fix(facts, placed.place.file, lambda other: not _crosses(other))
            if fix is not None:
                names = join([f"{{{', '.join(map(str, island))}}}" for island in islands(box)])
                yield found(
                    placed.split
                    if placed.service is None
                    else placed.service.gpus.node
                    if placed.service.gpus
                    else placed.place,
                    f"{placed.name} splits a model over GPUs {join(list(map(str, group)))}; the islands are {names}",
                    fix=fix,
                    edits=_repinned(facts, placed),
                )


def _tensor_groups(placed: Placement, gpus: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """The engine gives each pipeline stage neighbouring ranks."""
    for start in range(0, len(gpus), placed.tensor_parallel):
        yield gpus[start : start + placed.tensor_parallel]


def _crosses(layout: Layout) -> bool:
    """Whether a tensor-parallel group of the layout reaches over the end of its island."""
    return any(
        not _inside_an_island(layout.box, replica.gpus[start : start + replica.tensor_parallel])
        for replica in layout.replicas
        for start in range(0, len(replica.gpus), replica.tensor_parallel)
    )


def _nvlinked(box: Box) -> bool:
    return any(link.kind is LinkKind.NV for link in box.links)


def _inside_an_island(box: Box, group: tuple[int, ...]) -> bool:
    return any(set(group) <= set(island) for island in islands(box))


def _repinned(facts: Facts, placed: Placement) -> Edits:
    """All engines of the project on the best groups of these sizes, when every one of them has ids to change."""
    if placed.service is None or placed.box is None:
        return ()
    project = facts.project_of(placed.service)
    mine = [other for other in placements(facts) if other.service in project.services]
    if len(mine) != len(project.gpu_services) or sum(other.size for other in mine) > len(placed.box.gpus):
        return ()
    mine.sort(key=lambda other: -other.size)
    groups = best_groups(placed.box, [other.size for other in mine])
    if any(
        other.tensor_parallel > 1 and not _inside_an_island(placed.box, group)
        for other, group in zip(mine, groups, strict=True)
    ):
        return ()
    return tuple(edit for other, group in zip(mine, groups, strict=True) for edit in with_ids(other.service, group))


@rule("TP002", WARNING)
def wide_without_nvlink(facts: Facts) -> Iterable[Finding]:
    for placed, box, gpus in on_boxes(facts):
        linked = any(box.link(a, b).kind is LinkKind.NV for a, b in combinations(gpus, 2))
        if placed.tensor_parallel <= 2 or linked or box.pcie_only or placed.ours:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes(range(1, placed.tensor_parallel)))
        if fix is not None:
            what = f"{placed.name} splits a model over {placed.tensor_parallel} GPUs without NVLink"
            yield found(placed.split, what, fix=fix)


@rule("TP004", ERROR)
def broken_peer_to_peer(facts: Facts) -> Iterable[Finding]:
    bridges = facts.host.acs_redirect if facts.host is not None else None
    if not bridges:
        return
    for placed in placements(facts):
        over_nvlink = placed.box is not None and placed.gpus is not None and _inside_an_island(placed.box, placed.gpus)
        told = placed.service is not None and "NCCL_P2P_DISABLE" in placed.service.environment
        if placed.tensor_parallel > 1 and not over_nvlink and not told:
            yield found(
                placed.split, f"{placed.name} needs traffic between GPUs; ACS redirects it at {join(bridges[:3])}"
            )


@rule("TP005", WARNING, risk="NCCL uses peer-to-peer copies between the GPUs.")
def nvlink_switched_off(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        setting = placed.service.environment.get("NCCL_P2P_DISABLE") if placed.service is not None else None
        if setting is not None and setting.value == "1" and placed.box is not None and _nvlinked(placed.box):
            yield found(
                setting.node,
                "NCCL_P2P_DISABLE=1 switches NVLink off too",
                edits=remove_setting(placed.service, setting),
            )


@rule("TP013", WARNING)
def unequal_cards(facts: Facts) -> Iterable[Finding]:
    for placed, box, gpus in on_boxes(facts):
        kinds = {box.gpu(index).name for index in gpus} - {None}
        if placed.size > 1 and len(kinds) > 1:
            yield found(placed.split, f"{placed.name} splits a model over {join(sorted(str(kind) for kind in kinds))}")


@rule("TP014", INFO, risk="The engine's threads stay on the cores near its GPUs.")
def unbound_processes(facts: Facts) -> Iterable[Finding]:
    for placed, box, gpus in on_boxes(facts):
        service = placed.service
        nodes = {gpu.numa_node for gpu in box.gpus if gpu.numa_node is not None}
        mine = {box.gpu(index).cpu_affinity for index in gpus}
        if service is None or service.vllm is None or len(nodes) < 2 or None in mine or placed.ours:
            continue
        if service.get("cpuset") is not None or service.vllm.has("--numa-bind"):
            continue
        if len(mine) == 1:
            cores = next(iter(mine))
            yield found(
                service,
                f"{service.name} may run on the CPU socket far from its GPUs; the near one has cores {cores}",
                edits=add_key(service.node, (f'cpuset: "{cores}"',)),
            )
        elif service.vllm.version_known and service.vllm.table.known("--numa-bind"):
            yield found(
                service,
                f"the workers of {service.name} may run on the socket far from their GPU",
                fix="--numa-bind: its GPUs are on both sockets, so that no cpuset serves them all.",
                edits=add_option(service.vllm.words, ("--numa-bind",), service.get("command")),
            )


@rule("TP018", INFO)
def no_copies_over_pcie(facts: Facts) -> Iterable[Finding]:
    for placed in placements(facts):
        service = placed.service
        if service is None or placed.tensor_parallel < 2 or placed.ours or "NCCL_P2P_DISABLE" in service.environment:
            continue
        kind = facts.kind_of(service)
        linked = placed.box is not None and placed.gpus is not None and _inside_an_island(placed.box, placed.gpus)
        unknown = placed.box is None and kind is not None and kind.nvlinks > 0  # a bridge may join them
        if kind is not None and not kind.pcie_peer_to_peer and not linked and not unknown:
            what = f"{placed.name} splits a model over cards ({kind.name}) that cannot copy to each other over PCIe"
            yield found(placed.split, what)
