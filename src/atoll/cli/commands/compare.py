"""`atoll compare`: two or more runs held against the first."""

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.gates import close_gates, gates_of, show_gates, write_junit
from atoll.cli.options import FailIf, Json, Junit
from atoll.cli.show import out, show_bands, show_json, show_table
from atoll.traffic.record import Source
from atoll.units import show_seconds


def register(app: typer.Typer) -> None:
    app.command()(compare)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN RUN...", help="Folders of runs; the first is the baseline.")
    ],
    fail_if: FailIf = None,
    junit: Junit = None,
    json: Json = False,
) -> None:
    """Compare runs with the first: TTFT, TPOT and E2E with 95 % intervals.

    `--fail-if 'ttft_p95 > +10%'` ends with exit 1 where a run is beyond chance more than 10 % above the first.

    'No clear difference' is said where the interval spans 0; of two simulated runs, 'within the band' where the band of
    their ratio spans 1.

    Example: atoll compare runs/four-h100-nvl-simulated/1xTP4 runs/four-h100-nvl-simulated/2xTP2
    """
    from atoll.workflows.compare import compare_folders, judge_pairs

    gates = gates_of(fail_if or (), of_two=True)
    result = compare_folders(runs)
    judged = judge_pairs(result, gates)
    suite = f"atoll compare {' '.join(result.names)}"
    if json:
        show_json(
            {
                "runs": [
                    {
                        "name": run.name,
                        "engine": run.info.engine,
                        "source": run.info.source,
                        "summary": run.summary,
                        "band": None if band is None else band.around_means(run.summary),
                    }
                    for run, band in zip(result.runs, result.bands, strict=True)
                ],
                "comparisons": list(result.comparisons),
                "notes": list(result.notes),
                **({"gates": judged} if judged else {}),
            }
        )
        write_junit(judged, junit, suite=suite)
        close_gates(judged)
        return
    sources = {name: run.info.source for name, run in zip(result.names, result.runs, strict=True)}
    for comparison in result.comparisons:
        _show(comparison, sources)
    bands = dict(zip(result.names, result.bands, strict=True))
    show_bands({name: bands[name] for name, source in sources.items() if source is Source.SIMULATED})
    out.print("Intervals: 95 %, bootstrap over requests, blocked by user.")
    for note in result.notes:
        out.print(note, style="yellow", markup=False, soft_wrap=True)
    show_gates(judged)
    write_junit(judged, junit, suite=suite)
    close_gates(judged)


def _show(comparison: object, sources: dict[str, Source]) -> None:
    from atoll.analyse.compare import Comparison
    from atoll.cli.commands.study_tables import difference_words

    assert isinstance(comparison, Comparison)
    rows = [
        (
            f"{difference.measure.removesuffix('_s').upper()} {difference.statistic}",
            show_seconds(difference.first),
            show_seconds(difference.second),
            difference_words(difference),
        )
        for difference in comparison.differences
    ]
    columns = ("", *(f"{name}\n{sources[name]}" for name in (comparison.first, comparison.second)), "difference")
    show_table(f"{comparison.second} against {comparison.first}", columns, rows, numbers=(1, 2))
