"""Plan: the question left, the answer right; the address holds the whole question.

The formula's table is there at once. The simulated rows come after it on a stream, then the whole answer. Files of any
choice, a bundle to deploy and a study to run are made from the same question.
"""

import io
import re
import zipfile
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from anyio import to_thread
from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.sse import EventSourceResponse, ServerSentEvent

from atoll.errors import AtollError, InputError, NotThere
from atoll.inventory.box import Box
from atoll.inventory.catalog import all_gpus, make_box
from atoll.layout.study import BoxName, study_of_layouts
from atoll.model.card import ModelCard
from atoll.model.catalog import find_card, known_models
from atoll.model.parse import parse_card
from atoll.model.read import read_model
from atoll.outside.files import write_whole
from atoll.plan.capacity import MOST_RATE
from atoll.render import Bundle
from atoll.render.app import SECRETS
from atoll.report.drawing import draw_layout
from atoll.traffic.workload import OUTPUT_TOKENS, PROMPT_TOKENS, USERS
from atoll.web.pages.boxes import EXAMPLE, EXAMPLE_GPU
from atoll.web.planning import Answer, Chosen, PlanQuestion, Progress, formula_rows, targets_words
from atoll.web.site import Site, is_fragment, render
from atoll.web.words import Words
from atoll.web.workspace import Kind
from atoll.workflows.boxes import named_box
from atoll.workflows.load import LoadOptions, load_of, slo_of
from atoll.workflows.plan import make_goal
from atoll.workflows.render import render_layout, write_bundle

EXAMPLE_BOX = "example"
MOST_CONFIG_BYTES = 1 << 20
FORMS = ("compose", "process")
ENGINES = ("vllm", "emulated")


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """The question in a person's own words, as the address holds them; empty: not said."""

    box: str = EXAMPLE_BOX  # a kept box's id, `example`, or empty: so many cards of the catalogue
    gpu: str = ""
    gpus: str = "8"
    model: str = ""
    load: str = "users"  # or `rate`
    users: str = str(USERS)
    rate: str = "1"
    prompt: str = str(PROMPT_TOKENS)
    output: str = str(OUTPUT_TOKENS)
    ttft: str = ""
    tpot: str = ""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> "Asked":
        return cls(**{one.name: str(given[one.name]).strip()[:200] for one in fields(cls) if one.name in given})

    @classmethod
    def parse(cls, query: str) -> "Asked":
        """What an address holds after its question mark; an empty value is one."""
        return cls.of(dict(parse_qsl(query, keep_blank_values=True)))

    @property
    def query(self) -> str:
        return urlencode({one.name: getattr(self, one.name) for one in fields(self)})


TRY = Asked(model="Qwen/Qwen2.5-7B-Instruct", users="30", prompt="1500", output="300", ttft="1s", tpot="50ms")


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()
    _add_answers(routes, site)
    _add_files(routes, site)
    _add_changes(routes, site)
    return routes


def _add_answers(routes: APIRouter, site: Site) -> None:
    @routes.get("/plan")
    def plan(request: Request) -> HTMLResponse:
        asked = Asked.of(request.query_params)
        return site.show(request, "plan.html", page="plan", **_form(site, asked), **_first(site, asked))

    @routes.get("/plan/answer")
    def answer(request: Request) -> HTMLResponse:
        """The formula's table, with the stream that brings the simulated rows; or what is wrong."""
        asked = Asked.of(request.query_params)
        return site.show(request, "plan_answer.html", page="plan", **_first(site, asked))

    @routes.get("/plan/live", response_class=EventSourceResponse)
    async def live(request: Request) -> AsyncIterator[ServerSentEvent]:
        """The table as rows are simulated, then the whole answer. Work stops when nobody listens any more."""
        asked = Asked.of(request.query_params)
        try:
            question = await to_thread.run_sync(_question, site, asked)
            async with aclosing(site.planner.follow(question)) as said:
                async for one in said:
                    yield ServerSentEvent(raw_data=_show_said(site, request, asked, question, one))
        except AtollError as error:
            yield ServerSentEvent(raw_data=render(request, "error_fragment.html", page="plan", sentence=str(error)))
        yield ServerSentEvent(event="over", data={})


def _add_files(routes: APIRouter, site: Site) -> None:
    @routes.get("/plan/files")
    async def files(
        request: Request, choice: str = "", to: str = "compose", engine: str = "vllm", asked: str = ""
    ) -> HTMLResponse:
        """The files of a choice, to read and copy; what is secret is not among them."""
        chosen, bundle = await _bundle(site, asked, choice, to, engine)
        return site.show(
            request,
            "plan_files.html" if is_fragment(request) else "plan_files_page.html",
            page="plan",
            name=chosen.row.name,
            files=[(path, _without_secrets(path, text)) for path, text in bundle.files.items()],
            link=_link("/plan/bundle.zip", asked, choice, to, engine),
        )

    @routes.get("/plan/bundle.zip")
    async def bundle_zip(choice: str = "", to: str = "compose", engine: str = "vllm", asked: str = "") -> Response:
        chosen, bundle = await _bundle(site, asked, choice, to, engine)
        named = f'attachment; filename="{chosen.row.name}-{to}.zip"'
        return Response(zip_of(bundle), media_type="application/zip", headers={"content-disposition": named})


def _add_changes(routes: APIRouter, site: Site) -> None:
    @routes.post("/plan/deploy")
    async def deploy(
        request: Request,
        choice: Annotated[str, Form()],
        asked: Annotated[str, Form()],
        to: Annotated[str, Form()] = "compose",
        engine: Annotated[str, Form()] = "vllm",
    ) -> Response:
        """Write the layout and its bundle into the workspace; the deployments page brings it up."""
        chosen, bundle = await _bundle(site, asked, choice, to, engine)
        root = site.workspace.root
        layout = site.workspace.fresh("layouts", chosen.row.name, ".yaml")
        folder = site.workspace.fresh("bundles", f"{chosen.row.name}-{to}")
        shown = f"atoll render {layout.relative_to(root)} --to {to} --engine {engine} -o {folder.relative_to(root)}"
        site.note(request, shown)
        write_whole(layout, chosen.layout.to_yaml())
        await to_thread.run_sync(write_bundle, bundle, folder)
        return RedirectResponse(f"/deployments/{site.workspace.thing_at(folder, Kind.BUNDLE).id}", status_code=303)

    @routes.post("/plan/study")
    async def study(
        request: Request,
        asked: Annotated[str, Form()],
        choice: Annotated[list[str], Form()] = [],  # noqa: B006
        name: Annotated[str, Form()] = "",
    ) -> Response:
        """Write a study of the ticked choices."""
        said = Asked.parse(asked)
        question = await to_thread.run_sync(_question, site, said)
        found = await site.planner.answer(question)
        layouts = [found.choice(one).layout for one in choice]
        safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or f"study-{layouts[0].name if layouts else ''}"
        path = site.workspace.fresh("studies", safe, ".yaml")
        box = _box_for_study(site, said, question)
        made = study_of_layouts(path.stem, layouts, box=box, workload=question.goal.workload)
        site.note(request, f"write {path.relative_to(site.workspace.root)}")
        write_whole(path, made.to_yaml())
        return RedirectResponse(f"/studies/{site.workspace.thing_at(path, Kind.STUDY).id}", status_code=303)

    @routes.post("/plan/model")
    async def take_model(
        request: Request, file: Annotated[UploadFile, File()], name: Annotated[str, Form()] = ""
    ) -> Response:
        """Keep an uploaded config.json as a model of the workspace, and ask the question with it."""
        data = await file.read(MOST_CONFIG_BYTES + 1)
        if len(data) > MOST_CONFIG_BYTES:
            raise InputError(f"{file.filename} is larger than {MOST_CONFIG_BYTES >> 20} MiB; no config.json is.")
        text = data.decode("utf-8", errors="replace")
        wanted = name.strip() or "model"
        await to_thread.run_sync(lambda: parse_card(text, name=wanted, origin="the uploaded config.json"))
        folder = site.workspace.fresh("models", wanted)
        site.note(request, f"keep {folder.relative_to(site.workspace.root)}/config.json")
        write_whole(folder / "config.json", text)
        before = Asked.parse(urlsplit(request.headers.get("referer", "")).query)
        asked = replace(before, model=f"models/{folder.name}")
        return RedirectResponse(f"/plan?{asked.query}", status_code=303)


# The question


def _question(site: Site, asked: Asked) -> PlanQuestion:
    """Raises InputError in a sentence for whatever does not make a question."""
    card, model = _model(site, asked.model)
    users = _whole(asked.users, "users") if asked.load != "rate" else None
    rate = _number(asked.rate, "requests per second") if asked.load == "rate" else None
    options = LoadOptions(
        users=users,
        rate=rate,
        prompt=str(_whole(asked.prompt, "prompt tokens")),
        output=str(_whole(asked.output, "output tokens")),
    )
    workload = load_of(None, options)
    slo = slo_of(None, asked.ttft or None, asked.tpot or None)
    return PlanQuestion(box=_box(site, asked), card=card, model=model, goal=make_goal(workload, slo))


def _box(site: Site, asked: Asked) -> Box:
    if asked.box == EXAMPLE_BOX:
        return named_box(capture=EXAMPLE, gpu=EXAMPLE_GPU)
    if not asked.box:
        if not asked.gpu:
            raise InputError("Choose a kept box, or a kind of card and how many of them.")
        return make_box(asked.gpu, _whole(asked.gpus, "cards"))
    box = named_box(capture=site.workspace.find(asked.box, Kind.BOX).path)
    nameless = any(gpu.name is None for gpu in box.gpus)
    return (
        named_box(capture=site.workspace.find(asked.box, Kind.BOX).path, gpu=asked.gpu)
        if nameless and asked.gpu
        else box
    )


def _model(site: Site, name: str) -> tuple[ModelCard, str]:
    """The card and what layouts call it: a model of the workspace by its name there, else one of the catalogue."""
    if name.startswith("models/"):
        wanted = f"{name}/config.json"
        thing = next((one for one in site.workspace.things(Kind.MODEL) if one.name == wanted), None)
        if thing is None:
            raise NotThere(f"There is no model {name[:80]!r} in this workspace; upload its config.json.")
        return read_model(str(thing.path.parent)), str(thing.path.parent)
    card = find_card(name)
    if card is None:
        raise InputError(
            f"{name[:80]!r} is no model that atoll knows. Choose one of the list, or upload its config.json below."
        )
    return card, card.name


def _whole(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", text):
        raise InputError(f"{text[:40]!r} is no number of {what}; write a whole number such as 30.")
    if int(text) < 1:
        raise InputError(f"{text} {what}: give at least 1.")
    return int(text)


def _number(text: str, what: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not isfinite(number) or not 0 < number <= MOST_RATE:
        raise InputError(
            f"{text[:40]!r} is no number of {what}; write one above 0, up to {MOST_RATE:,.0f}, such as 2.5."
        )
    return number


# What is shown


def _form(site: Site, asked: Asked) -> dict[str, Any]:
    models = [thing.name.removesuffix("/config.json") for thing in site.workspace.things(Kind.MODEL)]
    return {
        "asked": asked,
        "kept": site.workspace.things(Kind.BOX),
        "kinds": [kind.name for kind in all_gpus()],
        "models": (*models, *known_models()),
        "example_box": EXAMPLE_BOX,
        "try_link": f"/plan?{TRY.query}",
    }


def _first(site: Site, asked: Asked) -> dict[str, Any]:
    """The formula's table, or the sentence why there is none."""
    shown: dict[str, Any] = {"said": None, "trouble": None, "live": None, "goal": None}
    if not asked.model:
        return shown
    try:
        question = _question(site, asked)
        progress = formula_rows(question)
    except AtollError as error:
        return shown | {"trouble": str(error)}
    return shown | {**_rows_shown(question, progress), "live": f"/plan/live?{asked.query}"}


def _rows_shown(question: PlanQuestion, progress: Progress) -> dict[str, Any]:
    goal = question.goal
    return {
        "said": progress,
        "goal": goal,
        "targets": targets_words(goal),
        "most_tokens": question.card.max_context,
        "rows": progress.rows,
        "ticked": (),
    }


def _show_said(site: Site, request: Request, asked: Asked, question: PlanQuestion, said: Progress | Answer) -> str:
    if isinstance(said, Progress):
        shown = _rows_shown(question, said) | {"doing": _doing(site.words(request, "plan"), said.doing)}
        return render(request, "plan_progress.html", page="plan", **shown)
    if said.nothing_fits is not None:
        return render(request, "error_fragment.html", page="plan", sentence=said.nothing_fits)
    rows, words = tuple(one.row for one in said.choices), site.words(request, "plan")
    shown = _rows_shown(question, Progress(rows=rows, doing="")) | {
        "answer": said,
        "asked": asked.query,
        "forms": FORMS,
        "engines": ENGINES,
        "drawing": draw_layout(said.choices[0].layout, router_word=words["router"], idle_word=words["idle_cards"]),
        "ticked": tuple(one.row.name for one in said.choices if one.row.simulated),
        "site": site,
    }
    return render(request, "plan_done.html", page="plan", **shown)


def _doing(t: Words, doing: str) -> str:
    """What the search does next, in the reader's language."""
    found = re.fullmatch(r"simulating (.+), (\d+) of (\d+)", doing)
    if found:
        return t["doing_row"].format(name=found[1], number=found[2], count=found[3])
    known = {
        "trying other flags and policies": "doing_flags",
        "looking at other loads": "doing_loads",
        "finding the most that each carries": "doing_most",
    }
    return t[known[doing]] if doing in known else doing


# Files


async def _bundle(site: Site, asked: str, choice: str, to: str, engine: str) -> tuple[Chosen, Bundle]:
    """The choice and its files, not written anywhere."""
    if to not in FORMS or engine not in ENGINES:
        raise InputError(f"Files are made for {' or '.join(FORMS)}, with the engine {' or '.join(ENGINES)}.")
    question = await to_thread.run_sync(_question, site, Asked.parse(asked))
    chosen = (await site.planner.answer(question)).choice(choice)
    layout = chosen.layout.replace(engine=engine)
    rendered = await to_thread.run_sync(lambda: render_layout(layout, to=to, card=question.card))
    return chosen, rendered.bundle


def _link(path: str, asked: str, choice: str, to: str, engine: str) -> str:
    return f"{path}?{urlencode({'asked': asked, 'choice': choice, 'to': to, 'engine': engine})}"


def _without_secrets(path: str, text: str) -> str:
    """A secret's value is in the file that is saved, never on the page."""
    if not path.endswith(".env"):
        return text
    return re.sub(rf"(?m)^({'|'.join(SECRETS)})=(?=\S).*$", r"\1=…", text)


def zip_of(bundle: Bundle) -> bytes:
    """The files in one folder, with their permissions."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, text in bundle.files.items():
            entry = zipfile.ZipInfo(f"{bundle.name}/{path}", date_time=(1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o100000 | bundle.modes.get(path, 0o644)) << 16
            archive.writestr(entry, text)
    return packed.getvalue()


def _box_for_study(site: Site, asked: Asked, question: PlanQuestion) -> str | BoxName:
    """How a study's file names the box: so many cards of the catalogue, or a document among the kept ones."""
    if not asked.box:
        return BoxName(gpu=question.box.gpus[0].name or asked.gpu, gpus=len(question.box.gpus))
    if asked.box != EXAMPLE_BOX:
        kept = site.workspace.find(asked.box, Kind.BOX)
        if named_box(capture=kept.path) == question.box:
            return f"../{kept.name}"
    path = site.workspace.fresh("boxes", EXAMPLE_BOX if asked.box == EXAMPLE_BOX else "box", ".yaml")
    write_whole(path, question.box.to_yaml())
    return f"../{path.relative_to(site.workspace.root)}"
