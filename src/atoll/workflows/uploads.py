"""Files that somebody uploads: unpacked with care, looked at by the doctor, and mended fix by fix.

All here is a function of texts: nothing that an uploaded file names is looked for on this machine, neither an included
file nor a model's folder.
"""

import io
import lzma
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from difflib import unified_diff
from hashlib import sha256
from pathlib import PurePosixPath

from atoll.doctor.coverage import coverage_line, understood_all
from atoll.doctor.edits import apply_edits
from atoll.doctor.examine import find_rule
from atoll.doctor.facts import Load
from atoll.doctor.files import HeldFiles
from atoll.doctor.finding import Edit, Finding, FixClass
from atoll.doctor.gather import Asked
from atoll.doctor.mend import choose_findings, why_not
from atoll.documents import Document
from atoll.errors import InputError, NotThere
from atoll.inventory.catalog import find_gpu
from atoll.model.catalog import find_card
from atoll.workflows.diagnose import Diagnosis, Question, diagnose

MOST_FILES = 200
MOST_BYTES = 4 * 10**6  # of all files together, unpacked
MOST_NAME = 200  # characters
MOST_SHOWN = 500  # findings; nobody reads more, and each costs a diff
_CONTEXT = 3  # lines of a diff around what changes
_DRIVE = re.compile(r"^[A-Za-z]:")


class FoundEdit(Document):
    """An edit, to be kept: characters `start` to `end` of a file become `text`."""

    file: str
    start: int
    end: int
    text: str

    def plain_edit(self) -> Edit:
        return Edit(file=self.file, start=self.start, end=self.end, text=self.text)


class Found(Document):
    """One finding with what its rule's page says, and its fix as a diff."""

    key: str  # of this finding in these very texts
    rule: str
    severity: str
    file: str
    line: int
    text: str  # of the line
    what: str
    why: str
    fix: str
    evidence: str
    places: tuple[str, ...] = ()  # `file:line` of each, where it stands for several
    fix_class: str = "by_hand"  # safe, risky, by_hand
    risk: str = ""  # what a risky fix changes
    edits: tuple[FoundEdit, ...] = ()
    diff: str = ""


class Checkup(Document):
    """What the doctor says of some files."""

    found: tuple[Found, ...]
    more: int = 0  # findings beyond those
    saw_nothing: bool = False  # none of the files is of a kind that the doctor knows
    coverage: str = ""  # what was looked at and what was not understood, in one line
    complete: bool = True  # whether all was understood


class AcceptedFix(Document):
    """A fix that was accepted: its edits are of the texts as the steps before it left them."""

    rule: str
    file: str
    what: str
    edits: tuple[FoundEdit, ...]

    def plain_edits(self) -> tuple[Edit, ...]:
        return tuple(edit.plain_edit() for edit in self.edits)


class Hints(Document):
    """What the asker adds."""

    users: int | None = None
    gpu: str | None = None


def unpack(uploads: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """The files of an upload by name, those of a .zip among them; a name that comes twice is refused.

    Raises:
        InputError: too many files or bytes, a name that leads out, a link, an encrypted member, a broken archive.
    """
    files: dict[str, bytes] = {}
    for name, data in uploads:
        packed = name.lower().endswith(".zip") or zipfile.is_zipfile(io.BytesIO(data))
        members = _unzip(name, data) if packed else [(name, data)]
        for member, content in members:
            safe = check_name(member)
            if safe in files:
                raise InputError(f"{safe} is there twice; one of the two has to go.")
            files[safe] = content
            _check_size(len(files), sum(map(len, files.values())))
    if not files:
        raise InputError("There is no file in this upload.")
    return files


def check_name(name: str) -> str:
    """A name within the upload; raises InputError for one that leads out of it or that no file should have."""
    shown = repr(name[:80])
    if "\\" in name or name.startswith("/") or _DRIVE.match(name):
        raise InputError(f"{shown} is a name from the root of a disk; names within one folder are taken.")
    parts = PurePosixPath(name).parts
    if ".." in parts:
        raise InputError(f"{shown} leads out of its own folder; names within one folder are taken.")
    if not parts or len(name) > MOST_NAME or not name.isprintable():
        raise InputError(f"{shown} is no name for a file: it is empty, too long or holds control characters.")
    return str(PurePosixPath(*parts))


def _check_size(count: int, size: int) -> None:
    if count > MOST_FILES:
        raise InputError(f"More than {MOST_FILES} files were given; send those that the stack is made of.")
    if size > MOST_BYTES:
        raise InputError(
            f"The files hold more than {MOST_BYTES // 10**6} MB together; leave out what is no configuration."
        )


def _unzip(name: str, data: bytes) -> Iterable[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            _check_size(len(members), sum(info.file_size for info in members))
            for info in members:
                _check_member(info)
            return [(info.filename, _read_member(archive, info)) for info in members]
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, ValueError) as error:
        raise InputError(f"{name} is no archive that can be read: {error}.") from None


def _check_member(info: zipfile.ZipInfo) -> None:
    """What the archive says of a member, before a byte of it is unpacked."""
    name = repr(info.filename[:80])
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFREG}:
        what = "a link" if kind == stat.S_IFLNK else "no plain file"
        raise InputError(f"{name} in the archive is {what}; plain files are taken.")
    if info.flag_bits & 0x1:
        raise InputError(f"{name} in the archive is encrypted; send it without a password.")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise InputError(f"{name} in the archive is packed in a way that is not taken; use an ordinary zip.")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with archive.open(info) as stream:
        content = stream.read(MOST_BYTES + 1)  # a size that is declared is a claim
    _check_size(1, len(content))
    return content


def check_up(texts: Mapping[str, str], hints: Hints, explicit: Sequence[str] = ()) -> Checkup:
    """What the doctor says of these texts alone.

    Args:
        texts: by name.
        hints: users and GPU kind, where the asker knows them.
        explicit: names that were given one by one, so that one of no known kind is said.

    Raises:
        InputError: a GPU kind that is not known.
    """
    diagnosis, held = _look(texts, hints, explicit), _held(texts)
    worst_first = sorted(diagnosis.told(everything=True), key=lambda finding: (finding.severity.rank, finding.order))
    found = tuple(_found(finding, held) for finding in worst_first[:MOST_SHOWN])
    return Checkup(
        found=found,
        more=len(worst_first) - len(found),
        saw_nothing=diagnosis.saw_nothing,
        coverage=coverage_line(diagnosis.facts),
        complete=understood_all(diagnosis.facts),
    )


def _held(texts: Mapping[str, str]) -> HeldFiles:
    return HeldFiles({name: text.removeprefix("\ufeff") for name, text in texts.items()})


def _look(texts: Mapping[str, str], hints: Hints, explicit: Sequence[str]) -> Diagnosis:
    if hints.gpu:
        find_gpu(hints.gpu)
    asked = Asked(load=Load(users=hints.users), gpu=hints.gpu, find_card=find_card)
    paths = tuple(name for name in explicit if name in texts and not name.startswith(".")) or (".",)
    return diagnose(Question(paths=paths, asked=asked), _held(texts))


def _found(finding: Finding, held: HeldFiles) -> Found:
    lines = (held.read(finding.file) or "").split("\n")
    edits = tuple(dict.fromkeys(finding.edits)) if choose_findings([finding]) else ()
    return Found(
        key=_key(finding),
        rule=finding.rule,
        severity=str(finding.severity),
        file=finding.file,
        line=finding.line,
        text=lines[finding.line - 1].strip()[:200] if 0 < finding.line <= len(lines) else "",
        what=finding.what,
        why=finding.why,
        fix=finding.fix,
        evidence=find_rule(finding.rule).page.evidence,
        places=tuple(f"{spot.file}:{spot.line}" for spot in finding.places) if len(finding.places) > 1 else (),
        fix_class=str(finding.fix_class if edits else FixClass.BY_HAND),
        risk=finding.risk or "" if edits else "",
        edits=tuple(FoundEdit(file=one.file, start=one.start, end=one.end, text=one.text) for one in edits),
        diff="".join(_diff(path, held.read(path) or "", edits) for path in dict.fromkeys(one.file for one in edits)),
    )


def _key(finding: Finding) -> str:
    parts = (finding.rule, finding.file, str(finding.line), finding.what, *(repr(edit) for edit in finding.edits))
    return sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _diff(path: str, text: str, edits: Sequence[Edit]) -> str:
    """The edits of one file as `diff -u` shows them, made of the lines around them alone."""
    mine = [edit for edit in edits if edit.file == path]
    first, last = min(edit.start for edit in mine), max(edit.end for edit in mine)
    start, end = first, last
    for _ in range(_CONTEXT + 1):
        start = max(text.rfind("\n", 0, start), 0)
        end = text.find("\n", end + 1) if 0 <= end < len(text) else -1
        end = len(text) if end < 0 else end
    start = start + 1 if start else 0
    window = text[start:end]
    moved = [Edit(file=path, start=one.start - start, end=one.end - start, text=one.text) for one in mine]
    before, after = window.splitlines(), apply_edits(window, moved).splitlines()
    lines = list(unified_diff(before, after, fromfile=path, tofile=f"{path} (mended)", lineterm="", n=_CONTEXT))
    return "\n".join(_shift(line, text.count("\n", 0, start)) for line in lines) + "\n"


def _shift(line: str, by: int) -> str:
    """A hunk's head with the line numbers of the whole file."""
    if not line.startswith("@@ "):
        return line
    return re.sub(r"([-+])(\d+)", lambda found: f"{found[1]}{int(found[2]) + by}", line)


def accept(texts: Mapping[str, str], hints: Hints, key: str, explicit: Sequence[str] = ()) -> AcceptedFix:
    """The step that puts one finding's fix into these texts.

    Raises:
        NotThere: no such finding, or it has no fix.
        InputError: the file could not be read after it.
    """
    found = next((one for one in check_up(texts, hints, explicit).found if one.key == key and one.edits), None)
    if found is None:
        raise NotThere("That fix is no longer there; look at the findings again.")
    step = AcceptedFix(rule=found.rule, file=found.file, what=found.what, edits=found.edits)
    mended = apply_steps(texts, [step])
    before, after = (_look(some, hints, explicit).findings for some in (texts, mended))
    why = why_not([one for one in before if one.edits and set(one.edits) <= set(step.plain_edits())], before, after)
    if why:
        raise InputError(f"This fix is left to your hand, because {why}. {found.fix}")
    return step


def apply_steps(texts: Mapping[str, str], steps: Iterable[AcceptedFix]) -> dict[str, str]:
    """The texts with these fixes in; a byte order mark stays where it was."""
    made = dict(texts)
    for step in steps:
        for path in dict.fromkeys(edit.file for edit in step.edits):
            mark = "\ufeff" if made[path].startswith("\ufeff") else ""
            edits = [edit.plain_edit() for edit in step.edits if edit.file == path]
            made[path] = mark + apply_edits(made[path].removeprefix("\ufeff"), edits)
    return made


def text_of(data: bytes) -> str:
    """A file's bytes as text; what is no UTF-8 is replaced, and such a file gets no fixes."""
    return data.decode("utf-8", errors="replace")


def pack(files: Mapping[str, bytes], steps: Sequence[AcceptedFix], left_out: Iterable[str] = ()) -> bytes:
    """The files with these fixes in, as a .zip; one that no fix touches is the same to the byte."""
    touched = {edit.file for step in steps for edit in step.edits}
    mended = apply_steps({name: text_of(files[name]) for name in touched}, steps)
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(set(files) - set(left_out)):
            archive.writestr(zipfile.ZipInfo(name), mended[name].encode() if name in touched else files[name])
    return kept.getvalue()
