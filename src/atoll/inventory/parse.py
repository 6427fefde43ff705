"""Text of nvidia-smi -> Box.

Reads `nvidia-smi topo -m` as the tool prints it and as people paste it, and takes the cards' names from
`nvidia-smi -L`, from `--query-gpu ... --format=csv` and from the plain table when they stand in the same text.
A matrix that leaves any doubt is refused with a sentence: a wrong one would put a model on the wrong cards.
"""

import html
import re
from collections.abc import Iterable
from itertools import pairwise

from atoll.errors import BadTopology
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.cards import Card, find_cards, name_card
from atoll.inventory.matrix import Flaw, Matrix, View, find_blocks, read_matrix, read_places

_ANSI = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b|\^\[\[)[0-9;?]*[A-Za-z]|\x1b[@-_]")
_ANSI_WITHOUT_ESCAPE = re.compile(r"\[[0-9;]{1,8}m")
_BLANKS = dict.fromkeys(
    map(
        ord,
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000*`\"'[];{}",
    ),
    " ",
)
_NOTHING = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), None)
_BARS = dict.fromkeys(map(ord, "\u2502\u2503\u2551\u00a6\uff5c\u254e\u2506"), "|")
_RULES = {code: " " for code in range(0x2500, 0x2580) if code not in _BARS}
_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code not in _BARS}
_SIGNS = _RULES | _WIDE | _BARS | _BLANKS | _NOTHING | {ord("\u2026"): "...", ord("\u00d7"): "X", ord("\t"): "\t"}

_CODE = r"(?:NV[0-9]{1,2}|NODE|PIX|PXB|PHB|SYS|SOC|X)"
_COMMA_TABLE = re.compile(rf"(?:^|[\s,])(?:{_CODE}|GPU[0-9]{{1,3}})\s*,|,\s*{_CODE}\s*(?:,|$)", re.IGNORECASE)
_COMMA_OF_TABLE = re.compile(rf"\b({_CODE}|GPU[0-9]{{1,3}}),|^,|,$|,(?=\s)|(?<=\s),", re.IGNORECASE)
_ROW_STARTS = re.compile(rf"(?<=\S)\s+(?=GPU ?[0-9]{{1,3}}[\s|:]+{_CODE}(?:[\s|]|$))", re.IGNORECASE)
_LINE_BREAK_TAGS = re.compile(r"<\s*(?:br|/tr|/p|/div|/pre|/li)\b[^<>]{0,200}>", re.IGNORECASE)
_CELL_TAGS = re.compile(
    r"<\s*/?\s*(?:t[drh]|th?ead|tbody|table|pre|code|span|b|i|p|div|strong|em|li|ul)\b[^<>]{0,200}>", re.IGNORECASE
)


def parse_box(text: str, *, origin: str) -> Box:
    """The box that a capture of `nvidia-smi topo -m` shows.

    Args:
        text: the capture, with whatever stands around it in the paste.
        origin: where it came from, for the error sentence.

    Raises:
        BadTopology: there is no matrix in it, or none that can be read with certainty; one sentence says why.
    """
    lines = clean_lines(text)
    found = [read_matrix(block) for block in find_blocks(lines)]
    matrices = [one for one in found if isinstance(one, Matrix)]
    flaws = [one for one in found if isinstance(one, Flaw)]
    matrix = _the_one(matrices, flaws, text, origin)
    cards = find_cards(lines)
    box = _build_box(matrix, cards)
    return box.replace(notes=tuple(_notes(box, matrix, cards, text)))


def clean_lines(text: str) -> list[str]:
    """Lines without colours, mark-up, odd blanks and commas between cells; rows that share a line are parted."""
    plain = _ANSI_WITHOUT_ESCAPE.sub("", _ANSI.sub("", _read_escapes(text)))
    if "<" in plain or "&" in plain:
        plain = html.unescape(_CELL_TAGS.sub("\t", _LINE_BREAK_TAGS.sub("\n", plain)))
    plain = plain.replace("\r\n", "\n").replace("\r", "\n").translate(_SIGNS)
    return [part.rstrip() for line in plain.split("\n") for part in _part_rows(_part_cells(line))]


def _read_escapes(text: str) -> str:
    """The text behind a string literal or a JSON value, when one was pasted."""
    if "\\t" not in text and "\\n" not in text:
        return text
    signs = {"t": "\t", "n": "\n", "r": ""}
    return re.sub(r"\\(?:([tnr])|x1b|u001b|033|e(?=\[))", lambda sign: signs.get(sign[1], "\x1b"), text)


def _part_cells(line: str) -> str:
    """Blanks for the commas between cells; the commas within an affinity stay."""
    return _COMMA_OF_TABLE.sub(lambda comma: f"{comma[1] or ''} ", line) if _COMMA_TABLE.search(line) else line


def _part_rows(line: str) -> list[str]:
    """One line into the rows that run on in it; what stands before the first row stays with it, a header does not."""
    cuts = [0]
    for match in _ROW_STARTS.finditer(line):
        before = line[cuts[-1] : match.start()]
        if re.search(r"GPU ?[0-9]|Affinity", before, re.IGNORECASE):
            cuts.append(match.end())
    return [line[start:stop] for start, stop in pairwise([*cuts, len(line)])]


def _the_one(matrices: list[Matrix], flaws: list[Flaw], text: str, origin: str) -> Matrix:
    """The one matrix of paths in the paste; `topo -mp` counts only when there is no `topo -m`."""
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
    if matrix.header is None:
        yield "The header line is missing; the columns are taken to be GPU0, GPU1 and so on."
    if cards and set(cards) != set(matrix.gpus):
        yield f"The text names {len(cards)} cards and the matrix has {len(matrix.gpus)}, so the names were left out."
    if re.search(r"^\s*MIG .*Device", text, re.MULTILINE):
        yield "Some cards are cut into MIG instances, which NVLink does not join; a replica needs whole cards."
    yield from _notes_on_numa(box)


def _notes_on_numa(box: Box) -> Iterable[str]:
    for link in box.links:
        a, b = box.gpu(link.a).numa_node, box.gpu(link.b).numa_node
        if link.kind in {LinkKind.PIX, LinkKind.PXB} and a is not None and b is not None and a != b:
            yield f"GPU{link.a} and GPU{link.b} share a PCIe switch and yet are listed on NUMA nodes {a} and {b}."
            return
