"""`atoll report`: the page of a run or a study, written again."""

from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import Force, Json, Language, OutPath, spoken
from atoll.cli.show import out, show_json
from atoll.outside.files import refuse_to_overwrite


def register(app: typer.Typer) -> None:
    app.command()(report)


def report(
    path: Annotated[Path, typer.Argument(metavar="RUN|STUDY", help="A run's folder, a study's folder or its file.")],
    slides: Annotated[
        bool, typer.Option("--slides", help="One page for a slide instead, slide.pdf; -o names a .pdf, .png or .svg.")
    ] = False,
    lang: Language = None,
    page: OutPath = None,
    force: Force = False,
    json: Json = False,
) -> None:
    """Write one self-contained HTML page of a run or a study, and its charts as SVG and PNG beside it.

    Example: atoll report runs/four-h100-nvl-simulated --lang ko -o report.ko.html
    """
    from atoll.workflows.report import charts_folder, report_path, slide_path

    if page is not None:
        refuse_to_overwrite(page, force=force)
    write = slide_path if slides else report_path
    written = write(path, lang=spoken(lang), out=page)
    if json and slides:
        show_json({"slide": str(written)})
    elif json:
        show_json({"report": str(written), "charts": str(charts_folder(written))})
    else:
        out.print(f"{'Slide' if slides else 'Report'}: {written}", markup=False, soft_wrap=True)
