"""Text of nvidia-smi -> Box.

Reads `nvidia-smi topo -m` as the tool prints it and as people paste it, and takes the cards' names from
`nvidia-smi -L`, from `--query-gpu ... --format=csv` and from the plain table when they stand in the same text.
A list of MIG slices alone is a box, since nothing joins them.
A matrix that leaves any doubt is refused with a sentence: a wrong one would put a model on the wrong cards.
"""

import re
from collections.abc import Iterable

from atoll.errors import BadTopology
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.cards import Card, find_cards, find_slices, name_card
from atoll.inventory.matrix import Flaw, Matrix, View, find_blocks, read_matrix, read_places
from atoll.inventory.paste import clean_lines, unwrap


def parse_box(text: str, *, origin: str) -> Box:
    """The box that a capture of `nvidia-smi topo -m` shows.

    Args:
        text: the capture, with whatever stands around it in the paste.
        origin: where it came from, for the error sentence.

    Raises:
        BadTopology: there is no matrix in it, or none that can be read with certainty; one sentence says why.
    """
    lines = clean_lines(text)
    slices, uncut = find_slices(lines)
    if slices and not find_blocks(lines):
        return _box_of_slices(slices, uncut, origin)
    try:
        return _read_box(lines, text, origin)
    except BadTopology:
        unwrapped = unwrap(text)
        if unwrapped is None:
            raise
        try:
            return _read_box(unwrapped, text, origin)
        except BadTopology:
            pass
        raise


def _read_box(lines: list[str], text: str, origin: str) -> Box:
    matrix = _the_one([read_matrix(block) for block in find_blocks(lines)], text, origin)
    cards = find_cards(lines)
    box = _build_box(matrix, cards)
    return box.replace(notes=tuple(_notes(box, matrix, cards, text)))


def _the_one(found: list[Matrix | Flaw], text: str, origin: str) -> Matrix:
    """The one matrix of paths in the paste; `topo -mp` counts only when there is no `topo -m`."""
    matrices = [one for one in found if isinstance(one, Matrix)]
    flaws = [one for one in found if isinstance(one, Flaw)]
    whole = [matrix for matrix in matrices if matrix.view is not View.PCIE] or matrices
    broken = [flaw for flaw in flaws if not flaw.foreign]
    if broken:
        raise BadTopology(f"{origin}: this matrix cannot be read with certainty: {broken[0].why}. {_AGAIN}")
    if not whole:
        raise BadTopology(f"{origin}: {_what_it_seems(text, flaws)} {_AGAIN}")
    if any(matrix.cells != whole[0].cells or set(matrix.gpus) != set(whole[0].gpus) for matrix in whole[1:]):
        raise BadTopology(
            f"{origin}: there are different topology matrices in this text; keep the one of the box you mean."
        )
    return whole[0]


_AGAIN = "Give the whole output of `nvidia-smi topo -m`."


_SEEMS = (
    (r"rocm|xgmi|amd topology", "this is ROCm's topology of AMD GPUs; atoll reads NVIDIA's."),
    (r"has failed because it couldn't communicate|failed to initialize nvml", "nvidia-smi found no working driver."),
    (r"command not found|not recognized", "this is an error message: nvidia-smi is not installed where it was called."),
    (
        r"link [0-9]+: .*(?:gb/s|inactive)|retrieve nvlink information",
        "this is `nvidia-smi nvlink --status`, which does not say which card a link goes to.",
    ),
    (r"driver version.*cuda version", "this is the status table of plain `nvidia-smi`, which shows no links."),
    (
        r"(?m)^\W*mig [1-7]g\.[0-9]+gb",
        "this is a list of MIG slices, which nothing joins; say how many: `--gpu 'H100 MIG 3g.40gb' --gpus 2`.",
    ),
    (r"(?m)^\W*gpu ?[0-9]+: ", "this is a list of GPUs (`nvidia-smi -L`), which shows no links."),
    (r"gpu ?[0-9].*affinity", "there is the header of a topology matrix, but no row."),
)


def _what_it_seems(text: str, flaws: list[Flaw]) -> str:
    """One sentence on a text without a matrix."""
    if not text.strip():
        return "this is empty."
    lower = text.lower()
    if "rocm" not in lower and flaws:
        return f"this is no `nvidia-smi topo -m` matrix: {flaws[0].why}."
    sentences = (sentence for pattern, sentence in _SEEMS if re.search(pattern, lower))
    return next(sentences, "there is no GPU topology matrix in this text.")


def _build_box(matrix: Matrix, cards: dict[int, Card]) -> Box:
    places = read_places(matrix)
    known = cards if set(cards) == set(matrix.gpus) else {}
    gpus = tuple(_gpu(index, known.get(index), *places[index]) for index in sorted(matrix.gpus))
    links = tuple(_link(a, b, code) for (a, b), code in sorted(matrix.cells.items()))
    pcie_only = matrix.view is View.PCIE and all(link.kind is not LinkKind.NV for link in links)
    return Box(gpus=gpus, links=links, pcie_only=pcie_only)


def _box_of_slices(slices: list[Card], uncut: int, origin: str) -> Box:
    """`nvidia-smi -L` is enough for MIG slices, each a card of its own, since no link joins them.

    Source: MIG User Guide, "Application Considerations": no peer access between instances, of one card either.
    """
    if uncut:
        raise BadTopology(
            f"{origin}: {uncut} of these cards are whole and the list shows no links; keep the cards that are cut into "
            "slices, or give `nvidia-smi topo -m` for the whole ones."
        )
    if any(re.search(r" MIG [1-7]c\.", card.name) for card in slices):
        raise BadTopology(
            f"{origin}: compute instances (`1c.3g.40gb`) share the memory of their slice; atoll plans for whole "
            "slices, such as `3g.40gb`."
        )
    gpus = tuple(_gpu(index, card, None, None) for index, card in enumerate(slices))
    links = tuple(Link(a=a, b=b, kind=LinkKind.SYS) for b in range(len(gpus)) for a in range(b))
    note = "MIG slices, numbered in the order of the list: nothing joins them, so an engine takes one."
    return Box(gpus=gpus, links=links, notes=(note,))


def _link(a: int, b: int, code: str) -> Link:
    if code.startswith("NV"):
        return Link(a=a, b=b, kind=LinkKind.NV, nvlinks=int(code[2:]))
    return Link(a=a, b=b, kind=LinkKind(code))


def _gpu(index: int, card: Card | None, cpu_affinity: str | None, numa_node: int | None) -> Gpu:
    if card is None:
        return Gpu(index=index, cpu_affinity=cpu_affinity, numa_node=numa_node)
    name, memory_bytes = name_card(card.name, card.memory_bytes)
    return Gpu(
        index=index,
        name=name,
        memory_bytes=memory_bytes,
        numa_node=numa_node,
        cpu_affinity=cpu_affinity,
        uuid=card.uuid,
        pci_bus_id=card.pci_bus_id,
    )


def _notes(box: Box, matrix: Matrix, cards: dict[int, Card], text: str) -> Iterable[str]:
    if box.pcie_only:
        yield "This is `topo -mp`, the PCIe view, which cannot show NVLink; `nvidia-smi topo -m` does."
    elif _has_legend_without_nvlink(text) and all(link.kind is not LinkKind.NV for link in box.links):
        yield "The legend has no line NV#: if this is the PCIe view (`topo -mp`), NVLinks are not shown in it."
    if matrix.header is None:
        yield "The header line is missing; the columns are taken to be GPU0, GPU1 and so on."
    if cards and set(cards) != set(matrix.gpus):
        yield f"The text names {len(cards)} cards and the matrix has {len(matrix.gpus)}, so the names were left out."
    if re.search(r"^\s*MIG .*Device", text, re.MULTILINE):
        yield "Some cards are cut into MIG instances, which NVLink does not join; a replica needs whole cards."
    yield from _notes_on_numa(box)


def _has_legend_without_nvlink(text: str) -> bool:
    return re.search(r"PIX\s*= .*single PCIe", text) is not None and "NV#" not in text


def _notes_on_numa(box: Box) -> Iterable[str]:
    for link in box.links:
        a, b = box.gpu(link.a).numa_node, box.gpu(link.b).numa_node
        if link.kind in {LinkKind.PIX, LinkKind.PXB} and a is not None and b is not None and a != b:
            yield f"GPU{link.a} and GPU{link.b} share a PCIe switch and yet are listed on NUMA nodes {a} and {b}."
            return
