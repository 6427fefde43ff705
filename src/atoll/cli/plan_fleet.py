"""What `atoll plan` shows of several boxes."""

from pathlib import Path
from shlex import quote

from atoll.cli.show import bold, out, progress, table
from atoll.errors import InputError
from atoll.outside.files import refuse_to_overwrite, write_whole
from atoll.workflows.plan_fleet import FleetPlan, curve_of, explain_fleet, price_of, total_of

_BAR = 40  # columns of the longest bar


def show_fleet_plan(made: FleetPlan) -> None:
    """The boxes, the sentences, and users against boxes as bars."""
    goal = made.goal
    targets = [f"{what} p95 within {seconds:g} s" for what, seconds in _targets(made)]
    words = f", {goal.prompt:g} prompt and {goal.output:g} answer tokens" + "".join(f", {one}" for one in targets)
    out.print(bold(made.plans[0].plan.card.name, f" on a fleet, {goal.load}{words}"))
    columns = ["boxes", "layout", "a box carries", "its part", "GPUs", "kW", _an_hour(made)]
    rows = [
        [
            f"{share.count} x {share.of.kind.name}",
            share.of.choice.name,
            _load(share.of.most, made),
            _load(share.load, made),
            *_price(price_of(share)),
        ]
        for share in made.shares
    ]
    if len(rows) > 1:
        rows.append(
            [f"{made.boxes} in all", "", _load(made.carries, made), _load(goal.amount, made), *_price(total_of(made))]
        )
    if all(row[-1] == "-" for row in rows):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    out.print(table(None, columns, rows, numbers=range(2, len(columns))))
    for line in explain_fleet(made):
        out.print(f"- {line}")
    _show_curve(made)


def _an_hour(made: FleetPlan) -> str:
    currency = made.known.fleet.currency
    return "an hour" if currency is None else f"{currency} an hour"


def _targets(made: FleetPlan) -> list[tuple[str, float]]:
    slo = made.goal.slo
    return [(what, value) for what, value in (("TTFT", slo.ttft_s), ("TPOT", slo.tpot_s)) if value is not None]


def _load(load: float, made: FleetPlan) -> str:
    return f"{load:,.0f}" if made.goal.users is not None else f"{load:.3g}/s"


def _price(price: dict[str, float | None]) -> list[str]:
    watts, money = price["watts"], price["price_per_hour"]
    return [
        f"{price['gpus'] or 0:,.0f}",
        "-" if watts is None else f"{watts / 1000:,.1f}",
        "-" if money is None else f"{money:,.2f}",
    ]


def _show_curve(made: FleetPlan) -> None:
    points = [tuple(point.values()) for point in curve_of(made)]
    what = "users" if made.goal.users is not None else "requests/s"
    out.print(bold("Boxes and what they carry", f" ({what} within the targets):"))
    step = max(1, len(points) // 16)
    shown = [point for place, point in enumerate(points, start=1) if place % step == 0 or point[0] == made.boxes]
    most = max(load for _, load in shown) or 1
    for boxes, load in shown:
        mark = " <- asked" if boxes == made.boxes and made.met else ""
        figure = f"{load:,.0f}" if made.goal.users is not None else f"{load:.3g}"
        out.print(f"{boxes:>6,.0f}  {figure:>8}  {'#' * max(1, round(_BAR * load / most))}{mark}")


def paths_of(made: FleetPlan, path: Path) -> list[Path]:
    """The file itself for one kind of box; `layout-a.yaml`, `layout-old.yaml` for several."""
    if len(made.shares) == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{share.of.kind.name}{path.suffix}") for share in made.shares]


def write_layouts(made: FleetPlan, path: Path, *, force: bool) -> None:
    """One box's layout a kind; raises InputError where there is none to write, or a file is in the way."""
    if not made.shares:
        raise InputError("No box keeps the targets, so there is no layout to write.")
    for target, share in zip(paths_of(made, path), made.shares, strict=True):
        refuse_to_overwrite(target, force=force)
        write_whole(target, share.layout.to_yaml())
        words = f"Wrote {target}: {share.of.choice.name}, for each of {share.count} x {share.of.kind.name}."
        progress.print(f"{words} Next: atoll render {quote(str(target))}", soft_wrap=True)
