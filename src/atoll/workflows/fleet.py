"""A fleet that is written down, with the boxes that its captures and the catalogue show."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.documents import parse_yaml
from atoll.errors import BadDocument, InputError, UnknownGpu
from atoll.inventory.box import Box
from atoll.inventory.catalog import find_gpu
from atoll.inventory.islands import islands
from atoll.layout.fleet import Fleet, FleetBoxes
from atoll.outside.files import read_text
from atoll.workflows.boxes import named_box


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxKind:
    """Boxes of a fleet that are alike, and one of them."""

    entry: FleetBoxes
    box: Box

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def count(self) -> int:
        return self.entry.count

    @property
    def watts(self) -> float | None:
        """Of one box: as it was given, else what its cards may draw together; None where a card's is not known."""
        if self.entry.watts is not None:
            return self.entry.watts
        drawn = [_card_watts(gpu.name) for gpu in self.box.gpus]
        return None if None in drawn else float(sum(watts or 0 for watts in drawn))


def _card_watts(name: str | None) -> int | None:
    try:
        return find_gpu(name).power_watts if name is not None else None
    except UnknownGpu:
        return None


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownFleet:
    """A fleet and what each of its boxes holds."""

    fleet: Fleet
    kinds: tuple[BoxKind, ...]

    @property
    def gpus(self) -> int:
        return sum(kind.count * len(kind.box.gpus) for kind in self.kinds)


def is_fleet(path: Path | str) -> bool:
    """Whether a file of YAML or JSON says that it is one; not whether it is a good one."""
    if not str(path).endswith((".yaml", ".yml", ".json")):
        return False
    plain = parse_yaml(read_text(path), origin=str(path))
    return isinstance(plain, dict) and "boxes" in plain and "gpus" not in plain


def read_fleet(path: Path | str) -> KnownFleet:
    """The fleet of a file; captures are looked for beside it.

    Raises:
        InputError: there is no such file, or none of a capture that it names.
        BadDocument: it is no fleet, or a box in it is none.
    """
    fleet = Fleet.parse(read_text(path), origin=str(path))
    folder = Path(path).parent
    kinds: list[BoxKind] = []
    for number, entry in enumerate(fleet.boxes):
        try:
            capture = None if entry.box is None else folder / entry.box
            box = named_box(capture=capture, gpu=entry.gpu, gpus=entry.gpus)
        except BadDocument:
            raise
        except InputError as error:
            raise BadDocument(f"{path}: boxes[{number}] ({entry.name}): {error}") from None
        kinds.append(BoxKind(entry=entry, box=box))
    return KnownFleet(fleet=fleet, kinds=tuple(kinds))


def fleet_document(known: KnownFleet) -> dict[str, Any]:
    """The fleet as JSON; watts of one box."""
    fleet = known.fleet
    return {
        "name": fleet.name,
        "count": fleet.count,
        "gpus": known.gpus,
        "boxes": [
            {
                "name": kind.name,
                "count": kind.count,
                "gpus": [gpu.to_plain() for gpu in kind.box.gpus],
                "islands": [list(island) for island in islands(kind.box)],
                "watts": kind.watts,
                "price_per_hour": kind.entry.price_per_hour,
            }
            for kind in known.kinds
        ],
        "network": None if fleet.network is None else fleet.network.to_plain() | {"words": fleet.network.words},
        "currency": fleet.currency,
    }
