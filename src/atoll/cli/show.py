"""Values -> tables for a person, or one JSON document."""

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderHook, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from atoll.analyse.band import Band, tell_bands
from atoll.analyse.summary import Distribution, Goodput, ModelSummary, ReplicaSummary, Summary
from atoll.outside.files import write_nowhere
from atoll.units import show_seconds

# What a terminal does instead of showing it: controls but for line end and tab, the marks that turn the direction of
# writing or end a line where none is seen, bytes that are no text. Names, files, servers and logs may hold any of them.
_UNSEEN = {code: f"\\x{code:02x}" for code in (*range(9), *range(11, 32), *range(127, 160))}
_UNSEEN |= {code: f"\\u{code:04x}" for code in (0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF)}
_UNSEEN |= {code: f"\\u{code:04x}" for code in range(0xD800, 0xE000)}
_IN_JSON = {code: f"\\u{code:04x}" for code in (*range(127, 160), *(code for code in _UNSEEN if code > 160))}


def visible(text: str) -> str:
    """The text with what a terminal would act upon written out as a backslash and its number."""
    return text.translate(_UNSEEN)


class _Shown:
    """A renderable whose words are made visible; the console's own styles stay."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self._inner, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)


class _Visible(RenderHook):
    """All that a console prints passes here."""

    def process_renderables(self, renderables: list[Any]) -> list[Any]:
        return [_Shown(renderable) for renderable in renderables]


class _Patient(Console):
    """Goes on when its reader has gone, as `head` does after ten lines: files are still to be written."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        write_nowhere(self.file)


def _console(*, stderr: bool = False) -> Console:
    """Without markup and emoji: "[emerg]" of nginx, a name's own brackets and `:fire:` are words."""
    made = _Patient(stderr=stderr, highlight=False, markup=False, emoji=False)
    made.push_render_hook(_Visible())
    return made


out = _console()
progress = _console(stderr=True)


def bold(words: str, rest: str = "") -> Text:
    return Text.assemble((words, "bold"), rest)


def show_json(document: Any) -> None:
    """One JSON document on standard output; NaN and infinity, which JSON does not have, become null."""
    text = json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)
    write_out(text.translate(_IN_JSON) + "\n")


def write_out(text: str) -> None:
    """Text as it is on standard output, whether or not anybody still reads there."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        write_nowhere(sys.stdout)


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json"))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not (float("-inf") < value < float("inf")):
        return None
    return value


SHORTEST_PIECE = 16  # columns of a terminal: a name that is cut into shorter pieces is no longer read as one


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    wrap: Iterable[int] | None = None,
) -> Table | Text:
    """A plain table: the columns in `numbers` are set to the right, those in `wrap` (else the last) may break.

    Where the terminal has no room for whole words in those, they stand above their row.
    """
    rows, right = list(rows), set(numbers)
    breaking = {len(columns) - 1} - right if wrap is None else set(wrap)
    if breaking and len(breaking) < len(columns) and not _fits(columns, rows, breaking):
        return _stacked(title, columns, rows, right=right, breaking=breaking)
    made = Table(
        title=Text(title) if title else None, box=SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False
    )
    made.padding = (0, 1, 0, 0)
    for place, name in enumerate(columns):
        justify: Literal["right", "left"] = "right" if place in right else "left"
        broken = place in breaking  # a long name is folded; a figure that lost its end would be wrong unmarked
        made.add_column(name, justify=justify, no_wrap=not broken, overflow="fold" if broken else "ellipsis")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def show_table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numbers: Iterable[int] = (),
    wrap: Iterable[int] | None = None,
) -> None:
    out.print(table(title, columns, rows, numbers=numbers, wrap=wrap))


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]], breaking: set[int]) -> bool:
    """Whether the columns that may break keep their longest word, or the better part of it, on this terminal."""
    left = out.width - len(columns)
    for place, name in enumerate(columns):
        cells = (name, *(row[place] for row in rows))
        words = (word for cell in cells for word in (cell.split() if place in breaking else cell.splitlines()))
        longest = max(map(cell_len, words), default=0)
        left -= min(longest, SHORTEST_PIECE) if place in breaking else longest
    return left >= 0


def _stacked(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: set[int], breaking: set[int]
) -> Text:
    """For a narrow terminal: the words of a row on a line of their own, its figures in columns below."""
    said = [place for place in range(len(columns)) if place in breaking or place < min(breaking)]
    kept = [place for place in range(len(columns)) if place not in said]
    heads = [columns[place].split("\n") for place in range(len(columns))]
    depth = max(len(heads[place]) for place in kept)
    top = [["" for _ in range(depth - len(head))] + head for head in heads]
    plain = [[" ".join(cell.split()) for cell in row] for row in rows]
    head_rows = [
        [top[place][level] if place in kept else "" for place in range(len(columns))] for level in range(depth)
    ]
    widths = {place: max(cell_len(line[place]) for line in (*head_rows, *plain)) for place in kept}

    def words(line: Sequence[str]) -> str:
        return "  ".join(line[place] for place in said if line[place])

    def figures(line: Sequence[str]) -> str:
        gaps = {place: " " * (widths[place] - cell_len(line[place])) for place in kept}
        return "  " + "  ".join(gaps[n] + line[n] if n in right else line[n] + gaps[n] for n in kept).rstrip()

    body = [text for line in plain for text in (words(line), figures(line))]
    above = [words([" ".join(head) for head in heads]), *map(figures, head_rows)]
    rule = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * min(out.width, max(map(cell_len, (*above, *body))))
    texts = [*above, rule, *body]
    made = Text("\n".join(texts))
    return Text.assemble((f"{title}\n", "bold"), made) if title else Text("\n").append_text(made)


def show_bands(relative: Mapping[str, Band | None], lang: str = "en") -> None:
    """How far off predicted means may be, by name; see analyse/band.py."""
    from atoll.report.sentences import tell  # brings in the templates

    for sentence in tell_bands(relative):
        out.print(tell(sentence, lang) if lang != "en" else sentence, markup=False)


DISTRIBUTION_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")


def distribution_cells(distribution: Distribution) -> tuple[str, ...]:
    """The six figures of a distribution in the order of DISTRIBUTION_COLUMNS."""
    return tuple(show_seconds(getattr(distribution, name)) for name in DISTRIBUTION_COLUMNS)


def show_summary(summary: Summary, *, title: str = "Summary") -> None:
    """The tables that end a run: counts and rates, latencies, replicas."""
    counts = summary.requests
    out.print(
        bold(
            title,
            f"  {counts.sent} sent = {counts.ok} ok + {counts.failed} failed"
            f" + {counts.cancelled} cancelled; measured: {summary.measured} in {show_seconds(summary.duration_s)}"
            + (f", from {show_seconds(summary.measured_from_s)} on" if summary.measured_from_s else ""),
        )
    )
    for note in summary.notes:
        out.print(note, style="yellow", soft_wrap=True)
    out.print(
        f"{summary.requests_per_s:.2f} requests/s, {summary.output_tokens_per_s:,.0f} output tokens/s,"
        f" {summary.total_tokens_per_s:,.0f} tokens/s in all"
    )
    rows = [
        (name, *distribution_cells(value))
        for name, value in (
            ("TTFT", summary.ttft_s),
            ("ITL", summary.itl_s),
            ("TPOT", summary.tpot_s),
            ("E2E", summary.e2e_s),
        )
    ]
    show_table(None, ("", *DISTRIBUTION_COLUMNS), rows, numbers=range(1, 7))
    for name in summary.e2e_s.more:
        spreads = {"TTFT": summary.ttft_s, "ITL": summary.itl_s, "TPOT": summary.tpot_s, "E2E": summary.e2e_s}
        figures = (f"{measure} {show_seconds(spread.get(name))}" for measure, spread in spreads.items())
        out.print(f"{name}: {', '.join(figures)}")
    if len(summary.per_replica) > 1:
        show_replicas(summary)
    if summary.per_model:
        show_models(summary)
    if summary.errors:
        show_failures(summary)
    if summary.counted_from_chunks:
        out.print(
            f"Tokens of {summary.counted_from_chunks} answers were counted from chunks: the engine gave no usage."
        )


def show_models(summary: Summary) -> None:
    figures = [(part.ttft_s.p50, part.tpot_s.p50, part.e2e_s.p50) for part in summary.per_model]
    names = [part.model for part in summary.per_model]
    _show_parts("Per model", names, summary.per_model, ("TTFT p50", "TPOT p50", "E2E p50"), figures)
    for part in summary.per_model:
        if part.goodput is not None:
            kept = f"{part.goodput.share:.1%} kept within its targets ({_targets(part.goodput)})."
            out.print(f"{part.model}: {kept}", markup=False, soft_wrap=True)


def _targets(goodput: Goodput) -> str:
    named = (("TTFT", goodput.slo_ttft_s), ("TPOT", goodput.slo_tpot_s))
    return ", ".join(f"{name} {show_seconds(seconds)}" for name, seconds in named if seconds is not None)


def show_failures(summary: Summary) -> None:
    """Each class of failure with its number, the sentence that was heard most, and what to do."""
    out.print(bold("Failures"))
    known = {failure.error: failure for failure in summary.failures}
    for error, count in summary.errors.items():
        out.print(f"  {known.get(error) or f'{count} {error}'}", markup=False, soft_wrap=True)


def show_replicas(summary: Summary) -> None:
    figures = [(part.ttft_s.p50, part.ttft_s.p95, part.e2e_s.p50) for part in summary.per_replica]
    names = [part.replica for part in summary.per_replica]
    _show_parts("Per replica", names, summary.per_replica, ("TTFT p50", "TTFT p95", "E2E p50"), figures)


def _show_parts(
    title: str,
    names: Sequence[str],
    parts: Sequence[ReplicaSummary | ModelSummary],
    measures: tuple[str, ...],
    figures: Sequence[tuple[float | None, ...]],
) -> None:
    """What each part of a run answered; `figures` in seconds, one row a part, under `measures`."""
    rows = [
        (
            name,
            str(part.requests.ok),
            str(part.requests.failed),
            f"{part.output_tokens_per_s:,.0f}",
            *map(show_seconds, seconds),
        )
        for name, part, seconds in zip(names, parts, figures, strict=True)
    ]
    columns = (title.removeprefix("Per "), "ok", "failed", "tokens/s", *measures)
    show_table(title, columns, rows, numbers=range(1, len(columns)))
