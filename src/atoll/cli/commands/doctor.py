"""atoll doctor"""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from atoll.cli.options import BoxFile, GpuName, Json, ModelName, Users
from atoll.cli.show import out, progress, show_json, visible, write_out
from atoll.doctor.checks import all_rules
from atoll.doctor.coverage import coverage_line, to_plain, understood_all
from atoll.doctor.examine import find_rule
from atoll.doctor.facts import Load
from atoll.doctor.finding import Finding
from atoll.doctor.show import count_line, show_github, show_mending, show_page, show_text, to_sarif
from atoll.errors import InputError
from atoll.outside.shell import RealShell
from atoll.workflows.diagnose import Diagnosis, Question, ask, correct, diagnose, with_advice, write_corrected


class Format(StrEnum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


def register(app: typer.Typer) -> None:
    app.command(
        "doctor",
        epilog="Example: `atoll doctor . --users 30 --box topo.txt --gpu H100-NVL-94GB`",
    )(doctor)


def doctor(
    paths: Annotated[list[str] | None, typer.Argument(metavar="PATH...", help="Files and folders to look at.")] = None,
    json_output: Json = False,
    sarif: Annotated[bool, typer.Option("--sarif", help="The same as --format sarif.")] = False,
    form: Annotated[Format, typer.Option("--format", help="How to print the findings.")] = Format.TEXT,
    fix: Annotated[
        bool, typer.Option("--fix", help="Write corrected files beside the originals; show the diff.")
    ] = False,
    risky: Annotated[
        bool, typer.Option("--risky", help="With --fix: also fixes that change behaviour; each says how.")
    ] = False,
    in_place: Annotated[bool, typer.Option("--in-place", help="With --fix: change the files themselves.")] = False,
    everything: Annotated[
        bool, typer.Option("--all", help="Tell small habits (log limit, restart, compile cache) one by one.")
    ] = False,
    select: Annotated[
        list[str] | None, typer.Option("--select", metavar="RULES", help="Only these rules or families: NG001,DC.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", metavar="RULES", help="Leave these out.")] = None,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="RULE", help="Show a rule's page; `all` lists the rules.")
    ] = None,
    users: Users = None,
    prompt: Annotated[int | None, typer.Option("--prompt", min=1, metavar="TOKENS", help="Prompt length.")] = None,
    output: Annotated[int | None, typer.Option("--output", min=1, metavar="TOKENS", help="Answer length.")] = None,
    box: BoxFile = None,
    gpu: GpuName = None,
    model: ModelName = None,
    live: Annotated[bool, typer.Option("--live", help="Ask this machine too: GPUs, Docker, containers.")] = False,
    advice: Annotated[
        bool, typer.Option("--advice/--no-advice", help="Simulate a better layout where GPUs and model are known.")
    ] = True,
) -> None:
    """What is wrong with these compose, nginx and layout files, what follows from it, and the fix.

    Exit 1 when a finding is an error. `--explain all` lists the rules.
    """
    if explain is not None:
        _explain(explain)
        return
    if not paths and not live:
        raise InputError(
            "Say which files to look at, as in `atoll doctor compose.yaml nginx.conf`, or `atoll doctor .`"
        )
    question = ask(
        paths or (),
        select=select or (),
        ignore=ignore or (),
        load=Load(users=users, prompt_tokens=prompt, output_tokens=output),
        box=box,
        gpu=gpu,
        model=model,
        shell=RealShell() if live else None,
    )
    chosen = Format.JSON if json_output else Format.SARIF if sarif else form
    if (risky or in_place) and not fix:
        word = "--risky" if risky else "--in-place"
        raise InputError(f"{word} goes with --fix, as in `atoll doctor . --fix {word}`.")
    diagnosis = _correct(question, risky=risky, in_place=in_place) if fix else diagnose(question)
    if diagnosis.saw_nothing and question.containers is None:
        progress.print("No file here is one that the doctor knows: Compose, nginx, Kubernetes, a layout, a capture.")
    told = diagnosis.told(everything=everything or bool(select))
    _show(with_advice(diagnosis, question) if advice else diagnosis, told, chosen)
    if diagnosis.has_errors:
        raise typer.Exit(1)


def _explain(number: str) -> None:
    family = [rule for rule in all_rules() if number == "all" or rule.id[:2] == number.strip().upper()]
    if family:
        for rule in family:
            out.print(f"{rule.id} {rule.severity:8}{rule.page.what}", markup=False, soft_wrap=True)
        return
    for line in show_page(find_rule(number)):
        out.print(line, markup=False, soft_wrap=True)


def _correct(question: Question, *, risky: bool, in_place: bool) -> Diagnosis:
    made = correct(question, risky=risky)
    for one in made.files:
        progress.print(one.diff, markup=False, soft_wrap=True)
    for path in write_corrected(made.files, in_place=in_place):
        progress.print(f"Written: {path}", markup=False, soft_wrap=True)
    for line in show_mending(made.mending, risky=risky):
        progress.print(line, markup=False, soft_wrap=True)
    left = count_line(made.left.told(everything=True), complete=understood_all(made.left.facts))
    progress.print(f"Left after the fixes: {left}", markup=False, soft_wrap=True)
    return made.left


def _show(diagnosis: Diagnosis, findings: Sequence[Finding], form: Format) -> None:
    sources = diagnosis.facts.sources
    if form is Format.JSON:
        document: dict[str, object] = {"findings": [finding.to_plain() for finding in findings]}
        document |= to_plain(diagnosis.facts)
        if diagnosis.advice:
            document["advice"] = [advice.to_plain() for advice in diagnosis.advice]
        show_json(document)
    elif form is Format.SARIF:
        write_out(json.dumps(to_sarif(findings, sources, str(Path.cwd())), indent=2, ensure_ascii=False) + "\n")
    elif form is Format.GITHUB:
        write_out("".join(visible(line) + "\n" for line in show_github(findings, str(Path.cwd()))))
    else:
        for style, line in show_text(findings, sources, complete=understood_all(diagnosis.facts)):
            out.print(line, style=style or None, markup=False, soft_wrap=True)
        out.print(coverage_line(diagnosis.facts), markup=False, soft_wrap=True)
        for advice in diagnosis.advice:
            out.print(f"\nSuggested layout: {advice.sentence}", markup=False, soft_wrap=True)
