"""Boxes: a pasted or uploaded capture, or this machine, drawn with its islands and best groups; kept under a name."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from atoll.errors import InputError
from atoll.inventory.box import Box
from atoll.inventory.catalog import all_gpus
from atoll.inventory.parse import parse_box
from atoll.outside.files import read_text, write_whole
from atoll.outside.shell import RealShell
from atoll.report.drawing import draw_box
from atoll.web.forms import given_text
from atoll.web.site import Site, is_fragment
from atoll.web.workspace import Kind
from atoll.workflows.boxes import named_box, with_gpu_names
from atoll.workflows.inspect import Inspection, inspect_box, inspect_named

EXAMPLE = Path(__file__).parents[1] / "example" / "topo.txt"
EXAMPLE_GPU = "H100-NVL-94GB"
MOST_CAPTURE_BYTES = 1 << 20


def make_page(site: Site) -> APIRouter:
    routes = APIRouter()

    @routes.get("/boxes")
    def boxes(request: Request, example: bool = False) -> HTMLResponse:
        text = read_text(EXAMPLE) if example else ""
        gpu = EXAMPLE_GPU if example else ""
        drawn = _drawn(inspect_box(_read(text, gpu))) if example else {"found": None}
        return _show(site, request, text=text, gpu=gpu, **drawn)

    @routes.post("/boxes/inspect")
    async def inspect(
        request: Request,
        text: Annotated[str, Form()] = "",
        gpu: Annotated[str, Form()] = "",
        file: Annotated[UploadFile | None, File()] = None,
    ) -> HTMLResponse:
        """The drawing of a capture that is pasted or uploaded; nothing is kept yet."""
        given = await given_text(text, file, most_bytes=MOST_CAPTURE_BYTES, what="capture")
        return _draw(site, request, inspect_box(_read(given, gpu)), text=given, gpu=gpu)

    @routes.post("/boxes/here")
    def here(request: Request) -> HTMLResponse:
        """This machine, as nvidia-smi and NVML tell it."""
        found = inspect_named(capture=None, gpu=None, gpus=None, shell=RealShell())
        return _draw(site, request, found, text=found.box.to_yaml(), gpu="")

    @routes.post("/boxes")
    def keep(
        request: Request,
        name: Annotated[str, Form()],
        text: Annotated[str, Form()],
        gpu: Annotated[str, Form()] = "",
    ) -> Response:
        """Keep a box as a document, which every command reads with --box."""
        box = _read(text, gpu)
        path = site.workspace.fresh("boxes", name, ".yaml")
        site.note(request, f"keep {path.relative_to(site.workspace.root)}")
        write_whole(path, box.to_yaml())
        return RedirectResponse(f"/boxes/{site.workspace.thing_at(path, Kind.BOX).id}", status_code=303)

    @routes.get("/boxes/{box_id}")
    def box(request: Request, box_id: str) -> HTMLResponse:
        thing = site.workspace.find(box_id, Kind.BOX)
        found = inspect_box(named_box(capture=thing.path))
        return site.show(request, "box.html", page="boxes", thing=thing, **_drawn(found))

    @routes.post("/boxes/{box_id}/delete")
    def delete(request: Request, box_id: str) -> Response:
        thing = site.workspace.find(box_id, Kind.BOX)
        site.note(request, f"delete {thing.name}")
        thing.path.unlink(missing_ok=True)
        return RedirectResponse("/boxes", status_code=303)

    return routes


def _show(site: Site, request: Request, *, text: str, gpu: str, **drawn: Any) -> HTMLResponse:
    kinds = [kind.name for kind in all_gpus()]
    kept = site.workspace.things(Kind.BOX)
    return site.show(request, "boxes.html", page="boxes", kept=kept, text=text, gpu=gpu, kinds=kinds, **drawn)


def _read(text: str, gpu: str) -> Box:
    if not text.strip():
        raise InputError("Paste the output of `nvidia-smi topo -m`, or choose the file that holds it.")
    if text.lstrip().startswith(("gpus:", "{")):
        box = Box.parse(text, origin="the pasted box")
    else:
        box = parse_box(text, origin="the pasted text")
    return with_gpu_names(box, gpu) if gpu.strip() else box


def _draw(site: Site, request: Request, found: Inspection, *, text: str, gpu: str) -> HTMLResponse:
    template = "box_drawing.html" if is_fragment(request) else "box_pasted.html"
    return site.show(request, template, page="boxes", text=text, gpu=gpu, **_drawn(found))


def _title(box: Box) -> str:
    """What a screen reader says of the drawing."""
    kinds = Counter(gpu.name or "GPU" for gpu in box.gpus)
    return ", ".join(f"{count} x {name}" for name, count in kinds.items())


def _drawn(found: Inspection) -> dict[str, Any]:
    return {"found": found, "drawing": draw_box(found.box, title=_title(found.box))}
