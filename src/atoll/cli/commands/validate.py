"""atoll validate: predictions beside measurements."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli import options
from atoll.cli.show import out, progress, show_json, show_table
from atoll.units import GIB
from atoll.workflows.engine_options import NOTHING, EngineOptions
from atoll.workflows.validate import ErrorOf, GroupResult, Order, Validation, validate_file
from atoll.workflows.validate_memory import MemoryRow, MemoryValidation


def register(app: typer.Typer) -> None:
    app.command("validate", epilog="Example: `atoll validate measured.csv --json > validation.json`")(
        options.takes_engine(validate)
    )


def validate(
    table: Annotated[Path, typer.Argument(metavar="CSV", help="One row a run; docs/validation.md names the columns.")],
    rows: Annotated[bool, typer.Option("--rows", help="Show every row, not only the families.")] = False,
    engine: EngineOptions = NOTHING,
    json: options.Json = False,
) -> None:
    """Predict every row of a table of measurements or of start-up logs, and say how far off that is.

    An option of the engine holds for the rows that leave it open.
    """
    with progress.status("simulating") as status:
        found = validate_file(
            table, options=engine, on_row=lambda done, total: status.update(f"simulating row {done} of {total}")
        )
    if isinstance(found, MemoryValidation):
        _show_starts(found, rows=rows, json=json)
        return
    if json:
        show_json({"rows": [_without_blanks(row.model_dump()) for row in found.rows], "groups": found.groups})
        return
    if rows:
        _show_rows(found)
    _show_groups(found)


def _show_starts(found: MemoryValidation, *, rows: bool, json: bool) -> None:
    if json:
        plain = [_without_blanks(row.model_dump()) for row in found.rows]
        show_json({"rows": plain, "errors": found.errors, "refusals": found.refusals})
        return
    if rows:
        show_table(
            "Measured and predicted, on each GPU",
            (
                "row",
                "KV tokens",
                "predicted",
                "KV GiB",
                "predicted",
                "weights GiB",
                "predicted",
                "started",
                "predicted",
            ),
            [_start_cells(row) for row in found.rows if row.measured and row.predicted],
            numbers=range(1, 7),
            wrap=(0,),
        )
    show_table(
        "Error of the prediction",
        ("figure", "rows", "median", "p90", "worst", "bias"),
        [
            (
                one.what,
                str(one.n),
                f"{one.median_abs:.1%}",
                f"{one.p90_abs:.1%}",
                f"{one.worst:+.1%}",
                f"{one.bias:+.1%}",
            )
            for one in found.errors
        ],
        numbers=range(1, 6),
        wrap=(0,),
    )
    refusals = found.refusals
    out.print(
        f"{refusals.foreseen} of {refusals.refused} refusals to start foreseen; {refusals.refused_wrongly} of"
        f" {refusals.started} that started would have been refused"
    )
    skipped = [row for row in found.rows if row.skipped]
    out.print(f"{len(found.rows) - len(skipped)} rows predicted, {len(skipped)} skipped")
    for reason, count in _reasons(row.skipped or "" for row in skipped):
        out.print(f"  {count:4d}  {reason}")


def _start_cells(row: MemoryRow) -> tuple[str, ...]:
    measured, predicted = row.measured, row.predicted
    assert measured is not None
    assert predicted is not None
    shown = (
        _count(measured.kv_tokens),
        _count(predicted.kv_tokens),
        *map(_gib, (measured.kv_bytes, predicted.kv_bytes, measured.weight_bytes, predicted.weight_bytes)),
    )
    return (row.id, *shown, _started(measured.started), _started(predicted.fits))


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _gib(value: int | None) -> str:
    return "-" if value is None else f"{value / GIB:.2f}"


def _started(value: bool | None) -> str:
    return "-" if value is None else "yes" if value else "no"


def _without_blanks(row: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in row.items() if value is not None}


def _show_groups(found: Validation) -> None:
    show_table(
        "Error of the prediction: mean absolute, and in brackets the median",
        ("family", "rows", "TTFT", "TPOT", "E2E", "tok/s", "order"),
        [_cells(group) for group in found.groups],
        numbers=range(1, 6),
        wrap=(0,),
    )
    if any(group.order_by_latency for group in found.groups):
        out.print("order: pairs of splits ranked rightly, by latency and by throughput of a GPU.")
    skipped = [row for row in found.rows if row.skipped]
    out.print(f"{len(found.rows) - len(skipped)} rows predicted, {len(skipped)} skipped")
    for reason, count in _reasons(row.skipped or "" for row in skipped):
        out.print(f"  {count:4d}  {reason}")


def _cells(group: GroupResult) -> tuple[str, ...]:
    order = f"{_order(group.order_by_latency)}, {_order(group.order_by_gpu_throughput)}"
    errors = (group.ttft, group.tpot, group.e2e, group.throughput)
    return (group.family, str(group.n), *(_error(error) for error in errors), order if group.order_by_latency else "-")


def _error(error: ErrorOf | None) -> str:
    return "-" if error is None else f"{error.mean_abs:.0%} ({error.median_abs:.0%})"


def _order(order: Order | None) -> str:
    return "-" if order is None else f"{order.right}/{order.cases}"


def _reasons(reasons: Iterable[str]) -> list[tuple[str, int]]:
    return Counter(reasons).most_common()


def _show_rows(found: Validation) -> None:
    show_table(
        None,
        ("row", "TTFT s", "predicted", "TPOT ms", "predicted", "tok/s", "predicted"),
        [
            (
                row.id,
                *_pair(row.measured.ttft_s, row.predicted.ttft_s, 1),
                *_pair(row.measured.tpot_s, row.predicted.tpot_s, 1e3),
                *_pair(row.measured.output_tokens_per_s, row.predicted.output_tokens_per_s, 1),
            )
            for row in found.rows
            if row.measured is not None and row.predicted is not None
        ],
        numbers=range(1, 7),
        wrap=(0,),
    )


def _pair(measured: float | None, predicted: float | None, scale: float) -> tuple[str, str]:
    return tuple("-" if value is None else f"{value * scale:.4g}" for value in (measured, predicted))  # type: ignore[return-value]
