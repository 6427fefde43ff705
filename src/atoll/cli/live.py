"""The run while it goes: a screen on a terminal, plain lines elsewhere, nothing with --json."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from atoll.load.progress import Progress, ReplicaNow
from atoll.units import show_seconds

_LINE_EVERY_S = 5.0
_BAR = 30
_PARTS = " ▏▎▍▌▋▊▉█"


@contextmanager
def live_view(console: Console, *, silent: bool, title: str) -> Iterator[Callable[[Progress], None] | None]:
    """Gives the function that shows a Progress."""
    if silent:
        yield None
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=True) as screen:
            yield lambda progress: screen.update(draw(progress, title=title), refresh=True)
    else:
        yield _line_printer(console)


def _line_printer(console: Console) -> Callable[[Progress], None]:
    last = 0.0

    def show(progress: Progress) -> None:
        nonlocal last
        if progress.elapsed_s < last:  # the next run of a study, or of a sweep
            last = 0.0
        if progress.elapsed_s - last >= _LINE_EVERY_S:
            last = progress.elapsed_s
            console.print(line(progress), soft_wrap=True)

    return show


def line(progress: Progress) -> str:
    """One line: time, counts, the last seconds' latencies."""
    failed = f", {progress.failed} failed" if progress.failed else ""
    backlog = f", {progress.backlog} waiting to be sent" if progress.backlog else ""
    left = f", {show_seconds(progress.left_s)} left" if progress.left_s else ""
    return (
        f"{progress.elapsed_s:6.0f} s{left}  {progress.sent} sent, {progress.ok} ok{failed},"
        f" {progress.in_flight} in flight{backlog}"
        f"  TTFT p50 {show_seconds(progress.ttft_p50_s)} p95 {show_seconds(progress.ttft_p95_s)}"
        f"  ITL p50 {show_seconds(progress.itl_p50_s)}  {progress.chunks_per_s:,.0f} tokens/s"
    )


def draw(progress: Progress, *, title: str) -> RenderableType:
    """The screen."""
    parts: list[RenderableType] = [Text(title, style="bold"), _clock_line(progress), _figures(progress)]
    if progress.replicas:
        parts.append(_replicas(progress.replicas))
    if progress.errors:
        shown = ", ".join(f"{name} {count}" for name, count in sorted(progress.errors.items(), key=lambda e: -e[1])[:5])
        parts.append(Text(f"failures: {shown}", style="red"))
    return Group(*parts)


def _clock_line(progress: Progress) -> Text:
    text = Text(f"{show_seconds(progress.elapsed_s)} ")
    if progress.left_s is not None:
        share = progress.elapsed_s / (progress.elapsed_s + progress.left_s) if progress.left_s > 0 else 1.0
        text.append(bar(share, _BAR), style="cyan")
        left = f" {show_seconds(progress.left_s)} left" if progress.left_s > 0 else " waiting for the last answers"
        text.append(left)
    elif progress.requests_wanted:
        text.append(bar(progress.sent / progress.requests_wanted, _BAR), style="cyan")
        text.append(f" {progress.sent} of {progress.requests_wanted} sent")
    return text


def _figures(progress: Progress) -> Table:
    grid = Table.grid(padding=(0, 3))
    asked = f" of {progress.users}" if progress.users else ""
    backlog = f", {progress.backlog} waiting" if progress.backlog else ""
    counts = f"{progress.sent} sent  {progress.ok} ok  {progress.failed} failed"
    grid.add_row("in flight", f"{progress.in_flight}{asked}{backlog}", counts)
    ttft = f"p50 {show_seconds(progress.ttft_p50_s)}  p95 {show_seconds(progress.ttft_p95_s)}"
    itl = f"p50 {show_seconds(progress.itl_p50_s)}  p95 {show_seconds(progress.itl_p95_s)}"
    grid.add_row("TTFT", ttft, f"{progress.requests_per_s:.1f} requests/s")
    grid.add_row("ITL", itl, f"{progress.chunks_per_s:,.0f} tokens/s")
    grid.add_row("this client", f"{show_seconds(progress.lag_s)} late", "over the last 10 s")
    return grid


def _replicas(replicas: dict[str, ReplicaNow]) -> Table:
    grid = Table.grid(padding=(0, 2))
    most = max((now.in_flight for now in replicas.values()), default=0) or 1
    for name, now in replicas.items():
        grid.add_row(
            f"replica {name}",
            Text(bar(now.in_flight / most, 20), style="green"),
            f"{now.in_flight} in flight",
            f"{now.tokens_per_s:,.0f} tokens/s",
            f"{now.requests} done",
        )
    return grid


def bar(share: float, width: int) -> str:
    """A bar of so many cells, to an eighth of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_PARTS[rest] if rest else "")).ljust(width)
