"""Laws of the inventory: any text gives a Box or one refusal; damage never gives another matrix; splits are best."""

import csv
from itertools import combinations
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import BadTopology
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.islands import best_groups, best_split, is_fully_connected, islands
from atoll.inventory.parse import parse_box

CAPTURES = Path(__file__).parents[1] / "data" / "topo"
INDEX = csv.DictReader((CAPTURES / "index.csv").read_text(encoding="utf-8").splitlines())
GOOD = [
    (CAPTURES / row["file"]).read_bytes().decode("utf-8", errors="replace")
    for row in INDEX
    if row["expectation"] == "parse"
]
WORDS = st.sampled_from(
    ["GPU0", "GPU1", "GPU2", "GPU10", "gpu 3", "X", " X ", "NV1", "NV12", "NV18", "NV0", "NV99", "PIX", "PXB", "PHB", "NODE",
     "SYS", "SOC", "OK", "NS", "NIC0", "mlx5_0", "CPU Affinity", "NUMA Affinity", "GPU NUMA ID", "0-31,64-95", "0", "1", "N/A",
     "...", "|", "\t", "\t", "\n", "\n", " ", "\r\n", "\x1b[4m", "\x1b[0m", "nvidia-smi topo -m", "topo -mp", "topo -p2p r",
     "Legend:", "GPU 0: NVIDIA L40S", "index, name, memory.total [MiB]", "0, NVIDIA L4, 23034 MiB", "<td>", "</tr>", "&nbsp;", "#"]
)  # fmt: skip


def shape(box: Box) -> tuple[object, ...]:
    return box.indices, box.links


def read(text: str) -> Box | None:
    try:
        return parse_box(text, origin="law")
    except BadTopology as error:
        refusal = str(error)
    assert refusal.startswith("law: ")
    assert "\n" not in refusal
    return None


@given(st.text(max_size=400))
@settings(max_examples=150, deadline=None)
def test_any_text_gives_a_box_or_a_refusal(text):
    read(text)


@given(st.lists(WORDS, max_size=80).map("".join))
@settings(max_examples=200, deadline=None)
def test_any_pile_of_the_tools_words_gives_a_box_or_a_refusal(text):
    read(text)


@given(st.lists(WORDS, max_size=60).map(" ".join), st.sampled_from(GOOD))
@settings(max_examples=100, deadline=None)
def test_a_pile_of_words_before_a_capture_never_changes_its_matrix(noise, capture):
    box = read(noise + "\n" + capture)
    assert box is None or shape(box) == shape(parse_box(capture, origin="law"))


@st.composite
def damage(draw, capture: str) -> str:
    """The capture after one to three accidents."""
    lines = capture.replace("\r\n", "\n").split("\n")
    for _ in range(draw(st.integers(1, 3))):
        lines = draw(st.sampled_from(ACCIDENTS))(draw, lines)
        if not lines:
            break
    return "\n".join(lines)


def lose_a_line(draw, lines):
    place = draw(st.integers(0, len(lines) - 1))
    return lines[:place] + lines[place + 1 :]


def repeat_a_line(draw, lines):
    place = draw(st.integers(0, len(lines) - 1))
    return [*lines[: place + 1], *lines[place:]]


def swap_two_lines(draw, lines):
    a, b = (draw(st.integers(0, len(lines) - 1)) for _ in range(2))
    lines = list(lines)
    lines[a], lines[b] = lines[b], lines[a]
    return lines


def lose_a_cell(draw, lines):
    return on_cells(draw, lines, lambda cells, place: cells[:place] + cells[place + 1 :])


def repeat_a_cell(draw, lines):
    return on_cells(draw, lines, lambda cells, place: [*cells[: place + 1], *cells[place:]])


def swap_two_cells(draw, lines):
    def swap(cells, place):
        other = draw(st.integers(0, len(cells) - 1))
        cells[place], cells[other] = cells[other], cells[place]
        return cells

    return on_cells(draw, lines, swap)


def change_a_cell(draw, lines):
    code = draw(st.sampled_from(["X", "NV1", "NV2", "PIX", "SYS", "NODE", "", "OK"]))
    return on_cells(draw, lines, lambda cells, place: [*cells[:place], code, *cells[place + 1 :]])


def on_cells(draw, lines, change):
    places = [place for place, line in enumerate(lines) if len(line.split()) > 2]
    if not places:
        return lines
    place = draw(st.sampled_from(places))
    cells = lines[place].split()
    cells = change(cells, draw(st.integers(0, len(cells) - 1)))
    return [*lines[:place], "\t".join(cells), *lines[place + 1 :]]


def lose_the_blanks(draw, lines):
    place = draw(st.integers(0, len(lines) - 1))
    blanks = [i for i, sign in enumerate(lines[place]) if sign in " \t"]
    if not blanks:
        return lines
    cut = draw(st.sampled_from(blanks))
    return [*lines[:place], lines[place][:cut] + lines[place][cut + 1 :], *lines[place + 1 :]]


def cut_the_end(draw, lines):
    text = "\n".join(lines)
    return text[: draw(st.integers(0, len(text)))].split("\n")


def cut_the_start(draw, lines):
    text = "\n".join(lines)
    return text[draw(st.integers(0, len(text))) :].split("\n")


def break_a_line(draw, lines):
    place = draw(st.integers(0, len(lines) - 1))
    cut = draw(st.integers(0, len(lines[place])))
    return [*lines[:place], lines[place][:cut], lines[place][cut:], *lines[place + 1 :]]


def join_two_lines(draw, lines):
    place = draw(st.integers(0, len(lines) - 1))
    return [*lines[:place], "".join(lines[place : place + 2]), *lines[place + 2 :]]


ACCIDENTS = [
    lose_a_line, repeat_a_line, swap_two_lines, lose_a_cell, repeat_a_cell, swap_two_cells, change_a_cell, lose_the_blanks,
    cut_the_end, cut_the_start, break_a_line, join_two_lines,
]  # fmt: skip


@given(st.sampled_from(GOOD).flatmap(lambda capture: st.tuples(st.just(capture), damage(capture))))
@settings(max_examples=200, deadline=None)
def test_a_damaged_capture_gives_the_right_matrix_or_a_refusal(pair):
    capture, damaged = pair
    box = read(damaged)
    right = parse_box(capture, origin="law")
    assert box is None or shape(box) == shape(right)


def indent(text):
    return "\n".join("        " + line for line in text.split("\n"))


DRESSES = {
    "windows": lambda text: text.replace("\r\n", "\n").replace("\n", "\r\n"),
    "indented": indent,
    "quoted": lambda text: "\n".join("> " + line for line in text.split("\n")),
    "commented": lambda text: "\n".join("# " + line for line in text.split("\n")),
    "lower": str.lower,
    "log": lambda text: "\n".join(
        f"2026-02-11T09:14:{n % 60:02d}Z stdout F {line}" for n, line in enumerate(text.split("\n"))
    ),
    "ranked": lambda text: "\n".join("0: " + line for line in text.split("\n")),
    "double spaced": lambda text: text.replace("\n", "\n\n"),
    "no-break": lambda text: text.replace(" ", "\u00a0"),
    "one blank": lambda text: "\n".join(" ".join(line.split()) for line in text.split("\n")),
    "fenced": lambda text: f"Here is what my box says:\n```\n{text}\n```\nWhat should I do?",
    "twice": lambda text: text + "\n\n" + text,
    "literal": lambda text: repr(text.replace("\r\n", "\n")),
    "pre": lambda text: "<pre>" + text.replace("\n", "<br>") + "</pre>",
}


@given(st.sampled_from(GOOD), st.sampled_from(sorted(DRESSES)))
@settings(max_examples=150, deadline=None)
def test_a_capture_in_another_dress_is_the_same_matrix(capture, dress):
    assert shape(parse_box(DRESSES[dress](capture), origin="law")) == shape(parse_box(capture, origin="law"))


@st.composite
def boxes(draw, most: int = 8) -> Box:
    n = draw(st.integers(1, most))
    kinds = st.sampled_from(
        [(LinkKind.NV, 1), (LinkKind.NV, 2), (LinkKind.NV, 4), (LinkKind.PIX, 0), (LinkKind.SYS, 0)]
    )
    nodes = draw(st.lists(st.sampled_from([0, 1, None]), min_size=n, max_size=n))
    links = []
    for a, b in combinations(range(n), 2):
        kind, nvlinks = draw(kinds)
        links.append(Link(a=a, b=b, kind=kind, nvlinks=nvlinks))
    return Box(gpus=tuple(Gpu(index=i, numa_node=node) for i, node in enumerate(nodes)), links=tuple(links))


def inside(box: Box, groups) -> int:
    return sum(box.link(a, b).nvlinks for group in groups for a, b in combinations(group, 2))


def every_split(gpus: tuple[int, ...], k: int):
    if not gpus:
        yield ()
        return
    for others in combinations(gpus[1:], k - 1):
        group = (gpus[0], *others)
        for rest in every_split(tuple(gpu for gpu in gpus if gpu not in group), k):
            yield (group, *rest)


@given(boxes())
@settings(max_examples=60, deadline=None)
def test_no_split_keeps_more_nvlinks_inside_its_groups(box):
    n = len(box.gpus)
    for k in (k for k in range(1, n + 1) if n % k == 0):
        split = best_split(box, k)
        assert sorted(gpu for group in split for gpu in group) == list(box.indices)
        assert inside(box, split) == max(inside(box, other) for other in every_split(box.indices, k))


@given(boxes(), st.data())
@settings(max_examples=60, deadline=None)
def test_uneven_groups_are_disjoint_and_of_the_sizes_asked_for(box, data):
    sizes = data.draw(st.lists(st.integers(1, 4), max_size=4).filter(lambda sizes: sum(sizes) <= len(box.gpus)))
    groups = best_groups(box, sizes)
    taken = [gpu for group in groups for gpu in group]
    assert sorted(map(len, groups), reverse=True) == sorted(sizes, reverse=True)
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(box.indices)


@given(boxes())
@settings(max_examples=60, deadline=None)
def test_islands_part_the_box_and_no_nvlink_leaves_one(box):
    parts = islands(box)
    assert sorted(gpu for island in parts for gpu in island) == list(box.indices)
    home = {gpu: island for island in parts for gpu in island}
    assert all(home[link.a] == home[link.b] for link in box.links if link.nvlinks)
    assert all(not is_fully_connected(box, (a[0], b[0])) for a, b in combinations(parts, 2))
