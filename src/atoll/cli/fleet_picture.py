"""A fleet drawn with characters: a frame a box, a block an NVLink island in it, and the network they hang on."""

from collections import Counter
from collections.abc import Iterator, Sequence

from atoll.cli.picture import show_group
from atoll.inventory.box import Box
from atoll.inventory.islands import islands
from atoll.layout.fleet import host_names
from atoll.units import GIB
from atoll.workflows.fleet import BoxKind, KnownFleet

MOST_DRAWN = 8  # boxes one by one; from more on one frame a kind
_MOST_CARDS = 16  # of a box, card by card


def tell_fleet(known: KnownFleet, *, width: int) -> Iterator[str]:
    """The fleet's name, its boxes by kind, the drawing."""
    fleet = known.fleet
    yield f"{fleet.name}: {_many(fleet.count, 'box', 'boxes')}, {_many(known.gpus, 'GPU', 'GPUs')}"
    longest = max(len(kind.name) for kind in known.kinds)
    for kind in known.kinds:
        told = f"{_tell_cards(kind.box)}; {_tell_islands(kind.box)}{_cost(kind)}"
        yield f"{kind.count:>5} x {kind.name:<{longest}}  {told}"
    yield ""
    yield from _draw(known, width)
    network = fleet.network
    yield f"Network: {network.words}." if network is not None else "Network: not said; a door needs no fast one."


def _many(count: int, one: str, several: str) -> str:
    return f"{count:,} {one if count == 1 else several}"


def _tell_cards(box: Box) -> str:
    cards = Counter((gpu.name or "GPU of unknown kind", gpu.memory_bytes) for gpu in box.gpus)
    told = (
        f"{count} x {name}" + (f", {size / GIB:.0f} GiB each" if size else "") for (name, size), count in cards.items()
    )
    return " and ".join(told)


def _tell_islands(box: Box) -> str:
    joined = [island for island in islands(box) if len(island) > 1]
    if not joined:
        return "no NVLink"
    shown = " ".join(map(show_group, joined[:4])) + (" ..." if len(joined) > 4 else "")
    return f"NVLink {shown}"


def _cost(kind: BoxKind) -> str:
    watts = f"; {kind.watts / 1000:.1f} kW" if kind.watts is not None else ""
    return watts + (f"; {kind.entry.price_per_hour:g} an hour" if kind.entry.price_per_hour is not None else "")


def _draw(known: KnownFleet, width: int) -> Iterator[str]:
    if known.fleet.count <= MOST_DRAWN:
        titled = [(host, kind.box) for kind in known.kinds for host in host_names(kind.entry)]
    else:
        titled = [(f"{kind.count} x {kind.name}", kind.box) for kind in known.kinds]
    row: list[list[str]] = []
    for frame in (_frame(title, box) for title, box in titled):
        if row and sum(len(one[0]) + 1 for one in row) + len(frame[0]) > width:
            yield from _hang(row)
            row = []
        row.append(frame)
    yield from _hang(row)


def _frame(title: str, box: Box) -> list[str]:
    cards = _cards(box)
    inner = max(len(title), len(cards)) + 2
    return [
        f"┌{'─' * inner}┐",
        f"│{title:^{inner}}│",
        f"│{cards:^{inner}}│",
        f"└{'─' * (inner // 2)}┬{'─' * (inner - inner // 2 - 1)}┘",
    ]


def _cards(box: Box) -> str:
    """`■■ ■■`: a block an island."""
    if len(box.gpus) > _MOST_CARDS:
        return f"{len(box.gpus)} GPUs"
    parts = ["■" * len(island) for island in islands(box)]
    return " ".join(parts)


def _hang(row: Sequence[Sequence[str]]) -> Iterator[str]:
    """Frames beside each other on one line of network."""
    for level in range(4):
        yield " ".join(frame[level] for frame in row)
    feet = " ".join(row_frame[3] for row_frame in row)
    yield "".join("┴" if sign == "┬" else "─" for sign in feet)
