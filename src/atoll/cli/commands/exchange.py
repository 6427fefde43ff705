"""`atoll exchange`: runs of other load generators in, runs of ours out."""

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Force, Json, OutPath

Tool = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="TOOL",
        help="vllm, aiperf, guidellm, inference-perf, evalscope, genai-bench, locust, csv, ...; else tried.",
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        metavar="TOOL",
        help="vllm, aiperf, guidellm, inference-perf, evalscope, genai-bench, locust, csv, prometheus, ...",
    ),
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(
        help="Runs of other load generators in, runs of ours out.",
        epilog="Example: `atoll exchange import result.json -o runs/theirs`",
        no_args_is_help=True,
    )
    group.command("import")(import_)
    group.command("export")(export)
    group.command("trace")(trace)
    app.add_typer(group, name="exchange")


def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A result of another load generator.")],
    tool: Tool = None,
    out: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Keep a run of vllm bench serve, AIPerf or GuideLLM as a run folder, to compare it with ours.

    Example: atoll exchange import result.json -o runs/theirs && atoll compare runs/ours runs/theirs
    """
    from atoll.cli.show import out as console
    from atoll.cli.show import show_json, show_summary
    from atoll.workflows.exchange import import_run

    kept = import_run(file, folder=out, tool=tool, force=force)
    if json:
        shown = [
            {"run": str(place), "tool": one.tool, "notes": one.notes, "summary": one.summary} for place, one in kept
        ]
        show_json({"runs": shown})
        return
    for place, one in kept:
        show_summary(one.summary, title=f"{place} (by {one.tool})")
        for note in one.notes:
            console.print(f"Note: {note}.")


def trace(
    log: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="The door's access log, vLLM's log, or LiteLLM's or Open WebUI's export."),
    ],
    out: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Make a trace of your own traffic: when, how long, which session; not a word of anybody's prompt.

    `atoll bench --trace`, and `workload: {trace: FILE}` of a layout or a study, take it.

    Example: atoll exchange trace access.log -o mine.csv && atoll bench http://127.0.0.1:8080 --trace mine.csv
    """
    from atoll.cli.show import out as console
    from atoll.cli.show import progress, show_json
    from atoll.outside.files import refuse_to_overwrite, write_whole
    from atoll.workflows.traces import trace_of_log

    found = trace_of_log(log)
    if out is not None:
        refuse_to_overwrite(out, force=force)
        write_whole(out, found.text)
    if json:
        rows = [
            {
                "due_s": row.due_s,
                "session": row.session,
                "prompt_tokens": row.prompt_tokens,
                "output_tokens": row.output_tokens,
            }
            for row in found.rows
        ]
        show_json({"source": found.source, "note": found.note, "rows": rows})
    elif out is None:
        console.print(found.text, end="", markup=False, highlight=False, soft_wrap=True)
    else:
        sessions = len({row.session for row in found.rows if row.session is not None})
        console.print(
            f"{len(found.rows)} requests in {sessions} sessions over {found.rows[-1].due_s:,.0f} s: {out}",
            soft_wrap=True,
        )
    if found.note is not None:
        progress.print(f"Note: {found.note}.", markup=False, soft_wrap=True)


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")],
    to: To = "csv",
    out: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write a run in the format of another tool.

    Example: atoll exchange export runs/bench-20261122-183000 --to vllm -o result.json
    """
    from atoll.cli.show import show_json, write_out
    from atoll.outside.files import refuse_to_overwrite, write_whole
    from atoll.workflows.exchange import export_run

    if out is not None:
        refuse_to_overwrite(out, force=force)
    text = export_run(run, to)
    if out is not None:
        write_whole(out, text)
    if json:
        show_json({"run": str(run), "to": to, "bytes": len(text.encode()), "file": None if out is None else str(out)})
    elif out is None:
        write_out(text)
