"""Names and memory of the cards, where a text tells them beside the matrix."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from atoll.errors import UnknownGpu
from atoll.inventory.catalog import find_gpu
from atoll.units import MIB

# `GPU 0: NVIDIA A100-SXM4-80GB (UUID: GPU-435b...)` of nvidia-smi -L; `GPU 0,1: NVIDIA H100` of environment reports.
_LISTED = re.compile(
    r"^(?:[^A-Za-z]{0,40}|.{0,40}:) ?GPU ?([0-9]{1,3}(?:, ?[0-9]{1,3})*): +([^\n(|]{2,60}?)"
    r" *(?:\(UUID: *(GPU-[0-9a-fA-F-]{8,40})\))? *$"
)
# `|   0  NVIDIA H100 80GB HBM3          On  |   00000000:19:00.0 Off |` of the plain table.
_TABLED = re.compile(
    r"^[|\s]*([0-9]{1,3}) +((?:NVIDIA|Tesla|GeForce|Quadro|GRID) [^|]{2,50}?)(?: +(?:On|Off|N/A|WDDM|TCC))* *[|]"
    r" +([0-9A-F]{8}:[0-9A-F]{2}:[0-9A-F]{2}\.[0-9A-F])",
    re.IGNORECASE,
)
# `  MIG 3g.40gb     Device  0: (UUID: MIG-5e9c...)` under its card; `MIG 1c.3g.40gb` is a part of an instance.
_SLICED = re.compile(
    r"^\W*MIG ((?:[1-7]c\.)?[1-7]g\.[0-9]{1,3}gb\S*) +Device +[0-9]{1,2}: *\(UUID: *(MIG-[\w/-]{1,80})\) *$",
    re.IGNORECASE,
)
_TABLED_MEMORY = re.compile(r"[0-9]+ ?MiB +/ +([0-9]{3,7}) ?MiB")


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a tool says of one card."""

    name: str
    memory_bytes: int | None = None
    uuid: str | None = None
    pci_bus_id: str | None = None


def name_card(printed: str, memory_bytes: int | None) -> tuple[str, int | None]:
    """The catalogue's name and the memory of a card that a tool named; the printed name where it is not known."""
    try:
        kind = find_gpu(printed, memory_bytes=memory_bytes)
    except UnknownGpu:
        return printed, memory_bytes
    return kind.name, memory_bytes or kind.memory_bytes


def find_cards(lines: Iterable[str]) -> dict[int, Card]:
    """Cards by index, from `nvidia-smi -L`, `--query-gpu` as CSV, or the plain table; contradictions give none."""
    rows = list(lines)
    for found in (_csv_cards(rows), _listed_cards(rows), _tabled_cards(rows)):
        if found:
            return found
    return {}


def _listed_cards(lines: list[str]) -> dict[int, Card]:
    cards: dict[int, Card] = {}
    for line in lines:
        match = _LISTED.search(line)
        if match is None or not re.search(r"[A-Za-z]", match[2]):
            continue
        for index in match[1].split(","):
            card = Card(name=match[2].strip(), uuid=match[3])
            if cards.setdefault(int(index), card).name != card.name:
                return {}
    return cards


def find_slices(lines: Iterable[str]) -> tuple[list[Card], int]:
    """MIG slices that `nvidia-smi -L` lists, named by card and profile, and how many cards have none."""
    slices: list[Card] = []
    of_card: dict[str, int] = {}
    index = name = ""
    for line in lines:
        card, part = _LISTED.search(line), _SLICED.search(line)
        if card is not None:
            index, name = card[1], card[2].strip()
            of_card.setdefault(index, 0)
        elif part is not None and name:
            of_card[index] += 1
            slices.append(Card(name=f"{name} MIG {part[1]}", uuid=part[2]))
    return slices, sum(not count for count in of_card.values())


def _tabled_cards(lines: list[str]) -> dict[int, Card]:
    cards: dict[int, Card] = {}
    for number, line in enumerate(lines):
        match = _TABLED.match(line)
        if match is None or int(match[1]) in cards:
            continue
        memory = _TABLED_MEMORY.search(" ".join(lines[number + 1 : number + 3]))
        cards[int(match[1])] = Card(
            name=match[2].strip(), memory_bytes=int(memory[1]) * MIB if memory else None, pci_bus_id=match[3].lower()
        )
    return {} if any("..." in card.name for card in cards.values()) else cards


def _csv_cards(lines: list[str]) -> dict[int, Card]:
    """`index, name, memory.total [MiB], ...` and the lines under it; rows without an index count from 0."""
    cards: dict[int, Card] = {}
    titles: list[str] = []
    for line in lines:
        fields = [part.strip() for part in line.split(",")]
        named = [re.split(r"[ \[]", part.lower())[0] for part in fields]
        if "name" in named and {"index", "memory.total", "uuid", "pci.bus_id", "gpu_bus_id", "gpu_uuid"} & set(named):
            titles = named
        elif titles and len(fields) == len(titles):
            _add_csv_card(cards, dict(zip(titles, fields, strict=True)))
        elif cards:
            break
    return cards


def _add_csv_card(cards: dict[int, Card], row: dict[str, str]) -> None:
    index = row.get("index", str(len(cards)))
    if not re.fullmatch(r"[0-9]{1,3}", index) or not row["name"]:
        return
    memory = re.match(r"([0-9]{3,7})(?: ?MiB)?$", row.get("memory.total", ""))
    cards[int(index)] = Card(
        name=row["name"],
        memory_bytes=int(memory[1]) * MIB if memory else None,
        uuid=row.get("uuid") or row.get("gpu_uuid"),
        pci_bus_id=(row.get("pci.bus_id") or row.get("gpu_bus_id") or "").lower() or None,
    )
