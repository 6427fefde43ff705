"""atoll plan: the layouts of a model on a box, best first."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from atoll.cli import options
from atoll.cli.commands.plan_stack import plan_stack_command
from atoll.cli.plan_fleet import show_fleet_plan, write_layouts
from atoll.cli.show import bold, out, progress, show_json, table
from atoll.cli.warn import show_warnings
from atoll.errors import InputError
from atoll.inventory.catalog import MOST_BOX_GPUS
from atoll.layout.layout import Policy
from atoll.model.read import read_model
from atoll.outside.files import refuse_to_overwrite, write_whole
from atoll.plan.choice import Choice
from atoll.plan.enumerate import Wanted
from atoll.plan.explain import explain_choice, explain_place, explain_tuning
from atoll.plan.goal import Favour, Goal
from atoll.plan.outlook import Outlook
from atoll.plan.simulate import Watch, unwatched
from atoll.report.sentences import tell, tell_words
from atoll.units import show_seconds
from atoll.workflows.boxes import named_box
from atoll.workflows.engine_options import EITHER, NOTHING, EngineOptions
from atoll.workflows.load import LoadOptions, load_of, slo_of
from atoll.workflows.plan import (
    Plan,
    check_chart,
    check_something_fits,
    context_limit,
    kinds_named,
    make_goal,
    merge_rejected,
    plan_document,
    plan_model,
    save_chart,
    shown_flags,
    verdict,
)
from atoll.workflows.plan_fleet import FleetPlan, fleet_of, fleet_plan_document, plan_fleet
from atoll.workflows.profiles import read_profile

MOST_WATCHED = 12  # rows of the table that fills; a terminal cannot take back more than it shows


def register(app: typer.Typer) -> None:
    app.command(
        "plan",
        epilog="Example: `atoll plan --box topo.txt --gpu H100-NVL-94GB --model Qwen/Qwen2.5-32B-Instruct --users 30"
        " --prompt 2000 --output 1500 --slo-ttft 1s -o layout.yaml`",
    )(options.takes_load(options.takes_engine(plan)))


def plan(
    stack: Annotated[
        Path | None, typer.Argument(metavar="[STACK]", help="A stack.yaml: several models on one box.")
    ] = None,
    model: options.ModelName = None,
    box: options.BoxFile = None,
    gpu: options.GpuName = None,
    gpus: options.GpuCount = None,
    load: LoadOptions = LoadOptions(),
    slo_ttft: options.SloTtft = None,
    slo_tpot: options.SloTpot = None,
    favour: Annotated[
        Favour, typer.Option(help="What makes a layout better: the whole answer or its first token.")
    ] = Favour.ANSWER,
    tp: options.TensorParallel = None,
    replicas: options.Replicas = None,
    policy: options.PolicyName = None,
    engine: EngineOptions = NOTHING,
    profile: options.Profile = None,
    formula: Annotated[bool, typer.Option("--formula", help="Do not simulate; the formula alone.")] = False,
    boxes: Annotated[
        int | None, typer.Option("--boxes", min=1, metavar="N", help="At most N such boxes: how many carry the load?")
    ] = None,
    fleet: Annotated[
        Path | None, typer.Option("--fleet", metavar="FILE", help="The boxes that there are, as fleet.yaml has them.")
    ] = None,
    spare: Annotated[
        int | None,
        typer.Option("--spare", min=0, metavar="N", help="So many boxes may be lost; with --boxes, --fleet."),
    ] = None,
    chart: Annotated[
        Path | None, typer.Option("--chart", metavar="FILE", help="Draw users against TTFT and throughput: .png, .svg.")
    ] = None,
    path: options.OutPath = None,
    why: Annotated[
        str | None, typer.Option("--why", metavar="NAME", help="Explain this layout of the table in full, too.")
    ] = None,
    lang: options.Language = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Which layout serves a model fastest on a box: every one worth looking at, ranked, with the reasons."""
    if stack is not None:
        plan_stack_command(stack, path=path, force=force, json=json)
        return
    if chart is not None:
        check_chart(chart)
    if model is None:
        raise InputError("Say which model: --model NAME, such as --model Qwen/Qwen2.5-32B-Instruct.")
    language = options.spoken(lang)
    if path is not None:
        refuse_to_overwrite(path, force=force)
    settled = replace(engine, kv_cache_dtype=None) if engine.kv_cache_dtype == EITHER else engine
    several = boxes is not None or fleet is not None or (gpus or 0) > MOST_BOX_GPUS
    goal = make_goal(load_of(None, load), slo_of(None, slo_ttft, slo_tpot), favour, several=several)
    wanted = Wanted(
        tensor_parallel=tp,
        replicas=replicas,
        policy=parse_policy(policy),
        fp8_cache=engine.kv_cache_dtype == EITHER,
        pipeline_parallel=engine.pp,
    )
    planned = partial(
        plan_model,
        model=model,
        wanted=wanted,
        flags=settled.flags(),
        engine_version=engine.version,
        simulate=not formula,
        profile=read_profile(profile),
    )
    known = fleet_of(fleet, boxes=boxes, spare=spare, capture=box, gpu=gpu, gpus=gpus)
    if known is not None:
        card = read_model(model)
        found = plan_fleet(
            known, goal, card=card, plan_one=lambda one, part: planned(card, one, part), spare=spare or 0
        )
        _show_fleet(found, path, force=force, json=json)
        return
    with _watching(goal) as watch:
        made = planned(read_model(model), named_box(capture=box, gpu=gpu, gpus=gpus), goal, watch=watch)
    if json:
        show_json(plan_document(made))
    elif made.search.choices:
        _check_asked(made, why)
        show_plan(made, language, why=why)
    check_something_fits(made)
    from atoll.workflows.diagnose import diagnose_layout  # the tables need not wait for the doctor

    show_warnings(diagnose_layout(made.best.layout))
    if chart is not None:
        save_chart(made, chart)
        progress.print(f"Wrote {chart}")
    if path is not None:
        write_whole(path, made.best.layout.to_yaml())
        progress.print(f"Wrote {path}: {made.best.name}. Next: atoll render {quote(str(path))}", soft_wrap=True)


def _show_fleet(found: FleetPlan, path: Path | None, *, force: bool, json: bool) -> None:
    if json:
        show_json(fleet_plan_document(found))
    else:
        show_fleet_plan(found)
    if path is not None:
        write_layouts(found, path, force=force)


def parse_policy(text: str | None) -> Policy | None:
    """A policy by name."""
    if text is None:
        return None
    try:
        return Policy(text)
    except ValueError:
        names = ", ".join(policy.value for policy in Policy)
        raise InputError(f"--policy {text} is not one of {names}.") from None


def show_plan(made: Plan, lang: str = "en", *, why: str | None = None) -> None:
    """All of it in a language; what stands in report/templates/sentences.toml is told so."""
    goal = made.search.goal
    on = (
        f"on {kinds_named(made.workbench.kinds)}, {goal.load}, {goal.prompt:g} prompt and {goal.output:g} answer tokens"
    )
    out.print(bold(made.card.name, f" {tell(on, lang)}"))
    _show_ranking(made, lang)
    reasons = tell(explain_choice(made.best, made.search, made.workbench), lang)
    out.print(bold(tell(f"Why {made.best.name}:", lang), f" {reasons}"))
    out.print(bold(tell("Flags:", lang), f" {_flags(made.best)}"))
    _show_tuning(made, lang)
    _show_losers(made, lang, why)
    _show_lines([*(tell(line, lang) for line in verdict(made)), *_warnings(made, lang)])
    _show_rejected(made, lang)
    out.print(tell(_next(made.best), lang))


def _show_losers(made: Plan, lang: str, asked: str | None) -> None:
    """The next three, a line each, and in full the one that was asked for."""
    losers = made.search.choices[1:]
    if losers:
        out.print(bold(tell(f"Behind {made.best.name}:", lang), f" {tell_words('(--why NAME says more)', lang)}"))
    for choice in losers[:3]:
        out.print(f"  {choice.name}: {tell(explain_place(choice, made.search), lang)}")
    for choice in made.search.choices:
        if choice.name == asked and choice is not made.best:
            why = explain_choice(choice, made.search, made.workbench)
            out.print(bold(tell(f"Why {choice.name}:", lang), f" {tell(why, lang)}"))


def _check_asked(made: Plan, asked: str | None) -> None:
    known = [choice.name for choice in made.search.choices]
    if asked is not None and asked not in known and known:
        raise InputError(f"--why {asked}: no such layout is in the table; there are {', '.join(known)}.")


def _show_ranking(made: Plan, lang: str) -> None:
    choices = made.search.choices
    out.print(ranking_table(choices, made.search.goal, made.card.max_context))
    for note in (*_legend(choices), *_legend_of_context(made), *_legend_of_most(made)):
        out.print(tell(note, lang))


def ranking_table(choices: Sequence[Choice], goal: Goal, max_context: int) -> Table | Text:
    """The choices with their figures, as far as they are known; a context below the model's `max_context` tokens."""
    columns = ["", "layout", "GPUs", "TTFT p50", "p95", "TPOT", "answer", "tok/s"]
    rows = [_row(place, choice) for place, choice in enumerate(choices, start=1)]
    limits = [context_limit(choice, max_context) for choice in choices]
    if any(limit is not None for limit in limits):
        columns.append("context")
        for row, limit in zip(rows, limits, strict=True):
            row.append("full" if limit is None else f"{limit:,}")
    if any(choice.most is not None for choice in choices):
        columns.append("in target" if goal.has_targets else "keeps up")
        for row, choice in zip(rows, choices, strict=True):
            row.append(_most(choice))
    return table(None, columns, rows, numbers=range(3, len(columns)), wrap=(2,))


@contextmanager
def _watching(goal: Goal) -> Iterator[Watch]:
    """On a terminal the table as it fills, which goes when the plan is there; without one nothing."""
    if not progress.is_terminal:
        yield unwatched
        return
    with Live(console=progress, transient=True, auto_refresh=False) as live:

        def show(choices: Sequence[Choice], doing: str) -> None:
            shown = ranking_table(choices[:MOST_WATCHED], goal, sys.maxsize)
            more = f", {len(choices) - MOST_WATCHED} more layouts" if len(choices) > MOST_WATCHED else ""
            live.update(Group(shown, Text(f"~ by formula; {doing} ...{more}")), refresh=True)

        yield show


def _legend(choices: Sequence[Choice]) -> Iterator[str]:
    """What the table's marks mean, and how nginx balances."""
    named: dict[str, list[str]] = {}
    for choice in choices:
        if len(choice.layout.replicas) > 1:
            named.setdefault(str(choice.layout.router.policy), []).append(choice.name)
    usual, *others = sorted(named, key=lambda policy: -len(named[policy])) or [""]
    if usual:
        rest = "".join(f", {', '.join(named[policy])} by {policy}" for policy in others)
        yield f"Replicas are behind nginx, balanced by {usual}{rest}."
    if any(choice.predicted.saturated for choice in choices):
        yield "grows: requests come faster than this layout answers them, so the queue never ends."
    simulated = [choice.predicted.simulated for choice in choices]
    if not all(simulated):
        yield "~ by formula; the others were simulated as well." if any(simulated) else "~ by formula."


def _legend_of_context(made: Plan) -> Iterator[str]:
    if any(context_limit(choice, made.card.max_context) is not None for choice in made.search.choices):
        full = f"{made.card.max_context:,}"
        yield f"context: tokens of a prompt and its answer; the KV cache has no room for all of the model's {full}."


def _legend_of_most(made: Plan) -> Iterator[str]:
    """What the last column counts, and which of its figures are simulated."""
    found = [choice.most for choice in made.search.choices if choice.most is not None]
    if not found:
        return
    goal = made.search.goal
    what = "back-to-back users" if goal.users is not None else "requests/s"
    column = (
        f"in target: {what} within the targets" if goal.has_targets else f"keeps up: {what} without a growing queue"
    )
    ways = {most.simulated for most in found}
    how = "simulated; ~ by formula" if len(ways) > 1 else "simulated" if True in ways else "by formula"
    seated = ", each with a seat" if goal.users is not None and goal.slo.ttft_s is None else ""
    yield f"{column}{seated}, {how}."


def _most(choice: Choice) -> str:
    """`105`, `~63` by formula, `2.4/s`."""
    most = choice.most
    if most is None:
        return "-"
    figure = f"{most.users:,}" if most.users is not None else f"{most.load:g}/s"
    return figure if most.simulated else f"~{figure}"


def _warnings(made: Plan, lang: str) -> Iterable[str]:
    """Each warning once, under the layouts that have it."""
    named: dict[str, list[str]] = {}
    for choice in made.search.choices:
        for warning in choice.warnings:
            named.setdefault(warning, []).append(choice.name)
    return [f"! {', '.join(names)}: {tell(warning, lang)}" for warning, names in named.items()]


def _row(place: int, choice: Choice) -> list[str]:
    predicted, summary = choice.predicted, choice.predicted.summary
    return [
        str(place) + ("" if predicted.simulated else "~"),
        choice.name + (" !" if choice.warnings else ""),
        _groups([replica.gpus for replica in choice.layout.replicas]),
        _waited(predicted, summary.ttft_s.p50),
        _waited(predicted, summary.ttft_s.p95),
        show_seconds(summary.tpot_s.p50),
        _waited(predicted, summary.e2e_s.mean),
        f"{summary.output_tokens_per_s:,.0f}",
    ]


def _groups(replicas: Sequence[Sequence[int]]) -> str:
    """`0,1 2,3`, `0-3 4-7`; `each of 0-7` where many replicas have one GPU each."""
    if len(replicas) > 4 and all(len(gpus) == 1 for gpus in replicas):
        return f"each of {_group([gpu for gpus in replicas for gpu in gpus])}"
    return " ".join(map(_group, replicas))


def _group(gpus: Sequence[int]) -> str:
    """`0,1`, and from three neighbours on `0-3`."""
    neighbours = len(gpus) > 2 and list(gpus) == list(range(gpus[0], gpus[0] + len(gpus)))
    return f"{gpus[0]}-{gpus[-1]}" if neighbours else ",".join(map(str, gpus))


def _waited(predicted: Outlook, seconds: float | None) -> str:
    """A time with waiting in it; it has no end where more requests come than are answered."""
    return "grows" if predicted.saturated else show_seconds(seconds)


def _flags(choice: Choice) -> str:
    """As on vLLM's command line."""
    flags = shown_flags(choice.layout.flags)
    words = [f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in flags.items()]
    return " ".join(words)


def _show_lines(lines: Iterable[str]) -> None:
    for line in lines:
        out.print(f"- {line}")


def _show_tuning(made: Plan, lang: str) -> None:
    """What else was simulated for the winner."""
    lines = list(explain_tuning(made.best, made.search.goal))
    if lines:
        what = "TTFT p95" if made.search.goal.favour is Favour.FIRST_TOKEN else "the time of a whole answer"
        out.print(bold(tell(f"Tried beside them (change of {what}):", lang)))
    for line in lines:
        out.print(f"  {tell(line, lang)}")


def _show_rejected(made: Plan, lang: str) -> None:
    rejected = list(merge_rejected(made.search.rejected))
    if rejected:
        out.print(bold(tell("Rejected", lang)))
        for one in rejected:
            out.print(f"  {one.name}: {tell(one.why, lang)}")


def _next(best: Choice) -> str:
    return f"Next: save it with -o {best.name.lower()}.yaml, then `atoll render {best.name.lower()}.yaml --to compose`."
