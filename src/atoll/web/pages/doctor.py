"""Doctor: files looked at, each fix shown as a diff and accepted one by one, and the mended files to take away."""

import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from atoll.doctor.finding import Severity
from atoll.doctor.masks import mask_secrets
from atoll.errors import InputError
from atoll.inventory.catalog import all_gpus
from atoll.outside.confined import call_confined
from atoll.web.site import Site, is_fragment, token_of
from atoll.web.tokens import Role
from atoll.web.uploads import UploadNote, Uploads
from atoll.web.workspace import Kind
from atoll.workflows import uploads as work
from atoll.workflows.uploads import Checkup, Hints

PRELOAD = ("atoll.workflows.uploads",)
MOST_UPLOAD_BYTES = 6 << 20  # as it comes; what it may unpack to is work.MOST_BYTES
_SECRET = re.compile(r"^\s*(?:export\s+)?(\w*(?:KEY|TOKEN|SECRET|PASSWORD|PASS)\w*)\s*[=:]\s*(\S+)", re.IGNORECASE)
_LEAST_SECRET = 6  # characters; a shorter one is a word that stands anywhere


def make_page(site: Site) -> APIRouter:
    routes, kept = APIRouter(), Uploads(site.workspace.own)

    @routes.get("/doctor")
    def doctor(request: Request, bundle: str = "") -> HTMLResponse:
        return site.show(
            request,
            "doctor.html",
            page="doctor",
            bundles=site.workspace.things(Kind.BUNDLE),
            chosen=bundle,
            kinds=[kind.name for kind in all_gpus()],
            uploads=kept.all(now=site.clock.wall()),
            most_files=work.MOST_FILES,
            most_upload=MOST_UPLOAD_BYTES,
            most_bytes=f"{work.MOST_BYTES // 10**6} MB",
        )

    @routes.post("/doctor/check")
    def check(
        request: Request,
        text: Annotated[str, Form()] = "",
        bundle: Annotated[str, Form()] = "",
        users: Annotated[str, Form()] = "",
        gpu: Annotated[str, Form()] = "",
        files: Annotated[list[UploadFile], File()] = [],  # noqa: B006 - FastAPI makes one for each request
    ) -> Response:
        """Look at them. An operator's are kept for a day, to be mended; a viewer is shown the findings."""
        hints = _hints(users, gpu)
        given, title, explicit, left_out = _given(site, text, bundle, files)
        unpacked = dict(given) if bundle else call_confined(work.unpack, given, what=title, preload=PRELOAD)
        token = token_of(request)
        note = UploadNote(
            id="new",
            title=title,
            made_at=site.clock.wall(),
            by=token.name,
            names=tuple(unpacked),
            explicit=explicit,
            left_out=left_out,
            hints=hints,
        )
        if token.role is Role.VIEWER:
            texts = {name: work.text_of(data) for name, data in unpacked.items()}
            return _show(site, request, note, texts)
        _look(note, {name: work.text_of(data) for name, data in unpacked.items()})  # what cannot be read is not kept
        kept.all(now=site.clock.wall())
        site.note(request, f"upload {len(unpacked)} files to the doctor: {title}")
        made = kept.keep(unpacked, note)
        return RedirectResponse(f"/doctor/{made.id}", status_code=303)

    @routes.get("/doctor/{upload_id}")
    def upload(request: Request, upload_id: str) -> HTMLResponse:
        note = kept.find(upload_id)
        return _show(site, request, note, kept.texts(note))

    @routes.post("/doctor/{upload_id}/accept")
    def accept(request: Request, upload_id: str, fix: Annotated[str, Form()]) -> Response:
        """Put one fix in."""
        note = kept.find(upload_id)
        texts = kept.texts(note)
        step = call_confined(work.accept, texts, note.hints, fix, note.explicit, what=note.title, preload=PRELOAD)
        site.note(request, f"accept {step.rule} in {step.file} of upload {note.id}")
        note = note.replace(steps=(*note.steps, step))
        kept.note(note)
        return _back(site, request, kept, note)

    @routes.post("/doctor/{upload_id}/undo")
    def undo(request: Request, upload_id: str) -> Response:
        """Take the last fix out again."""
        note = kept.find(upload_id)
        if not note.steps:
            raise InputError("No fix has been accepted here, so there is none to take back.")
        site.note(request, f"take back {note.steps[-1].rule} in {note.steps[-1].file} of upload {note.id}")
        note = note.replace(steps=note.steps[:-1])
        kept.note(note)
        return _back(site, request, kept, note)

    @routes.get("/doctor/{upload_id}/download")
    def download(upload_id: str) -> Response:
        """The files with the accepted fixes, and no others, in."""
        note = kept.find(upload_id)
        packed = work.pack(kept.files(note), note.steps, note.left_out)
        named = f"attachment; filename*=UTF-8''{quote(f'{Path(note.title).stem}-mended.zip', safe='')}"
        return Response(packed, media_type="application/zip", headers={"content-disposition": named})

    @routes.post("/doctor/{upload_id}/delete")
    def delete(request: Request, upload_id: str) -> Response:
        note = kept.find(upload_id)
        site.note(request, f"delete upload {note.id}")
        kept.remove(note)
        return RedirectResponse("/doctor", status_code=303)

    return routes


def _hints(users: str, gpu: str) -> Hints:
    if users.strip() and not (re.fullmatch(r"[0-9]{1,15}", users.strip()) and 0 < int(users) <= 100_000):
        raise InputError(f"{users[:20]!r} is no number of users; 1 to 100,000 are.")
    return Hints(users=int(users) if users.strip() else None, gpu=gpu.strip() or None)


def _given(
    site: Site, text: str, bundle: str, files: list[UploadFile]
) -> tuple[list[tuple[str, bytes]], str, tuple[str, ...], tuple[str, ...]]:
    """Files by name, what the whole is called, the names that were given one by one, and those to leave out."""
    if bundle:
        thing = site.workspace.find(bundle, Kind.BUNDLE)
        found = _files_of(thing.path)
        return found, thing.name, (), tuple(name for name, _ in found if Path(name).name.startswith("."))
    found, size = [], 0
    for file in files:
        if file.filename:
            data = file.file.read(MOST_UPLOAD_BYTES + 1)
            size += len(data)
            if size > MOST_UPLOAD_BYTES:
                raise InputError(f"The upload is larger than {MOST_UPLOAD_BYTES >> 20} MiB.")
            found.append((file.filename, data))
    if text.strip():
        found.append((_name_of(text), text.replace("\r\n", "\n").encode("utf-8", "replace")))
    if not found:
        raise InputError("Paste a file, or choose some: Compose, nginx, Kubernetes, a layout, a capture, or a .zip.")
    title = found[0][0] if len(found) == 1 else f"{found[0][0]} + {len(found) - 1}"
    zipped = any(name.lower().endswith(".zip") for name, _ in found)
    return found, title[:80], () if zipped else tuple(name for name, _ in found), ()


def _files_of(folder: Path) -> list[tuple[str, bytes]]:
    """The files at the top of a bundle and in its folders, links left alone."""
    found: list[tuple[str, bytes]] = []
    size = 0
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or path.resolve() != path.absolute():
            continue
        size += path.stat().st_size
        if len(found) >= work.MOST_FILES or size > work.MOST_BYTES:
            break
        found.append((path.relative_to(folder).as_posix(), path.read_bytes()))
    return found


def _name_of(text: str) -> str:
    """What a pasted text would be called."""
    if re.search(r"^\s*GPU0\s", text, re.MULTILINE):
        return "topo.txt"
    if re.search(r"^\s*(server|upstream\s+\S+|http|events|location\s+\S+)\s*\{", text, re.MULTILINE):
        return "nginx.conf"
    if re.search(r"^replicas:", text, re.MULTILINE):
        return "layout.yaml"
    return "manifests.yaml" if re.search(r"^apiVersion:", text, re.MULTILINE) else "compose.yaml"


def _look(note: UploadNote, texts: dict[str, str]) -> Checkup:
    return call_confined(work.check_up, texts, note.hints, note.explicit, what=note.title, preload=PRELOAD)


def _show(site: Site, request: Request, note: UploadNote, texts: dict[str, str]) -> HTMLResponse:
    template = "doctor_findings.html" if is_fragment(request) else "doctor_upload.html"
    return site.show(request, template, page="doctor", **_shown(note, _look(note, texts), texts))


def _back(site: Site, request: Request, kept: Uploads, note: UploadNote) -> Response:
    if is_fragment(request):
        return _show(site, request, note, kept.texts(note))
    return RedirectResponse(f"/doctor/{note.id}", status_code=303)


def _shown(note: UploadNote, checkup: Checkup, texts: dict[str, str]) -> dict[str, Any]:
    """What the page shows; what stands in a .env is not shown, wherever it was put in, nor are keys and passwords."""
    hide = _hider(texts)
    found = [
        one.to_plain()
        | {name: hide(getattr(one, name)) for name in ("what", "why", "fix")}
        | {name: mask_secrets(hide(getattr(one, name))) for name in ("text", "diff")}
        for one in checkup.found
    ]
    counts = {str(one): sum(finding["severity"] == one for finding in found) for one in Severity}
    return {
        "note": note,
        "kept": note.id != "new",
        "found": found,
        "counts": {name: count for name, count in counts.items() if count},
        "checkup": checkup,
        "steps": [{"rule": step.rule, "file": step.file, "what": hide(step.what)} for step in note.steps],
    }


def _hider(texts: dict[str, str]) -> Any:
    """A function that puts dots in place of the secrets of .env files."""
    lines = [line for name, text in texts.items() if Path(name).name.startswith(".env") for line in text.splitlines()]
    values = {found[2].strip("'\"") for line in lines if (found := _SECRET.match(line))}
    hidden = sorted((value for value in values if len(value) >= _LEAST_SECRET), key=len, reverse=True)

    def hide(text: str) -> str:
        for value in hidden:
            text = text.replace(value, "•••")
        return text

    return hide
