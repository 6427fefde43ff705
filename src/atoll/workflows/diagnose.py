"""What is wrong with these files, and the files with it put right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atoll.doctor.examine import examine
from atoll.doctor.facts import Facts, Load
from atoll.doctor.finding import Finding, Severity
from atoll.doctor.gather import Asked, DiskFiles, Files, HeldFiles, gather
from atoll.doctor.mend import Mended, mend
from atoll.errors import InputError
from atoll.inventory.parse import parse_box
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.outside.files import read_text, write_whole
from atoll.plan.layout import Layout
from atoll.render.bundle import Bundle


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The findings, with the facts that they were found in."""

    findings: tuple[Finding, ...]
    facts: Facts

    @property
    def has_errors(self) -> bool:
        return any(finding.severity is Severity.ERROR for finding in self.findings)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What to look at, and what to look for."""

    paths: tuple[str, ...]
    select: tuple[str, ...] = ()
    ignore: tuple[str, ...] = ()
    asked: Asked = field(default_factory=Asked)


def ask(
    paths: Sequence[str],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    load: Load | None = None,
    box: str | None = None,
    gpu: str | None = None,
    model: str | None = None,
) -> Question:
    """A question from what a command line gives.

    Raises:
        InputError: a box, a model or a GPU that is not known.
    """
    asked = Asked(
        load=load or Load(),
        box=parse_box(read_text(box), origin=box) if box is not None else None,
        gpu=gpu,
        model=read_model(model) if model is not None else None,
        find_card=find_card,
    )
    return Question(paths=tuple(paths), select=tuple(select), ignore=tuple(ignore), asked=asked)


def find_card(name: str) -> ModelCard | None:
    """The card of a model that a command names: of the catalogue, or of a folder on this machine."""
    try:
        return read_model(name)
    except InputError:
        return None


def diagnose(question: Question, files: Files | None = None) -> Diagnosis:
    """Look at the files.

    Raises:
        InputError: a path that is not there, or a rule that does not exist.
    """
    facts = gather(question.paths, files or DiskFiles(), question.asked)
    return Diagnosis(findings=examine(facts, select=question.select, ignore=question.ignore), facts=facts)


def correct(question: Question, files: Files | None = None) -> tuple[tuple[Mended, ...], Diagnosis]:
    """The corrected files (nothing is written), and what is left."""
    below = files or DiskFiles()

    def look(texts: Mapping[str, str]) -> tuple[Finding, ...]:
        return diagnose(question, HeldFiles(texts, below)).findings

    mended, _ = mend(look, lambda path: below.read(path) or "")
    return mended, diagnose(question, HeldFiles({one.path: one.after for one in mended}, below))


def write_corrected(mended: Sequence[Mended], *, in_place: bool) -> tuple[str, ...]:
    """Write the corrected files and give their names: in place, or `compose.fixed.yaml` beside `compose.yaml`."""
    written = []
    for one in mended:
        path = Path(one.path)
        target = path if in_place else path.with_name(f"{path.stem}.fixed{path.suffix}")
        write_whole(target, one.after, mode=path.stat().st_mode & 0o777)
        written.append(str(target))
    return tuple(written)


def diagnose_bundle(bundle: Bundle, *, load: Load | None = None) -> tuple[Finding, ...]:
    """What the doctor says of rendered files that are still text."""
    question = ask(["."], load=load)
    return diagnose(question, HeldFiles(bundle.files)).findings


def diagnose_folder(folder: Path, *, load: Load | None = None) -> tuple[Finding, ...]:
    """What the doctor says of a folder of files, such as a bundle that is about to be started."""
    return diagnose(ask([str(folder)], load=load)).findings


def diagnose_layout(layout: Layout, *, load: Load | None = None) -> tuple[Finding, ...]:
    """What the doctor says of a layout by itself: model fit and topology."""
    files = HeldFiles({"layout.yaml": layout.to_yaml()})
    return diagnose(ask(["layout.yaml"], load=load), files).findings
