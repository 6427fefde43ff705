"""A box drawn with characters: cards as boxes, NVLink as double lines, a row a NUMA node, the matrix of paths."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from rich.text import Text

from atoll.errors import UnknownGpu
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import find_gpu
from atoll.inventory.islands import is_fully_connected, islands, slowest_hop
from atoll.units import GIB, show_bytes

Group = tuple[int, ...]

_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta")
_CARD_WIDTH = 7  # ` GPU 12`
_PATHS = {
    LinkKind.PIX: "through one PCIe switch",
    LinkKind.PXB: "through several PCIe switches",
    LinkKind.PHB: "through the CPU's PCIe host bridge",
    LinkKind.NODE: "between host bridges of one NUMA node",
    LinkKind.SYS: "across CPU sockets",
}


def draw_box(box: Box, *, width: int) -> list[Text]:
    """The cards, row by row: an island stays together, and a new row starts with another NUMA node.

    Args:
        box: at most 64 cards are readable.
        width: columns of the terminal.
    """
    colours = colour_of(box)
    lines: list[Text] = []
    for title, units in _rows(box):
        if title:
            lines.append(Text(title, style="bold"))
        drawings = [_draw_unit(box, unit, colours, width) for unit in units]
        lines.extend(_side_by_side(drawings, width))
    return lines


def colour_of(box: Box) -> dict[int, str]:
    """A colour an island; cards without NVLink stay plain."""
    joined = [island for island in islands(box) if len(island) > 1]
    return {gpu: _COLOURS[place % len(_COLOURS)] for place, island in enumerate(joined) for gpu in island}


def draw_matrix(box: Box) -> list[Text]:
    """Who reaches whom how, as `nvidia-smi topo -m` has it; narrow for more than 12 cards."""
    narrow = len(box.gpus) > 12
    cell_width = 3 if narrow else 5
    head = Text(" " * 6 + "".join(f"{index:>{cell_width}}" for index in box.indices), style="bold")
    return [head, *[_matrix_row(box, index, cell_width, narrow=narrow) for index in box.indices]]


def _matrix_row(box: Box, index: int, cell_width: int, *, narrow: bool) -> Text:
    row = Text(f"GPU {index:<2}", style="bold")
    for other in box.indices:
        code, style = ("x", "dim") if other == index else _cell(box.link(index, other), narrow=narrow)
        row.append(f"{code:>{cell_width}}", style=style)
    return row


def _cell(link: Link, *, narrow: bool) -> tuple[str, str]:
    if link.kind is LinkKind.NV:
        return (str(link.nvlinks) if narrow else f"NV{link.nvlinks}"), "bold green"
    code = {"PIX": "pi", "PXB": "px", "PHB": "ph", "NODE": "no", "SYS": "sy"}[link.kind] if narrow else str(link.kind)
    return code, "yellow" if link.kind is LinkKind.SYS else ""


def tell_paths(box: Box) -> list[tuple[str, str]]:
    """(What, which pairs) from the nearest path to the farthest: `("NV2   NVLink, 2 links", "0-1, 2-3")`."""
    pairs: dict[tuple[int, int], list[Group]] = {}
    for link in box.links:
        pairs.setdefault((link.kind.distance, -link.nvlinks), []).append((link.a, link.b))
    told = []
    for place, (_, members) in enumerate(sorted(pairs.items())):
        rest = place > 0 and place == len(pairs) - 1
        told.append((_tell_path(box, box.link(*members[0])), _tell_pairs(box, members, rest=rest)))
    return told


def _tell_path(box: Box, link: Link) -> str:
    if link.kind is not LinkKind.NV:
        return f"{link.kind:<5} {_PATHS[link.kind]}"
    count = f"{link.nvlinks} link" + ("s" if link.nvlinks > 1 else "")
    return f"{f'NV{link.nvlinks}':<5} NVLink, {count}{_tell_bandwidth(box, link)}"


def _tell_bandwidth(box: Box, link: Link) -> str:
    """What the data sheet promises for these links, when the card is known."""
    try:
        kind = find_gpu(box.gpu(link.a).name or "")
    except UnknownGpu:
        return ""
    each_way = link.nvlinks * kind.nvlink_bytes_per_s
    return f" ({show_bytes(each_way)}/s each way)" if each_way else ""


def _tell_pairs(box: Box, pairs: Sequence[Group], *, rest: bool) -> str:
    if len(pairs) == len(box.links):
        return "the only pair" if len(pairs) == 1 else "every pair"
    if rest and len(pairs) > 4:
        return f"the other {len(pairs)} pairs"
    blocks = _as_cliques(box, pairs)
    if blocks is not None:
        return "any two of " + ", ".join(show_group(block) for block in blocks)
    shown = ", ".join(f"{a}-{b}" for a, b in pairs[:12])
    return shown if len(pairs) <= 12 else f"{shown} and {len(pairs) - 12} more"


def _as_cliques(box: Box, pairs: Sequence[Group]) -> list[Group] | None:
    """The pairs as groups of three or more in which every two are joined, when that says the same in fewer words."""
    left = set(pairs)
    blocks: list[Group] = []
    for index in box.indices:
        near = [index, *[b for a, b in sorted(left) if a == index]]
        if len(near) < 3:
            continue
        inside = set(combinations(near, 2))
        if not inside <= left:
            return None
        left -= inside
        blocks.append(tuple(near))
    return blocks if blocks and not left else None


def show_group(group: Sequence[int]) -> str:
    """`{0-3}` for a run of three or more, `{0,3}` otherwise."""
    ordered = sorted(group)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{{{ordered[0]}-{ordered[-1]}}}"
    return "{" + ",".join(map(str, ordered)) + "}"


def tell_split(box: Box, groups: Sequence[Group]) -> str:
    """What the worst group of a split has to go through."""
    if len(groups[0]) == 1:
        return "one card each"
    worst = max((slowest_hop(box, group) for group in groups), key=lambda link: (link.kind.distance, -link.nvlinks))
    if worst.kind is LinkKind.NV:
        return f"NVLink within every group (NV{worst.nvlinks} or wider)"
    whole = sum(is_fully_connected(box, group) for group in groups)
    share = f"; {whole} of {len(groups)} all NVLink" if whole else ""
    mesh = any(set(groups[0]) <= set(island) for island in islands(box))
    partly = ", though NVLink reaches every card" if mesh and not whole else ""
    return f"slowest hop {worst.kind} ({_PATHS[worst.kind]}){share}{partly}"


def _rows(box: Box) -> Iterable[tuple[str, list[Group]]]:
    """Islands by NUMA node; the title of a row and the islands in it."""
    rows: dict[str, list[Group]] = {}
    for island in islands(box):
        rows.setdefault(_numa_title(box, island), []).append(island)
    yield from rows.items()


def _numa_title(box: Box, island: Group) -> str:
    """`NUMA 0`, or `NUMA 0 {0-3}, NUMA 1 {4-7}` over an island that spans two."""
    nodes: dict[int | None, list[int]] = {}
    for gpu in island:
        nodes.setdefault(box.gpu(gpu).numa_node, []).append(gpu)
    if set(nodes) == {None}:
        return ""
    titles = {node: "NUMA not known" if node is None else f"NUMA {node}" for node in nodes}
    if len(nodes) == 1:
        return titles[next(iter(nodes))]
    return ", ".join(f"{titles[node]} {show_group(gpus)}" for node, gpus in nodes.items())


def _draw_unit(box: Box, island: Group, colours: dict[int, str], width: int) -> list[Text]:
    if len(island) == 2:
        return _draw_pair(box, island, colours)
    if len(island) > 2 and is_fully_connected(box, island):
        return _draw_bus(box, island, colours, width)
    return _draw_cards(box, island, colours, width)


def _draw_pair(box: Box, pair: Group, colours: dict[int, str]) -> list[Text]:
    first, second = (_draw_card(box.gpu(gpu)) for gpu in pair)
    bond = ("      ", f" NV{box.link(*pair).nvlinks:<3}", "══════", "      ")
    style = colours[pair[0]]
    return [
        Text.assemble((left, style), (line, f"bold {style}"), (right, style))
        for left, line, right in zip(_open_right(first), bond, _open_left(second), strict=True)
    ]


def _open_right(card: list[str]) -> list[str]:
    return [card[0], card[1], card[2][:-1] + "╞", card[3]]


def _open_left(card: list[str]) -> list[str]:
    return [card[0], card[1], "╡" + card[2][1:], card[3]]


def _draw_cards(box: Box, gpus: Group, colours: dict[int, str], width: int) -> list[Text]:
    lines: list[Text] = []
    for part in _in_lines(gpus, width):
        cards = [(_draw_card(box.gpu(gpu)), colours.get(gpu, "")) for gpu in part]
        lines += [Text(" ").join(Text(card[row], style=style) for card, style in cards) for row in range(4)]
    if len(gpus) > 2:
        lines.append(Text("a partly joined NVLink mesh, pair by pair below", style=colours[gpus[0]]))
    return lines


def _draw_bus(box: Box, gpus: Group, colours: dict[int, str], width: int) -> list[Text]:
    """Cards that are all joined to each other hang on one bar."""
    widths = sorted({box.link(a, b).nvlinks for a, b in combinations(gpus, 2)})
    spread = "" if len(widths) == 1 else f" to NV{widths[-1]}"
    label = f" NVLink, every two by NV{widths[0]}{spread} "
    parts = list(_in_lines(gpus, width))
    lines: list[Text] = []
    for part in parts:
        cards = [_draw_card(box.gpu(gpu)) for gpu in part]
        style = colours[gpus[0]]
        feet = [card[3][: len(card[3]) // 2] + "╥" + card[3][len(card[3]) // 2 + 1 :] for card in cards]
        lines += [Text(" ".join(card[row] for card in cards), style=style) for row in range(3)]
        lines.append(Text(" ".join(feet), style=style))
        bar = " ".join(feet)
        joint = "".join("╩" if sign == "╥" else "═" for sign in bar)
        lines.append(Text(_with_label(joint, label) if part is parts[-1] else joint, style=f"bold {style}"))
    return lines


def _with_label(bar: str, label: str) -> str:
    """The label in the middle of the bar, or after a bar that is too short for it."""
    if len(bar) < len(label) + 8:
        return f"{bar}  {label.strip()}"
    start = (len(bar) - len(label)) // 2
    return bar[:start] + label + bar[start + len(label) :]


def _in_lines(gpus: Group, width: int) -> Iterable[Group]:
    """Parts of equal length that fit in the width."""
    fit = max(1, (width + 1) // (_CARD_WIDTH + 3))
    rows = -(-len(gpus) // fit)
    size = -(-len(gpus) // rows)
    for start in range(0, len(gpus), size):
        yield gpus[start : start + size]


def _draw_card(gpu: Gpu) -> list[str]:
    size = f"{gpu.memory_bytes / GIB:.0f} GiB" if gpu.memory_bytes else ""
    return [
        "┌" + "─" * _CARD_WIDTH + "┐",
        f"│{f'GPU {gpu.index}':^{_CARD_WIDTH}}│",
        f"│{size:^{_CARD_WIDTH}}│",
        "└" + "─" * _CARD_WIDTH + "┘",
    ]


def _side_by_side(drawings: list[list[Text]], width: int) -> Iterable[Text]:
    """Drawings next to each other as long as they fit, then below."""
    row: list[list[Text]] = []
    taken = 0
    for drawing in drawings:
        needed = max(line.cell_len for line in drawing)
        if row and taken + 1 + needed > width:
            yield from _joined(row)
            row, taken = [], 0
        row.append(drawing)
        taken += needed + (1 if taken else 0)
    yield from _joined(row)


def _joined(row: list[list[Text]]) -> Iterable[Text]:
    height = max(map(len, row))
    widths = [max(line.cell_len for line in drawing) for drawing in row]
    for level in range(height):
        line = Text()
        for place, (drawing, width) in enumerate(zip(row, widths, strict=True)):
            part = drawing[level] if level < len(drawing) else Text("")
            line.append(" " if place else "").append_text(part)
            line.append(" " * (width - part.cell_len))
        line.rstrip()
        yield line
