"""A plan for the page: rows by formula at once, then as they are simulated, then the whole answer.

The formula's rows are made where they are asked for; the simulated plan is worked out by a process of its own
(web/worker.py), which says each row as it knows it.
"""

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from markupsafe import Markup

from atoll.cost.band import relative_band
from atoll.errors import InputError, NothingFits, RunFailed
from atoll.inventory.box import Box
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.outside.workers import Say, Workers
from atoll.plan.choice import Choice
from atoll.plan.explain import explain_choice, explain_tuning
from atoll.plan.goal import Goal
from atoll.report.crossover import crossover_chart
from atoll.report.page import inline_chart
from atoll.units import show_seconds
from atoll.workflows.diagnose import diagnose_layout
from atoll.workflows.plan import (
    Plan,
    check_something_fits,
    choice_document,
    context_limit,
    kinds_named,
    merge_rejected,
    plan_model,
    shown_flags,
    verdict,
)

REMEMBERED = 64  # answers


@dataclass(frozen=True, kw_only=True)
class PlanQuestion:
    """All that a plan depends on; the same question always has the same answer."""

    box: Box
    card: ModelCard
    model: str  # what the layouts call it: a name, or the folder of its config.json
    goal: Goal

    @cached_property
    def key(self) -> str:
        parts = (self.model, *(one.model_dump_json() for one in (self.box, self.card, self.goal)))
        return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A choice's line of the table; seconds, tokens, requests per second."""

    name: str
    groups: tuple[tuple[int, ...], ...]
    policy: str | None  # None: one replica, so nothing is balanced
    simulated: bool
    saturated: bool  # requests come faster than they are answered
    meets: bool  # the targets; True where there are none
    ttft_p50_s: float | None
    ttft_p95_s: float | None
    tpot_p50_s: float | None
    e2e_mean_s: float | None
    output_tokens_per_s: float
    band: dict[str, Any] | None  # of the means; None: no band is known
    context: int | None  # tokens of the longest request, where that is less than the model's own
    idle: tuple[int, ...]
    most: str | None  # users, or requests per second, that it carries
    most_simulated: bool
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """The rows as far as they are known, best first, and what is done next."""

    rows: tuple[Row, ...]
    doing: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A choice with all that is shown of it."""

    row: Row
    layout: Layout
    why: str
    flags: str  # as on vLLM's command line
    tried: tuple[str, ...]  # other values that were simulated, and which was kept
    memory: dict[str, int]
    near_best: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The whole plan."""

    title: str  # model and cards
    choices: tuple[Chosen, ...]
    rejected: tuple[tuple[str, str], ...]  # name, why
    verdict: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=())  # the doctor's, of the best layout
    chart: Markup | None = None
    nothing_fits: str | None = None  # the sentence, where there is no choice

    def choice(self, name: str) -> Chosen:
        """Raises InputError when the plan has no such choice."""
        for one in self.choices:
            if one.row.name == name:
                return one
        known = ", ".join(one.row.name for one in self.choices) or "none"
        raise InputError(f"This plan has no layout {name[:60]!r}; it has {known}.")


def formula_rows(question: PlanQuestion) -> Progress:
    """The table by formula, without other loads: a few hundredths of a second.

    Raises:
        InputError: the request does not fit the model's context, or no layout fits the box.
    """
    plan = plan_model(question.card, question.box, question.goal, model=question.model, simulate=False, vary_load=False)
    check_something_fits(plan)
    return Progress(rows=_rows(plan.search.choices, question), doing="")


def answer_plan(question: PlanQuestion, say: Say) -> None:
    """Say Progress for each row that is simulated, then the Answer."""

    def watch(choices: Sequence[Choice], doing: str) -> None:
        say(Progress(rows=_rows(choices, question), doing=doing))

    plan = plan_model(question.card, question.box, question.goal, model=question.model, watch=watch)
    say(answer_of(plan, question))


def answer_of(plan: Plan, question: PlanQuestion) -> Answer:
    search = plan.search
    found = search.choices
    return Answer(
        title=f"{plan.card.name} · {kinds_named(plan.workbench.kinds)}",
        choices=tuple(_chosen(choice, plan, question) for choice in found),
        rejected=tuple((one.name, one.why) for one in merge_rejected(search.rejected)),
        verdict=tuple(verdict(plan)),
        notes=plan.workbench.box.notes,
        warnings=tuple(f"{one.what} {one.fix}".strip() for one in _warnings(plan)),
        chart=inline_chart(crossover_chart(search) | {"background": "transparent"}) if search.curves else None,
        nothing_fits=_why_nothing_fits(plan),
    )


def _why_nothing_fits(plan: Plan) -> str | None:
    try:
        check_something_fits(plan)
    except NothingFits as error:
        return str(error)
    return None


def _warnings(plan: Plan) -> list[Any]:
    found = diagnose_layout(plan.best.layout) if plan.search.choices else ()
    return [finding for finding in found if finding.severity != "info"]


def _chosen(choice: Choice, plan: Plan, question: PlanQuestion) -> Chosen:
    document = choice_document(plan, choice)
    return Chosen(
        row=row_of(choice, question),
        layout=choice.layout,
        why=explain_choice(choice, plan.search, plan.workbench),
        flags=_flags(choice),
        tried=tuple(explain_tuning(choice, question.goal)),
        memory=document["memory"],
        near_best=document["near_best"],
    )


def _flags(choice: Choice) -> str:
    flags = shown_flags(choice.layout.flags)
    return " ".join(
        f"--{name.replace('_', '-')}" + ("" if value is True else f" {value}") for name, value in flags.items()
    )


def _rows(choices: Sequence[Choice], question: PlanQuestion) -> tuple[Row, ...]:
    return tuple(row_of(choice, question) for choice in choices)


def row_of(choice: Choice, question: PlanQuestion) -> Row:
    predicted, summary, layout = choice.predicted, choice.predicted.summary, choice.layout
    band = relative_band(layout, question.card) if predicted.simulated else None
    return Row(
        name=choice.name,
        groups=tuple(replica.gpus for replica in layout.replicas),
        policy=str(layout.router.policy) if len(layout.replicas) > 1 else None,
        simulated=predicted.simulated,
        saturated=predicted.saturated,
        meets=bool(predicted.meets(question.goal)),
        ttft_p50_s=summary.ttft_s.p50,
        ttft_p95_s=summary.ttft_s.p95,
        tpot_p50_s=summary.tpot_s.p50,
        e2e_mean_s=summary.e2e_s.mean,
        output_tokens_per_s=summary.output_tokens_per_s,
        band=None if band is None else band.around_means(summary).model_dump(mode="json"),
        context=context_limit(choice, question.card.max_context),
        idle=layout.idle_gpus,
        most=_most(choice),
        most_simulated=choice.most is not None and choice.most.simulated,
        warnings=choice.warnings,
    )


def _most(choice: Choice) -> str | None:
    most = choice.most
    if most is None:
        return None
    return f"{most.users:,}" if most.users is not None else f"{most.load:g}/s"


def targets_words(goal: Goal) -> str:
    """`TTFT 1 s, TPOT 50 ms`; empty without targets."""
    targets = (("TTFT", goal.slo.ttft_s), ("TPOT", goal.slo.tpot_s))
    return ", ".join(f"{name} {show_seconds(seconds)}" for name, seconds in targets if seconds is not None)


class Planner:
    """Plans worked out by workers; the last answers are remembered."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._known: OrderedDict[str, Answer] = OrderedDict()

    async def follow(self, question: PlanQuestion) -> AsyncGenerator[Progress | Answer]:
        """Progress as it is made, the Answer last; the Answer alone where it is known. Leaving early stops the work.

        Raises what plan_model raises, and RunFailed where the process ended.
        """
        known = self._known.get(question.key)
        if known is not None:
            self._known.move_to_end(question.key)
            yield known
            return
        async with aclosing(self._workers.ask(question)) as said:
            async for one in said:
                if isinstance(one, Answer):
                    self._remember(question.key, one)
                yield one

    async def answer(self, question: PlanQuestion) -> Answer:
        """The whole answer."""
        async with aclosing(self.follow(question)) as said:
            async for one in said:
                if isinstance(one, Answer):
                    return one
        raise RunFailed("The plan ended without an answer; ask again.")

    def _remember(self, key: str, answer: Answer) -> None:
        self._known[key] = answer
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
