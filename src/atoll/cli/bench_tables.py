"""What `atoll bench` prints at its end."""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.text import Text

from atoll.analyse.summary import latencies
from atoll.cli.show import out, show_summary, show_table
from atoll.traffic.record import RecordTable
from atoll.units import show_bytes, show_seconds
from atoll.workflows.bench import BenchResult
from atoll.workflows.capacity import Level

_WORST = 5


def show_bench(result: BenchResult, *, bundle: str | None = None) -> None:
    """Headline with the client's own part, the summary, the worst requests, goodput.

    `bundle` is the layout or bundle whose door was asked: its logs know the requests by their ids.
    """
    client = result.client
    held = ""
    if client.users_asked and client.users_held is not None:
        held = f" {client.users_held:.1f} of {client.users_asked} users held."
    own = "unknown" if client.ttft_share_s is None else show_seconds(client.ttft_share_s)
    mark = (" (not to be trusted)", "red") if client.limited else ""
    ttft = show_seconds(result.summary.ttft_s.p50)
    out.print(Text.assemble(f"TTFT p50 {ttft}", mark, f", of it the client's own share {own}.{held}"), soft_wrap=True)
    out.print(client.verdict, style="red" if client.limited else "", soft_wrap=True)
    if client.backlog_max:
        out.print(f"At the worst, {client.backlog_max} requests were due and not yet sent.")
    show_summary(result.summary, title=f"{result.info.name}, {result.info.source}")
    _show_steps(result)
    _show_goodput(result)
    worst = _show_worst(result.table)
    if bundle is not None and worst is not None:
        out.print(
            f"`atoll logs {shlex.quote(bundle)} --request {worst}` shows what the door noted of it.", soft_wrap=True
        )
    for note in result.info.notes:
        if note != client.verdict:
            out.print(note, soft_wrap=True)
    out.print(f"Prompts: {result.prompts}; --seed {result.seed} sends the same again.", soft_wrap=True)
    if client.request_bytes_mean is not None and client.request_bytes_max is not None:
        mean, most = show_bytes(client.request_bytes_mean), show_bytes(client.request_bytes_max)
        out.print(f"A request has {mean}, the longest {most}.")
    out.print(f"Kept in {result.folder}", soft_wrap=True)


def bench_json(result: BenchResult) -> dict[str, Any]:
    """The summary with what the load generator says of itself."""
    shown: dict[str, Any] = result.summary.model_dump(mode="json") | {
        "notes": [*result.summary.notes, *result.info.notes],
        "client": result.client,
        "model": result.info.model,
        "url": result.info.url,
        "source": result.info.source,
        "prompts": result.prompts,
        "seed": result.seed,
        "run": str(result.folder),
        "stopped": result.stopped,
        "trouble": result.trouble,
    }
    if result.steps:
        shown["steps"] = [
            {"load": part.step.load, "start_s": part.step.start_s, "end_s": part.step.end_s, "summary": part.summary}
            for part in result.steps
        ]
    return shown


def levels_json(levels: Sequence[Level]) -> list[dict[str, Any]]:
    return [
        {"load": level.load, "good_share": level.share, "runs": [bench_json(run) for run in level.runs]}
        for level in levels
    ]


def show_levels(levels: Sequence[Level]) -> None:
    """One row a level: rates, latencies, the share within the targets."""
    rows = [
        (
            f"{level.load:g}",
            str(len(level.runs)),
            f"{level.summary.requests.ok}/{level.summary.requests.sent}",
            f"{level.summary.output_tokens_per_s:,.0f}",
            show_seconds(level.summary.ttft_s.p50),
            show_seconds(level.summary.ttft_s.p95),
            show_seconds(level.summary.tpot_s.p95),
            "-" if level.share is None else f"{level.share:.1%}",
            "client!" if any(run.client.limited for run in level.runs) else "",
        )
        for level in levels
    ]
    columns = ("load", "runs", "ok", "tokens/s", "TTFT p50", "TTFT p95", "TPOT p95", "good", "")
    show_table("Levels of load", columns, rows, numbers=range(8))


def _show_steps(result: BenchResult) -> None:
    if not result.steps:
        return
    rows = [
        (
            f"{part.step.load:g}",
            f"{show_seconds(part.step.start_s)} - {show_seconds(part.step.end_s)}",
            f"{part.summary.requests.ok}/{part.summary.requests.sent}",
            f"{part.summary.output_tokens_per_s:,.0f}",
            show_seconds(part.summary.ttft_s.p50),
            show_seconds(part.summary.ttft_s.p95),
            show_seconds(part.summary.itl_s.p50),
        )
        for part in result.steps
    ]
    columns = ("load", "sent at", "ok", "tokens/s", "TTFT p50", "TTFT p95", "ITL p50")
    show_table("By step of load", columns, rows, numbers=(0, 2, 3, 4, 5, 6))


def _show_goodput(result: BenchResult) -> None:
    goodput = result.summary.goodput
    if goodput is not None:
        out.print(
            f"Goodput: {goodput.good} of {result.summary.measured} measured requests ({goodput.share:.1%}) kept within"
            f" the targets, {goodput.requests_per_s:.2f} requests/s"
        )


def _show_worst(table: RecordTable) -> str | None:
    """Gives the id of the one that waited longest, if it was sent with one."""
    measures = latencies(table)
    late = np.where(np.isnan(measures.ttft_s), measures.e2e_s, measures.ttft_s)
    order = [int(row) for row in np.argsort(-np.nan_to_num(late, nan=-1.0))[:_WORST] if not np.isnan(late[row])]
    rows = [
        (
            table.request_id[row] or str(table.number[row]),
            str(table.user[row]),
            show_seconds(float(table.sent_s[row])),
            show_seconds(float(measures.ttft_s[row])),
            show_seconds(float(measures.e2e_s[row])),
            str(table.output_tokens[row]),
            table.replica[row] or "-",
            table.error[row] or str(table.outcome[row]),
        )
        for row in order
    ]
    columns = ("request", "user", "sent at", "TTFT", "E2E", "tokens", "replica", "outcome")
    show_table("Longest to the first token", columns, rows, numbers=range(6))
    return table.request_id[order[0]] if order else None
