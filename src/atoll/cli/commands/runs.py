"""`atoll runs list|tag|forget|reindex`: the catalogue of runs."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Json
from atoll.cli.show import out, show_json, show_table
from atoll.units import show_seconds

_Catalog = Annotated[
    str | None,
    typer.Option("--catalog", metavar="URL", help="sqlite:PATH or mongodb://HOST/DATABASE; else $ATOLL_CATALOG."),
]
_RunId = Annotated[str, typer.Argument(metavar="RUN_ID", help="As `atoll runs list` shows it.")]


def register(app: typer.Typer) -> None:
    runs = typer.Typer(
        help="The catalogue of runs: list, tag, forget, reindex.",
        epilog="Example: `atoll runs list --model Qwen/Qwen2.5-32B-Instruct`",
        no_args_is_help=True,
    )
    app.add_typer(runs, name="runs")
    runs.command("list")(list_)
    runs.command("tag")(tag)
    runs.command("forget")(forget)
    runs.command("reindex")(reindex)


def list_(
    study: Annotated[str | None, typer.Option("--study", help="Only runs of this study.")] = None,
    model: Annotated[str | None, typer.Option("--model", help="Only runs of this model.")] = None,
    engine: Annotated[str | None, typer.Option("--engine", help="Only runs on this engine.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only runs with this tag.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="How many at most.")] = 50,
    catalog: _Catalog = None,
    json: Json = False,
) -> None:
    """List runs, newest first.

    Example: atoll runs list --study four-h100-nvl
    """
    from atoll.store.catalog import Query
    from atoll.workflows.runs import list_runs

    found = list_runs(Query(study=study, model=model, engine=engine, tag=tag, limit=limit), catalog=catalog)
    if json:
        show_json({"runs": list(found)})
        return
    if not found:
        out.print("No such runs in the catalogue.")
        return
    rows = [
        (
            entry.run_id,
            entry.source,
            datetime.fromtimestamp(entry.started_at, UTC).strftime("%Y-%m-%d %H:%M") if entry.started_at else "-",
            show_seconds(entry.figure("ttft_s", "p95")),
            f"{entry.figure('output_tokens_per_s') or 0:,.0f}",
            ", ".join(entry.tags),
        )
        for entry in found
    ]
    show_table(None, ("run", "source", "started (UTC)", "TTFT p95", "tok/s", "tags"), rows, numbers=(3, 4), wrap=(0, 5))


def tag(run_id: _RunId, tag: str, catalog: _Catalog = None) -> None:
    """Give a run a tag to find it by.

    Example: atoll runs tag four-h100-nvl-vllm:2xTP2:9f3c2a71d0 production
    """
    from atoll.workflows.runs import tag_run

    out.print(f"{run_id}: {', '.join(tag_run(run_id, tag, catalog=catalog).tags)}", soft_wrap=True)


def forget(run_id: _RunId, catalog: _Catalog = None) -> None:
    """Take a run out of the catalogue; its folder stays.

    Example: atoll runs forget four-h100-nvl-vllm:2xTP2:9f3c2a71d0
    """
    from atoll.workflows.runs import forget_run

    forget_run(run_id, catalog=catalog)
    out.print(f"{run_id} is forgotten; its folder stays.", soft_wrap=True)


def reindex(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="Below which runs are looked for.")] = Path(),
    catalog: _Catalog = None,
) -> None:
    """Make the catalogue anew from the runs' folders, with their tags; a run that was forgotten comes back.

    Example: atoll runs reindex ~/atoll
    """
    from atoll.cli.show import progress
    from atoll.workflows.runs import catalog_address, reindex_runs

    done = reindex_runs(folder, catalog=catalog)
    for trouble in done.troubles:
        progress.print(trouble, markup=False, soft_wrap=True)
    gone = f", {done.gone} that are gone taken out" if done.gone else ""
    out.print(
        f"{done.found} runs below {folder} are in {catalog_address(catalog)}{gone}.", markup=False, soft_wrap=True
    )
