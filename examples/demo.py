"""The whole road on one machine without a GPU: what `make demo` runs.

1. The example study in virtual time: eleven variants x ten minutes; its verdict says what is layout, what is version.
2. Its winner against one instance over all four cards, on emulated engines behind a real nginx. The simulator paces
   them, so that checks the plumbing and not the prediction.
"""

import argparse
import shutil
from pathlib import Path

from atoll.cli.commands.study_tables import show_study
from atoll.cli.main import guarded
from atoll.cli.show import out, progress
from atoll.errors import RunFailed
from atoll.workflows.report import report_study, verdict_of
from atoll.workflows.study import StudyResult, run_study

EXAMPLE = Path(__file__).parent / "four-h100-nvl"
ALL_CARDS = "1xTP4"


def demo(folder: Path) -> None:
    for earlier in ("simulated", "emulated"):
        shutil.rmtree(folder / earlier, ignore_errors=True)
    out.rule("In virtual time: eleven variants, ten minutes each")
    simulated = run_study(EXAMPLE / "study.yaml", engine="simulated", out=folder / "simulated", say=progress.print)
    show(simulated, folder / "report.html")
    winner = simulated.ranking[0].name
    out.rule(f"Real HTTP, emulated engines behind nginx: {winner} against {ALL_CARDS}, a check of the plumbing")
    names = list(dict.fromkeys((ALL_CARDS, winner)))
    emulated = run_study(
        EXAMPLE / "quick.yaml", engine="emulated", only=names, out=folder / "emulated", say=progress.print
    )
    show(emulated, folder / "report-emulated.html")
    out.print("The same on a page: run `.venv/bin/atoll serve` and open the link that it prints.", markup=False)
    if not any(variant.run is not None and variant.run.summary.requests.ok for variant in emulated.variants):
        raise RunFailed("No emulated variant answered one request; the sentences above say why.")


def show(result: StudyResult, path: Path) -> None:
    show_study(result)
    for sentence in verdict_of(result):
        out.print(sentence, markup=False)
    out.print(f"Report: {report_study(result, out=path)}")


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--out", type=Path, default=Path("demo-out"), help="folder to write to")
    guarded(lambda: demo(options.parse_args().out))
