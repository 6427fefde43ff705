"""The matrices in a paste: cells of `nvidia-smi topo -m`, read line by line and held against each other.

The tool prints a header (GPUs, network cards, `CPU Affinity`, `NUMA Affinity`, `GPU NUMA ID`), then one row a device.
By the time such text reaches us it has been indented, commented out, wrapped, made a table of, stripped of its tabs.
So columns are never told by their position on the line: the cells of a row are the codes that follow its label, in
the order of the header. Whatever was lost or moved on the way shows, because a matrix says everything twice: row and
column of a card agree, and X stands where they cross. A matrix that does not agree with itself is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import pairwise

MOST_GPUS = 64
MOST_NVLINKS = 36  # of one pair; 18 is the most that a card has had until Blackwell

_CODE = r"(?:NV[0-9]{1,2}|NODE|PIX|PXB|PHB|SYS|SOC|X)"
_LETTERS = r"(?:NODE|PIX|PXB|PHB|SYS|SOC|X)"
_CODES = re.compile(rf"(?:{_CODE})+", re.IGNORECASE)
_ONE_CODE = re.compile(_CODE, re.IGNORECASE)
_CODES_THEN_DIGITS = re.compile(rf"((?:{_CODE})*{_LETTERS})([0-9].*)", re.IGNORECASE)
_GPU = re.compile(r"(?<![A-Za-z0-9_-])GPU ?([0-9]{1,3})(?![0-9])", re.IGNORECASE)
_GPU_GLUED = re.compile(r"GPU ?([0-9]{1,3})(?![0-9])", re.IGNORECASE)
_ROW = re.compile(rf"(?<![A-Za-z_-])GPU ?([0-9]{{1,3}})(?![0-9])[\s|:]*(?!Node\s*Affinity)({_CODE}.*)$", re.IGNORECASE)
_NIC = (
    r"(?:NIC[0-9]+|(?:mlx|hfi)[0-9]+_[0-9a-z_]+"
    r"|(?:irdma|cxi|bnxt_re|rdmap|roce|rocep|ib|ibp|ibs|efa|mana|erdma|hns|qedr|rxe|siw)_?[0-9][0-9a-z_]*)"
)
_NICS_GLUED = re.compile(r"NIC[0-9]+|(?:mlx|hfi)[0-9]_(?:bond_)?[0-9]{1,2}", re.IGNORECASE)
_NIC_ROW = re.compile(rf"(?<![\w.-]){_NIC}[\s|:]+({_CODE}(?:[\s|].*)?)$", re.IGNORECASE)
_COMMAND = re.compile(r"\btopo\s+(?:-\S+\s+)*?(-mp|--matrix_pci|-m|--matrix|-p2p|--p2pstatus)\b(?!_)", re.IGNORECASE)
_AFFINITY = re.compile(r"CPU\s*Affinity|NUMA\s*Affinity|GPU\s*NUMA\s*ID|Node\s*Affinity", re.IGNORECASE)
_RANGES = re.compile(r"[0-9]{1,5}(?:-[0-9]{1,5})?(?:,[0-9]{1,5}(?:-[0-9]{1,5})?)*")
_PEER_TO_PEER = "this is the peer-to-peer status (`topo -p2p`), which names no paths"
_P2P_STATES = {"OK", "NS", "CNS", "GNS", "TNS", "DR", "U"}


class View(StrEnum):
    """Which of nvidia-smi's matrices a command line asked for."""

    ALL = "topo -m"
    PCIE = "topo -mp"
    P2P = "topo -p2p"


@dataclass(frozen=True, kw_only=True)
class Header:
    gpus: tuple[int, ...]
    devices: int  # other columns with cells: network cards
    elided: bool  # "..." stands between two GPUs
    affinity: tuple[str, ...]  # which of "cpu", "numa", "gpu numa" it announces, in order
    line: str


@dataclass(frozen=True, kw_only=True)
class Row:
    gpu: int
    codes: tuple[str, ...]
    rest: tuple[str, ...]  # what follows the codes: affinities, remarks
    line: str


@dataclass
class Block:
    """Rows that stand under one header, or under none."""

    header: Header | None = None
    view: View | None = None
    rows: list[Row] = field(default_factory=list)
    nic_rows: int = 0
    orphans: int = 0  # lines of cells that follow a finished row: rows without their label
    named: frozenset[int] = frozenset()  # every GPU that the whole text speaks of

    @property
    def is_complete(self) -> bool:
        return self.header is not None and {row.gpu for row in self.rows} >= set(self.header.gpus)


@dataclass(frozen=True)
class Matrix:
    """A matrix that agrees with itself: `cells[a, b]` for a < b is NV4, PIX, PXB, PHB, NODE or SYS."""

    gpus: tuple[int, ...]
    cells: dict[tuple[int, int], str]
    header: Header | None
    rows: tuple[Row, ...]
    view: View | None


@dataclass(frozen=True)
class Flaw:
    """Why a block is no matrix of paths. `foreign` ones are another tool's or another view's, not a broken matrix."""

    why: str
    foreign: bool = False


def find_blocks(lines: Sequence[str]) -> list[Block]:
    """Every block of rows in the text, in order; a header without rows is none."""
    blocks: list[Block] = []
    block, view, open_row = Block(), None, False
    for line in lines:
        command = _COMMAND.search(line)
        if command is not None:
            view = _view(command[1])
        row, header = _read_row(line), _read_header(line)
        if row is not None:
            if block.is_complete and _begins_another(block, row):
                block = Block()
            if not block.rows and block.header is None:
                block.view, view = view, None
                blocks.append(block)
            block.rows.append(row)
        elif header is not None:
            if _is_more_header(block, header):
                block.header = _joined(block.header, header)
            else:
                block, view = Block(header=header, view=view), None
                blocks.append(block)
        elif command is not None:
            block = Block()
        elif _is_nic_row(line):
            block.nic_rows += 1
        elif open_row and block.rows and _is_continuation(line):
            block.orphans += int(bool(block.rows[-1].rest) and _CODES.fullmatch(line.split()[0]) is not None)
            block.rows[-1] = _continued(block.rows[-1], line)
        elif block.header is not None and not block.rows and _count_devices(line) is not None:
            block.header = _with_more(block.header, line)
        open_row = row is not None or (open_row and _is_continuation(line))
    named = frozenset(int(match[1]) for line in lines for match in _GPU_GLUED.finditer(line))
    return [replace(one, named=named) for one in blocks if one.rows]


def read_matrix(block: Block) -> Matrix | Flaw:
    """The block as a matrix, when its rows agree with its header and with each other."""
    foreign = _foreign(block)
    if foreign is not None:
        return foreign
    rows: dict[int, Row] = {}
    for row in block.rows:
        known = rows.setdefault(row.gpu, row)
        if known.codes != row.codes:
            return Flaw(f"there are two different rows GPU{row.gpu}")
    gpus = block.header.gpus if block.header is not None else tuple(sorted(rows))
    flaw = _flaw_of_rows(block, gpus, rows)
    if flaw is not None:
        return Flaw(flaw)
    cells: dict[tuple[int, int], str] = {}
    for a in gpus:
        for position, b in enumerate(gpus):
            code = rows[a].codes[position]
            if (code == "X") != (a == b):
                return Flaw(f"the row GPU{a} has {code} under GPU{b}, so cells were lost or moved")
            pair = (min(a, b), max(a, b))
            if a != b and cells.setdefault(pair, code) != code:
                return Flaw(f"GPU{pair[0]} to GPU{pair[1]} reads {cells[pair]} in one row and {code} in the other")
    return Matrix(gpus, cells, block.header, tuple(rows[gpu] for gpu in gpus), block.view)


def _flaw_of_rows(block: Block, gpus: tuple[int, ...], rows: dict[int, Row]) -> str | None:
    if block.orphans:
        return "a row has lost its label"
    missing = [gpu for gpu in gpus if gpu not in rows]
    extra = [gpu for gpu in sorted(rows) if gpu not in gpus]
    if block.header is not None and block.header.elided:
        return "columns between two GPUs are left out (...)"
    if missing:
        return f"the header lists {len(gpus)} GPUs, but the row of {_names(missing)} is missing"
    if extra:
        return f"there is a row of {_names(extra)}, which the header does not list"
    if len(gpus) > MOST_GPUS:
        return f"{len(gpus)} GPUs are more than one machine has"
    return _flaw_of_counts(block, gpus, rows)


def _flaw_of_counts(block: Block, gpus: tuple[int, ...], rows: dict[int, Row]) -> str | None:
    """Cells of each row against the columns: without a header, or with gaps in its numbers, they must match."""
    n = len(gpus)
    if block.header is None and (gpus != tuple(range(n)) or max(block.named) >= n):
        return f"there is no header, and the rows are only {_names(gpus)}"
    if n == 1 and not _is_whole_single(block, rows[gpus[0]]):
        return f"the row GPU{gpus[0]} stands alone, without what follows its X or without the header"
    devices = block.header.devices if block.header is not None else block.nic_rows
    exact = block.header is None or set(gpus) != set(range(n))
    flaws = (_flaw_of_row(rows[gpu], n, most=n + devices, exact=exact) for gpu in gpus)
    return next((flaw for flaw in flaws if flaw is not None), None)


def _flaw_of_row(row: Row, n: int, *, most: int, exact: bool) -> str | None:
    count = len(row.codes)
    if count < n:
        return f"the row GPU{row.gpu} has {count} cells for {n} GPUs"
    if count > most or (exact and count != most):
        return f"the row GPU{row.gpu} has {count} cells where {most} are expected"
    if any(code == "X" or code.startswith("NV") for code in row.codes[n:]):
        return f"the row GPU{row.gpu} has an NVLink or an X where only network cards can stand"
    too_wide = [code for code in row.codes if code.startswith("NV") and not 1 <= int(code[2:]) <= MOST_NVLINKS]
    return f"the row GPU{row.gpu} has the cell {too_wide[0]}, and no pair has that many NVLinks" if too_wide else None


def _is_whole_single(block: Block, row: Row) -> bool:
    """One card's matrix has no second row to agree with, so the header and the affinity after X must be there."""
    if block.header is None or not block.header.affinity:
        return False
    return bool(row.rest) or max(block.named) == 0


def _foreign(block: Block) -> Flaw | None:
    """Another view's or another tool's matrix, told by the first word after the codes: never letters in `topo -m`."""
    if block.view is View.P2P:
        return Flaw(_PEER_TO_PEER, foreign=True)
    words = [row.rest[0] for row in block.rows if row.rest and re.fullmatch(r"[A-Za-z]{1,6}", row.rest[0])]
    if words and all(word.upper() in _P2P_STATES for word in words):
        return Flaw(_PEER_TO_PEER, foreign=True)
    if words and len(words) == len(block.rows) and all(word.isupper() for word in words):
        return Flaw(f"it uses the code {words[0]}, which nvidia-smi does not print", foreign=True)
    return None


def _view(option: str) -> View:
    if "p2p" in option.lower():
        return View.P2P
    return View.PCIE if option.lower() in {"-mp", "--matrix_pci"} else View.ALL


def _read_row(line: str) -> Row | None:
    match = _ROW.search(line)
    if match is None:
        return None
    codes, rest = _read_codes(match[2])
    return Row(gpu=int(match[1]), codes=codes, rest=rest, line=line) if codes else None


def _read_codes(text: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Codes from the start of the text, and the words from the first that is none."""
    words = [word for word in re.split(r"[\s|]+", text) if word]
    codes: list[str] = []
    for position, word in enumerate(words):
        if _CODES.fullmatch(word):
            codes.extend(_ONE_CODE.findall(word))
            continue
        glued = _CODES_THEN_DIGITS.fullmatch(word)
        if glued is not None:
            codes.extend(_ONE_CODE.findall(glued[1]))
            return _upper(codes), (glued[2], *words[position + 1 :])
        return _upper(codes), tuple(words[position:])
    return _upper(codes), ()


def _upper(codes: Sequence[str]) -> tuple[str, ...]:
    return tuple("SYS" if code.upper() == "SOC" else code.upper() for code in codes)


def _read_header(line: str) -> Header | None:
    first = _GPU.search(line)
    if first is None:
        return None
    text = line[first.start() :]
    names = list(_GPU_GLUED.finditer(text))
    gpus = tuple(int(match[1]) for match in names)
    devices = _count_devices(_GPU_GLUED.sub(" ", text))
    if len(set(gpus)) != len(gpus) or devices is None:
        return None
    elided = bool(re.search(r"\.{2,}", text[: names[-1].start()]))
    return Header(gpus=gpus, devices=devices, elided=elided, affinity=_affinity_columns(line), line=line)


def _count_devices(titles: str) -> int | None:
    """Columns beside GPUs and affinities, "..." among them; None where there is a word that names no device."""
    glued = _NICS_GLUED.sub(lambda name: f" {name[0]} ", re.sub(r",", " ", _AFFINITY.sub(" ", titles)))
    words = [word for word in re.split(r"[\s|]+", glued) if word]
    devices = [word for word in words if re.fullmatch(r"[A-Za-z][\w.-]*[0-9][\w.-]*|\.+", word)]
    return len(devices) if len(devices) == len(words) else None


def _affinity_columns(text: str) -> tuple[str, ...]:
    kinds = {"cpuaffinity": "cpu", "numaaffinity": "numa", "gpunumaid": "gpu numa", "nodeaffinity": "numa"}
    return tuple(kinds[re.sub(r"\s", "", match[0]).lower()] for match in _AFFINITY.finditer(text))


def _is_more_header(block: Block, header: Header) -> bool:
    """Whether this line is the second half of a wrapped header, or the same header printed again."""
    if block.header is None or block.rows:
        return False
    follows = header.gpus[0] == block.header.gpus[-1] + 1
    return header.gpus == block.header.gpus or (follows and not block.header.affinity)


def _joined(first: Header | None, second: Header) -> Header:
    if first is None or first.gpus == second.gpus:
        return second
    return Header(
        gpus=first.gpus + second.gpus,
        devices=first.devices + second.devices,
        elided=first.elided or second.elided,
        affinity=second.affinity,
        line=first.line + " " + second.line,
    )


def _with_more(header: Header, line: str) -> Header:
    """The header with the devices and affinities of its second line."""
    return replace(
        header,
        devices=header.devices + (_count_devices(line) or 0),
        affinity=header.affinity + _affinity_columns(line),
        line=header.line + " " + line,
    )


def _begins_another(block: Block, row: Row) -> bool:
    """Whether a row after a whole block is another matrix's: of the same card, yet different."""
    same = [known for known in block.rows if known.gpu == row.gpu]
    return bool(same) and all(known.codes != row.codes for known in same)


def _is_nic_row(line: str) -> bool:
    """Whether this is a network card's row, by the names that drivers give them: half a GPU's label is none."""
    match = _NIC_ROW.search(line)
    return match is not None and bool(_read_codes(match[1])[0])


def _is_continuation(line: str) -> bool:
    """Whether the line holds nothing but cells: the rest of a row that was wrapped."""
    words = [word for word in re.split(r"[\s|]+", line) if word]
    return bool(words) and all(
        _CODES.fullmatch(word) or _RANGES.fullmatch(word) or word.upper() == "N/A" for word in words
    )


def _continued(row: Row, line: str) -> Row:
    if row.rest:
        return replace(row, rest=row.rest + tuple(line.split()))
    codes, rest = _read_codes(line)
    return replace(row, codes=row.codes + codes, rest=rest, line=row.line + " " + line)


def read_places(matrix: Matrix) -> dict[int, tuple[str | None, int | None]]:
    """CPU affinity and NUMA node of each GPU, None where the text leaves any doubt."""
    found = {row.gpu: _place(row, matrix.header) for row in matrix.rows}
    some_numa = any(row_numa is not None for _, row_numa, _ in found.values())
    places: dict[int, tuple[str | None, int | None]] = {}
    for gpu, (cpu, numa, aligned) in found.items():
        glued = some_numa and numa is None and not aligned  # the NUMA digit may hang on the affinity: "64-950"
        places[gpu] = (None if glued else cpu, numa)
    return places


def _place(row: Row, header: Header | None) -> tuple[str | None, int | None, bool]:
    """(CPU affinity, NUMA node, every announced column was there)."""
    if header is None or not header.affinity:
        return None, None, True
    cells = _affinity_cells(row, header)
    if cells is None:
        return None, None, False
    cpu = cells.get("cpu", "")
    complete = all(cells.get(column) for column in header.affinity)
    return (cpu if _is_cpu_list(cpu) else None), _numa_node(cells), complete


def _affinity_cells(row: Row, header: Header) -> dict[str, str] | None:
    """Text of each affinity column, told by pipes, by count, or by tabs; None where none of these tells."""
    by_pipe = _cells_by_pipe(row, header)
    if by_pipe is not None:
        return by_pipe
    if len(row.rest) == len(header.affinity):
        return dict(zip(header.affinity, row.rest, strict=True))
    if len(row.rest) < len(header.affinity):
        return _cells_by_tab(row, header)
    return None


def _cells_by_pipe(row: Row, header: Header) -> dict[str, str] | None:
    if row.line.count("|") < 3 or row.line.count("|") != header.line.count("|"):
        return None
    cells: dict[str, str] = {}
    for title, cell in zip(header.line.split("|"), row.line.split("|"), strict=True):
        cells |= dict.fromkeys(_affinity_columns(title), cell.strip())
    return cells


def _cells_by_tab(row: Row, header: Header) -> dict[str, str] | None:
    """Cells of a row with blank ones among them, counted by tabs, whether they are still there or became spaces.

    The tool puts one tab before the CPU affinity and the NUMA affinity, and two before the GPU's own NUMA id.
    """
    places = {1: "cpu", 2: "numa", 4: "gpu numa"}
    cells: dict[str, str] = {}
    words = list(re.finditer(r"\S+", row.line))[-len(row.rest) - 1 :]
    if tuple(match[0] for match in words[1:]) != row.rest:
        return None
    tabs = 0
    for before, word in pairwise(words):
        gap = _tabs(row.line, before.end(), word.start())
        if gap is None or (column := places.get(tabs := tabs + gap)) not in header.affinity:
            return None
        cells[column] = word[0]
    return cells


def _tabs(line: str, start: int, stop: int) -> int | None:
    """Tabs between two words; None where the spaces between them cannot have been tabs."""
    if "\t" in line:
        return line.count("\t", start, stop)
    return stop // 8 - start // 8 if stop % 8 == 0 else None


def _is_cpu_list(text: str) -> bool:
    if not _RANGES.fullmatch(text):
        return False
    bounds = [[int(end) for end in part.split("-")] for part in text.split(",")]
    flat = [end for part in bounds for end in (part[0], part[-1])]
    return flat == sorted(flat) and flat[-1] < 8192


def _numa_node(cells: dict[str, str]) -> int | None:
    """A plain number; of a list only where the cards are NUMA nodes themselves (Grace): then the CPU's comes first."""
    text = cells.get("numa", "")
    if re.fullmatch(r"[0-9]{1,3}", text):
        return int(text)
    if _RANGES.fullmatch(text) and "," in text and re.fullmatch(r"[0-9]{1,3}", cells.get("gpu numa", "")):
        return int(re.split(r"[,-]", text)[0])
    return None


def _names(gpus: Sequence[int]) -> str:
    return ", ".join(f"GPU{gpu}" for gpu in gpus[:8]) + (" ..." if len(gpus) > 8 else "")
