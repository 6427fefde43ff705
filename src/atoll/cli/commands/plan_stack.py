"""atoll plan STACK: several models on one box."""

from pathlib import Path
from shlex import quote

from atoll.cli.show import bold, out, progress, show_json, table
from atoll.outside.files import refuse_to_overwrite, write_whole
from atoll.units import show_seconds
from atoll.workflows.stack import PlacedModel, StackPlan, plan_stack_file, stack_document


def plan_stack_command(stack: Path, *, path: Path | None, force: bool, json: bool) -> None:
    """Several models on one box, as the file asks for them."""
    if path is not None:
        refuse_to_overwrite(path, force=force)
    made = plan_stack_file(stack)
    if json:
        show_json(stack_document(made))
    else:
        show_stack(made)
    if path is not None:
        write_whole(path, made.stack.to_yaml())
        progress.print(f"Wrote {path}. Next: atoll render {quote(str(path))}", soft_wrap=True)


def show_stack(made: StackPlan) -> None:
    columns = ["model", "GPUs", "layout", "load", "TTFT p95", "TPOT p95", "tok/s", "targets"]
    out.print(table(made.stack.name, columns, [_row(one) for one in made.models], numbers=(4, 5, 6), wrap=()))
    out.print(bold("Why:", f" {made.why}"))


def _row(one: PlacedModel) -> list[str]:
    summary, replicas = one.summary, one.layout.replicas
    held = {True: "hold", False: "missed", None: "-"}[one.holds]
    part = f" ({one.place.memory:.0%})" if one.place.memory is not None else ""
    gpus = " ".join(",".join(map(str, replica.gpus)) for replica in replicas) + part
    shape = f"{len(replicas)}xTP{replicas[0].tensor_parallel}"
    head = [one.layout.name, gpus, shape, one.wish.workload.words]
    if summary is None:
        return [*head, "not known", "", "", held]
    return [
        *head,
        show_seconds(summary.ttft_s.p95),
        show_seconds(summary.tpot_s.p95),
        f"{summary.output_tokens_per_s:,.0f}",
        held,
    ]
