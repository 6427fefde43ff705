"""What `atoll bench` prints at its end."""

import numpy as np

from atoll.analyse.summary import latencies
from atoll.cli.show import out, show_summary, show_table
from atoll.traffic.record import RecordTable
from atoll.units import show_seconds
from atoll.workflows.bench import BenchResult

_WORST = 5


def show_bench(result: BenchResult) -> None:
    """Headline with the client's own part, the summary, the worst requests, goodput."""
    client = result.client
    held = ""
    if client.users_asked and client.users_held is not None:
        held = f"{client.users_held:.1f} of {client.users_asked} users held; "
    own = show_seconds(client.ttft_share_s) if client.ttft_share_s is not None else "unknown"
    mark = " [red](not to be trusted)[/red]" if client.limited else ""
    out.print(f"TTFT p50 {show_seconds(result.summary.ttft_s.p50)}{mark}, of it the client's own share {own}; {held}")
    out.print(client.verdict, style="red" if client.limited else "")
    if client.backlog_max:
        out.print(f"At the worst, {client.backlog_max} requests were due and not yet sent.")
    show_summary(result.summary, title=result.info.name)
    _show_goodput(result)
    _show_worst(result.table)
    out.print(f"Prompts: {result.prompts}.")
    out.print(f"Kept in {result.folder}")


def _show_goodput(result: BenchResult) -> None:
    goodput = result.summary.goodput
    if goodput is not None:
        out.print(
            f"Goodput: {goodput.good} of {result.summary.requests.sent} requests ({goodput.share:.1%}) kept the"
            f" promise, {goodput.requests_per_s:.2f} requests/s"
        )


def _show_worst(table: RecordTable) -> None:
    measures = latencies(table)
    late = np.where(np.isnan(measures.ttft_s), measures.e2e_s, measures.ttft_s)
    order = [int(row) for row in np.argsort(-np.nan_to_num(late, nan=-1.0))[:_WORST] if not np.isnan(late[row])]
    rows = [
        (
            str(table.number[row]),
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
