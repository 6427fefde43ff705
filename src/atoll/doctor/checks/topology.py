"""Engines against the GPUs of the box: islands, sizes, ids."""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from atoll.doctor.checks.memory import Placement, placements
from atoll.doctor.checks.places import found, join
from atoll.doctor.compose import Project, Service, Setting
from atoll.doctor.edits import Edits, add_key, add_option, remove_item, remove_key, replace_value
from atoll.doctor.facts import Facts, Load
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.planned import of_sizes, planned_fix
from atoll.doctor.rule import ERROR, INFO, WARNING, rule
from atoll.inventory.box import Box, LinkKind
from atoll.inventory.islands import best_groups, best_split, islands
from atoll.layout.layout import Layout

SUPPORTED_SIZES = (2, 4, 6, 8, 16)  # of vLLM's own all-reduce, custom_all_reduce.py of 0.32.0


@rule("TP001", ERROR)
def group_spans_islands(facts: Facts) -> Iterable[Finding]:
    """A tensor-parallel group reaches over the end of its NVLink island.

    Consequence: Every all-reduce goes over PCIe or between the sockets: vLLM's own all-reduce is off, and FlashInfer's,
    which does not look at the links, took 259 ms a token in place of 25 on H100 NVL.

    Evidence: vLLM 0.32.0, custom_all_reduce.py; https://github.com/vllm-project/vllm/issues/48071;
    https://github.com/NVIDIA/k8s-device-plugin/issues/436, https://github.com/noonghunna/club-3090/issues/356.

    Fix: Pin each group inside one island; `atoll inspect` shows them.

    Fails:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     NV12  SYS   SYS
    GPU1    NV12  X     SYS   SYS
    GPU2    SYS   SYS   X     NV12
    GPU3    SYS   SYS   NV12  X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "2"]
        gpus: [{device_ids: ["1", "2"]}]
    ```

    Passes:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     NV12  SYS   SYS
    GPU1    NV12  X     SYS   SYS
    GPU2    SYS   SYS   X     NV12
    GPU3    SYS   SYS   NV12  X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "2"]
        gpus: [{device_ids: ["2", "3"]}]
    ```
    """
    for placed, box, gpus in _on_boxes(facts):
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


def _on_boxes(facts: Facts) -> Iterator[tuple[Placement, Box, tuple[int, ...]]]:
    """Placements whose GPUs and box are known and agree."""
    for placed in placements(facts):
        if placed.box is not None and placed.gpus is not None and set(placed.gpus) <= set(placed.box.indices):
            yield placed, placed.box, placed.gpus


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
    return tuple(edit for other, group in zip(mine, groups, strict=True) for edit in _with_ids(other.service, group))


def _with_ids(service: Service | None, group: Sequence[int]) -> Edits:
    request = service.gpus if service is not None else None
    if request is None or len(request.id_nodes) != len(group) or any(":" in (n.text or "") for n in request.id_nodes):
        return ()
    return tuple(
        edit
        for node, gpu in zip(request.id_nodes, group, strict=True)
        if node.text != str(gpu)
        for edit in replace_value(node, f'"{gpu}"')
    )


@rule("TP002", WARNING)
def wide_without_nvlink(facts: Facts) -> Iterable[Finding]:
    """Tensor parallelism over three or more GPUs that PCIe alone joins.

    Consequence: vLLM switches its own all-reduce off and falls back to NCCL, several times slower for small messages.

    Evidence: vLLM 0.32.0, custom_all_reduce.py; https://github.com/vllm-project/vllm/issues/56128.

    Fix: TP 2 and more replicas, pipeline parallelism, or a quantised model on fewer GPUs.

    Fails:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     PHB   PHB   PHB
    GPU1    PHB   X     PHB   PHB
    GPU2    PHB   PHB   X     PHB
    GPU3    PHB   PHB   PHB   X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "4"]
        gpus: all
    ```

    Passes:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     PHB   PHB   PHB
    GPU1    PHB   X     PHB   PHB
    GPU2    PHB   PHB   X     PHB
    GPU3    PHB   PHB   PHB   X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "2"]
        gpus: [{device_ids: ["0", "1"]}]
    ```
    """
    for placed, box, gpus in _on_boxes(facts):
        linked = any(box.link(a, b).kind is LinkKind.NV for a, b in combinations(gpus, 2))
        if placed.tensor_parallel <= 2 or linked or box.pcie_only or placed.ours:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes(range(1, placed.tensor_parallel)))
        if fix is not None:
            what = f"{placed.name} splits a model over {placed.tensor_parallel} GPUs without NVLink"
            yield found(placed.split, what, fix=fix)


@rule("TP003", INFO)
def odd_size(facts: Facts) -> Iterable[Finding]:
    """A tensor-parallel size other than 2, 4, 6, 8 or 16.

    Consequence: vLLM's own all-reduce does not know it: NCCL does everything.

    Evidence: vLLM 0.32.0, custom_all_reduce.py, _SUPPORTED_WORLD_SIZES.

    Fix: Take a size that it knows.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "3"]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "4"]}
    ```
    """
    for placed in placements(facts):
        if placed.tensor_parallel == 1 or placed.tensor_parallel in SUPPORTED_SIZES:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes((1, *SUPPORTED_SIZES)))
        if fix is not None:
            yield found(placed.split, f"a tensor-parallel size of {placed.tensor_parallel}", fix=fix)


@rule("TP004", ERROR)
def broken_peer_to_peer(facts: Facts) -> Iterable[Finding]:
    """PCIe bridges send the traffic between GPUs up to the root port (ACS), on a box without NVLink between them.

    Consequence: NCCL hangs or gives garbage at the start of tensor parallelism.

    Evidence: NCCL's troubleshooting page (GPU Direct, ACS); https://github.com/vllm-project/vllm/issues/51513.

    Fix: Switch ACS (and IOMMU translation) off, else NCCL_P2P_DISABLE=1 and --disable-custom-all-reduce.

    Fails: with the output of `lspci -vvv`
    ```lspci.txt
    0000:00:01.0 PCI bridge: Example Corp Root Port
            ACSCtl: SrcValid+ TransBlk- ReqRedir+ CmpltRedir+ UpstreamFwd+
    ```
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["0", "1"]}]}
    ```

    Passes:
    ```lspci.txt
    0000:00:01.0 PCI bridge: Example Corp Root Port
            ACSCtl: SrcValid- TransBlk- ReqRedir- CmpltRedir- UpstreamFwd-
    ```
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["0", "1"]}]}
    ```
    """
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


@rule("TP005", WARNING)
def nvlink_switched_off(facts: Facts) -> Iterable[Finding]:
    """NCCL_P2P_DISABLE=1 on a box with NVLink.

    Consequence: NVLink is left aside, and everything between the GPUs goes through the host's memory.

    Evidence: NCCL's documentation of its environment variables.

    Fix: Take it out, or NCCL_P2P_LEVEL=NVL.

    Fails:
    ```topo.txt
            GPU0  GPU1
    GPU0    X     NV12
    GPU1    NV12  X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, -tp, "2"]
        environment:
          NCCL_P2P_DISABLE: "1"
          HF_HUB_OFFLINE: "1"
    ```

    Passes: a box without NVLink
    ```topo.txt
            GPU0  GPU1
    GPU0    X     PHB
    GPU1    PHB   X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, -tp, "2"]
        environment: [NCCL_P2P_DISABLE=1]
    ```
    """
    for placed in placements(facts):
        setting = placed.service.environment.get("NCCL_P2P_DISABLE") if placed.service is not None else None
        if setting is not None and setting.value == "1" and placed.box is not None and _nvlinked(placed.box):
            yield found(
                setting.node,
                "NCCL_P2P_DISABLE=1 switches NVLink off too",
                edits=remove_setting(placed.service, setting),
            )


def remove_setting(service: Service | None, setting: Setting) -> Edits:
    """Take a variable out of `environment`, list or mapping; the whole of it when there is no other."""
    node = service.get("environment") if service is not None else None
    if service is None or node is None:
        return ()
    entry = node.entries.get(setting.name)
    if setting.node not in node.items and (entry is None or entry.value is not setting.node):
        return ()  # it came out of a file or out of the command
    if len(node.items) + len(node.entries) == 1:
        return remove_key(service.node, "environment")
    return remove_key(node, setting.name) if node.is_map else remove_item(setting.node)


# A replica is called large enough when it holds so many tokens: 64 requests of 2 k, the length below which four fifths
# of public traffic stay (https://arxiv.org/html/2604.09613v1).
ENOUGH_TOKENS = 64 * 2048


@rule("TP006", WARNING)
def wider_than_needed(facts: Facts) -> Iterable[Finding]:
    """A model is split over more GPUs than it needs.

    Consequence: An all-reduce in every layer for memory that was not short. Where one half holds the model and its KV
    cache, two replicas serve more.

    Evidence: https://github.com/vllm-project/vllm/issues/12470, https://github.com/vllm-project/vllm/issues/1435;
    the arithmetic of vLLM's own start-up check.

    Fix: Half the tensor-parallel size and twice the replicas; compare both with a load test (`atoll plan`, `atoll
    study`).

    Fails:
    ```topo.txt
            GPU0  GPU1  GPU2  GPU3
    GPU0    X     NV12  SYS   SYS
    GPU1    NV12  X     SYS   SYS
    GPU2    SYS   SYS   X     NV12
    GPU3    SYS   SYS   NV12  X
    ```
    ```options
    gpu: H100-NVL-94GB
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, --tensor-parallel-size, "4", --max-model-len, "16384"]
        gpus: all
    ```

    Passes:
    ```topo.txt
            GPU0  GPU1
    GPU0    X     NV12
    GPU1    NV12  X
    ```
    ```options
    gpu: H100-NVL-94GB
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-72B-Instruct, --tensor-parallel-size, "2", --max-model-len, "16384"]
        gpus: all
    ```
    """
    for placed in placements(facts):
        half = placed.tensor_parallel // 2
        if placed.tensor_parallel % 2 or half < 1 or placed.ours:
            continue
        fit = placed.fit(half)
        wanted = max(_wanted_tokens(facts.load_at(placed.place.file)), placed.flags.max_model_len or 0)
        if fit is None or not fit.fits or fit.kv_tokens < wanted:
            continue
        fix = planned_fix(facts, placed.place.file, of_sizes(range(1, placed.tensor_parallel)))
        if fix is None:
            continue
        yield found(
            placed.split,
            f"{placed.name} spreads {_model_name(placed)} over {placed.tensor_parallel} GPUs; {half} hold it with room"
            f" for {fit.kv_tokens:,} tokens",
            fix=fix or _halved(placed, half),
        )


def _wanted_tokens(load: Load) -> int:
    if load.users is not None and load.prompt_tokens is not None and load.output_tokens is not None:
        return load.users * (load.prompt_tokens + load.output_tokens)
    return ENOUGH_TOKENS


def _model_name(placed: Placement) -> str:
    return placed.card.name if placed.card is not None else "the model"


def _halved(placed: Placement, half: int) -> str:
    gpus, box = placed.gpus, placed.box
    where = ""
    if box is not None and gpus is not None and set(gpus) == set(box.indices) and len(gpus) % half == 0:
        where = ": " + " ".join(str(list(group)) for group in best_split(box, half))
    count = (len(gpus) if gpus is not None else placed.tensor_parallel) // half
    return f"{count} replicas of TP {half}{where}, behind nginx with least_conn; compare both with a load test."


@rule("TP007", ERROR)
def ids_and_split_differ(facts: Facts) -> Iterable[Finding]:
    """The number of GPUs that a service gets is not TP x PP x DP.

    Consequence: Too few: vLLM does not start. Too many: GPUs are held and idle.

    Evidence: the compose file and the flags, held together.

    Fix: Make them equal.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, -tp, "4"]
        gpus: [{device_ids: ["0", "1"]}]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, -tp, "2", -pp, "2"]
        gpus: [{device_ids: ["0", "1", "2", "3"]}]
    ```
    """
    for engine in facts.engines:
        request, needed = engine.service.gpus, engine.command.world_size
        local = engine.command.integer("--data-parallel-size-local")
        nodes = engine.command.integer("--nnodes", 1)
        if request is None or needed is None or local is not None or nodes != 1:
            continue
        size = _most_gpus(facts, engine.service, needed)
        if size is not None and size != needed:
            few = "it will not start" if size < needed else f"{size - needed} stay idle"
            yield found(request.node, f"{engine.name} gets {size} GPUs and its flags ask for {needed}: {few}")


def _most_gpus(facts: Facts, service: Service, needed: int) -> int | None:
    """How many GPUs a service gets; of a request for all, those of the box where they are too few (else TP010's)."""
    request, box = service.gpus, facts.box_of(service)
    if request is not None and request.all and box is not None and len(box.gpus) < needed:
        return len(box.gpus)
    return request.size if request is not None else None


@rule("TP008", ERROR)
def shared_gpu(facts: Facts) -> Iterable[Finding]:
    """The same GPU is given to two services.

    Consequence: Out of memory at start, or both are slow.

    Evidence: https://github.com/gpustack/gpustack/issues/3647.

    Fix: Disjoint ids; or, for small models that are meant to share, --gpu-memory-utilization fractions that add up to
    less than 1.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["0", "1"]}]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["1", "2"]}]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["0", "1"]}]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["2", "3"]}]}
    ```
    """
    for project in facts.projects:
        taken: dict[str, Service] = {}
        for service in project.gpu_services:
            ids = facts.gpu_names(service)
            both = [name for name in ids if name in taken and taken[name].together_with(service)]
            if both and not _share_on_purpose(taken[both[0]], service) and service.gpus is not None:
                other = taken[both[0]]
                yield found(
                    service.gpus.node,
                    f"GPU {join(both)} is given to {other.name} and to {service.name}",
                    edits=_free_ids(facts, project),
                )
            taken |= dict.fromkeys(ids, service)


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
        edit for n, group in zip(order, groups, strict=True) for edit in _with_ids(project.gpu_services[n], group)
    )


@rule("TP009", ERROR)
def counted_gpus(facts: Facts) -> Iterable[Finding]:
    """`count: N` in several services.

    Consequence: Docker keeps only the number: every container gets the first N GPUs, so all land on the same ones.

    Evidence: docker inspect of such a request; https://github.com/gpustack/gpustack/issues/3647.

    Fix: device_ids.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{count: 1}]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{count: 1}]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: ["0"]}]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: ["1"]}]}
    ```
    """
    for project in facts.projects:
        counted = [s for s in project.gpu_services if s.gpus is not None and s.gpus.ids is None and not s.gpus.all]
        together = [s for s in counted if any(o is not s and o.together_with(s) for o in counted)]
        if len(together) < 2:
            continue
        first = 0
        for service in together:
            request = service.gpus
            assert request is not None
            count = request.count or 1
            ids = list(range(first, first + count))
            first += count
            alone = len(project.gpu_services) == len(together)
            yield found(
                request.node,
                f"{join([s.name for s in together])} all get the first GPUs of the box",
                edits=_ids_for_count(service, ids) if alone else (),
            )


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


@rule("TP010", WARNING)
def holds_all_gpus(facts: Facts) -> Iterable[Finding]:
    """An engine is given all GPUs and uses fewer.

    Consequence: Some work and the others are held for nothing, or another service fights for them.

    Evidence: the request and the flags, held together; seen in a real file.

    Fix: device_ids for the GPUs that it uses.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: all}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: ["0"]}]}
    ```
    """
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
                edits=_ids_for_count(engine.service, list(ids)) if not others else (),
            )


@rule("TP011", ERROR)
def host_numbers_inside(facts: Facts) -> Iterable[Finding]:
    """CUDA_VISIBLE_DEVICES holds the host's numbers next to device_ids.

    Consequence: Inside the container the GPUs are numbered from 0: vLLM finds no device, or the wrong one.

    Evidence: https://github.com/vllm-project/vllm/issues/28132.

    Fix: Take the variable out.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, -tp, "2"]
        environment: {CUDA_VISIBLE_DEVICES: "2,3", HF_HUB_OFFLINE: "1"}
        gpus: [{device_ids: ["2", "3"]}]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model, -tp, "2"]
        environment: {CUDA_VISIBLE_DEVICES: "0,1", HF_HUB_OFFLINE: "1"}
        gpus: [{device_ids: ["2", "3"]}]
    ```
    """
    for service in facts.services:
        setting, request = service.environment.get("CUDA_VISIBLE_DEVICES"), service.requested_gpus
        if setting is None or setting.value is None or request is None or request.size is None:
            continue
        asked = (
            [int(part) for part in re.findall(r"\d+", setting.value)] if re.fullmatch(r"[\d, ]+", setting.value) else []
        )
        if asked and max(asked) >= request.size:
            yield found(
                setting.node,
                f"CUDA_VISIBLE_DEVICES={setting.value} in a container whose {request.size} GPUs count from 0",
                edits=remove_setting(service, setting),
            )


@rule("TP012", WARNING)
def numbers_on_a_mixed_box(facts: Facts) -> Iterable[Finding]:
    """GPU numbers on a box with different cards, without CUDA_DEVICE_ORDER=PCI_BUS_ID.

    Consequence: CUDA puts the fastest card first, nvidia-smi goes by the bus: the wrong card gets the model.

    Evidence: https://github.com/gpustack/gpustack/issues/6041, https://github.com/gpustack/gpustack/issues/1633,
    https://github.com/jsboige/CoursIA/pull/11650.

    Fix: CUDA_DEVICE_ORDER=PCI_BUS_ID, and UUIDs in device_ids.

    Fails:
    ```topo.txt
    GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-11111111-0000-0000-0000-000000000000)
    GPU 1: NVIDIA L40S (UUID: GPU-22222222-0000-0000-0000-000000000000)
            GPU0  GPU1
    GPU0    X     SYS
    GPU1    SYS   X
    ```
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: ["1"]}]}
    ```

    Passes:
    ```topo.txt
    GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-11111111-0000-0000-0000-000000000000)
    GPU 1: NVIDIA L40S (UUID: GPU-22222222-0000-0000-0000-000000000000)
            GPU0  GPU1
    GPU0    X     SYS
    GPU1    SYS   X
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {CUDA_DEVICE_ORDER: PCI_BUS_ID}
        gpus: [{device_ids: ["1"]}]
    ```
    """
    for service in (service for project in facts.projects for service in project.gpu_services):
        box, request = facts.box_of(service), service.gpus
        if box is None or request is None or request.indices is None:
            continue
        kinds = {gpu.name for gpu in box.gpus if gpu.name is not None}
        order = service.environment.get("CUDA_DEVICE_ORDER")
        if len(kinds) > 1 and (order is None or order.value != "PCI_BUS_ID"):
            yield found(
                request.node,
                f"numbers on a box with {join(sorted(kinds))}",
                edits=_add_variable(service, "CUDA_DEVICE_ORDER", "PCI_BUS_ID"),
            )


def _add_variable(service: Service, name: str, value: str) -> Edits:
    node = service.get("environment")
    if node is None:
        return add_key(service.node, ("environment:", f"  {name}: {value}")) if service.node.style == "block" else ()
    return add_key(node, (f"{name}: {value}",)) if node.is_map else ()


@rule("TP013", WARNING)
def unequal_cards(facts: Facts) -> Iterable[Finding]:
    """Different cards in one tensor-parallel group.

    Consequence: The slowest card and the smallest memory set the pace of all.

    Evidence: https://github.com/vllm-project/vllm/issues/9157.

    Fix: Group equal cards.

    Fails:
    ```topo.txt
    GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-11111111-0000-0000-0000-000000000000)
    GPU 1: NVIDIA L40S (UUID: GPU-22222222-0000-0000-0000-000000000000)
            GPU0  GPU1
    GPU0    X     SYS
    GPU1    SYS   X
    ```
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["0", "1"]}]}
    ```

    Passes:
    ```topo.txt
    GPU 0: NVIDIA L40S (UUID: GPU-11111111-0000-0000-0000-000000000000)
    GPU 1: NVIDIA L40S (UUID: GPU-22222222-0000-0000-0000-000000000000)
            GPU0  GPU1
    GPU0    X     SYS
    GPU1    SYS   X
    ```
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], gpus: [{device_ids: ["0", "1"]}]}
    ```
    """
    for placed, box, gpus in _on_boxes(facts):
        kinds = {box.gpu(index).name for index in gpus} - {None}
        if placed.size > 1 and len(kinds) > 1:
            yield found(placed.split, f"{placed.name} joins {join(sorted(str(kind) for kind in kinds))}")


@rule("TP014", INFO)
def unbound_processes(facts: Facts) -> Iterable[Finding]:
    """No binding to the GPUs' side of a box with two sockets.

    Consequence: The workers may run on the far socket.

    Evidence: --numa-bind in the help of 0.32.0.

    Fix: --numa-bind, or cpuset with the cores that `nvidia-smi topo -m` shows beside these GPUs.

    Fails:
    ```topo.txt
            GPU0  GPU1  CPU Affinity  NUMA Affinity
    GPU0    X     SYS   0-31          0
    GPU1    SYS   X     32-63         1
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model]
        gpus: [{device_ids: ["1"]}]
    ```

    Passes:
    ```topo.txt
            GPU0  GPU1  CPU Affinity  NUMA Affinity
    GPU0    X     SYS   0-31          0
    GPU1    SYS   X     32-63         1
    ```
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [m/model]
        cpuset: 32-63
        gpus: [{device_ids: ["1"]}]
    ```
    """
    for placed, box, gpus in _on_boxes(facts):
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
                f"{service.name} may run on the socket far from its GPUs; theirs has cores {cores}",
                edits=add_key(service.node, (f'cpuset: "{cores}"',)),
            )
        elif service.vllm.table.known("--numa-bind"):
            yield found(
                service,
                f"the workers of {service.name} may run on the socket far from their GPU",
                fix="--numa-bind: its GPUs are on both sockets, so that no cpuset serves them all.",
                edits=add_option(service.vllm.words, ("--numa-bind",), service.get("command")),
            )


@rule("TP015", ERROR)
def unquoted_ids(facts: Facts) -> Iterable[Finding]:
    """device_ids are written as numbers.

    Consequence: Compose refuses the file: device_ids.0 must be a string.

    Evidence: docker compose 2.40.3.

    Fix: Quote them.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: [0]}]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: [{device_ids: ["0"]}]}
    ```
    """
    for service in facts.services:
        nodes = service.gpus.id_nodes if service.gpus is not None else ()
        wrong = [node for node in nodes if node.tag in {"int", "float"}]
        if wrong and facts.project_of(service).origin == "compose":
            edits = tuple(edit for node in wrong for edit in replace_value(node, f'"{node.text}"'))
            yield found(wrong[0], f"the GPU ids of {service.name} are numbers; Compose wants strings", edits=edits)


@rule("TP016", ERROR)
def incomplete_request(facts: Facts) -> Iterable[Finding]:
    """A device entry without capabilities, or with both count and device_ids.

    Consequence: Compose refuses the file.

    Evidence: docker compose 2.40.3.

    Fix: capabilities: [gpu]; one of the two.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        deploy:
          resources:
            reservations:
              devices:
                - driver: nvidia
                  device_ids: ["0"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        deploy:
          resources:
            reservations:
              devices:
                - driver: nvidia
                  device_ids: ["0"]
                  capabilities: [gpu]
    ```
    """
    for service in facts.services:
        devices = service.get("deploy", "resources", "reservations", "devices")
        for device in devices.items if devices is not None else ():
            if not device.is_map:
                continue
            if device.get("capabilities") is None:
                yield found(
                    device,
                    f"the device request of {service.name} has no capabilities",
                    edits=add_key(device, ("capabilities: [gpu]",)),
                )
            if device.get("count") is not None and device.get("device_ids") is not None:
                yield found(
                    device,
                    f"the device request of {service.name} has both count and device_ids",
                    edits=remove_key(device, "count"),
                )


RULES = (
    group_spans_islands,
    wide_without_nvlink,
    odd_size,
    broken_peer_to_peer,
    nvlink_switched_off,
    wider_than_needed,
    ids_and_split_differ,
    shared_gpu,
    counted_gpus,
    holds_all_gpus,
    host_numbers_inside,
    numbers_on_a_mixed_box,
    unequal_cards,
    unbound_processes,
    unquoted_ids,
    incomplete_request,
)
