"""What is wrong with these files, and the files with it put right."""

from codecs import BOM_UTF8
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.doctor.checks import all_rules
from atoll.doctor.digest import in_reading_order, join_alike, sum_up
from atoll.doctor.examine import examine
from atoll.doctor.facts import Facts, Load
from atoll.doctor.files import DiskFiles, Files, HeldFiles
from atoll.doctor.finding import Finding, Severity
from atoll.doctor.gather import Asked, gather
from atoll.doctor.live import CONTAINERS, ask_machine
from atoll.doctor.mend import RISKY_TOO, SAFE_ONLY, Mended, Mending, mend
from atoll.doctor.sources import CORRECTED
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.outside.files import read_bytes, write_whole
from atoll.outside.shell import Shell
from atoll.render.bundle import Bundle
from atoll.workflows.boxes import named_box

if TYPE_CHECKING:
    from atoll.workflows.advise import Advice


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """The findings, with the facts that they were found in."""

    findings: tuple[Finding, ...]
    facts: Facts
    advice: "tuple[Advice, ...]" = ()

    @property
    def saw_nothing(self) -> bool:
        """Whether none of the files was of a kind that the doctor knows."""
        facts = self.facts
        return not (facts.looked_at or facts.not_understood or facts.problems)

    def told(self, *, everything: bool = False) -> tuple[Finding, ...]:
        """The findings as people read them: those of services that are alike as one, small habits together.

        Args:
            everything: each habit by itself.
        """
        joined = join_alike(in_reading_order(self.findings), {service.name for service in self.facts.services})
        habits = () if everything else (rule.id for rule in all_rules() if rule.habit)
        return in_reading_order(sum_up(joined, habits))

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
    containers: str | None = None  # `docker inspect` of what runs on this machine


def ask(
    paths: Sequence[str],
    *,
    select: Sequence[str] = (),
    ignore: Sequence[str] = (),
    load: Load | None = None,
    box: str | None = None,
    gpu: str | None = None,
    model: str | None = None,
    shell: Shell | None = None,
) -> Question:
    """A question from what a command line gives.

    Args:
        paths: files and folders.
        select: rules or families to look for; empty means all.
        ignore: rules or families to leave out.
        load: users and lengths.
        box: a capture of `nvidia-smi topo -m`.
        gpu: the cards' kind.
        model: a model's name, folder or config.json, for commands whose own is not known.
        shell: ask this machine too: its GPUs, Docker, running containers.

    Raises:
        InputError: a box, a model or a GPU that is not known.
    """
    machine = ask_machine(shell) if shell is not None else None
    asked = Asked(
        load=load or Load(),
        box=named_box(capture=box, gpu=gpu) if box is not None else machine.box if machine is not None else None,
        gpu=gpu,
        model=read_model(model) if model is not None else None,
        host=machine.host if machine is not None else None,
        find_card=find_card,
    )
    containers = machine.containers if machine is not None else None
    return Question(paths=tuple(paths), select=tuple(select), ignore=tuple(ignore), asked=asked, containers=containers)


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
    files, paths = files or DiskFiles(), question.paths
    if question.containers is not None:
        files, paths = HeldFiles({CONTAINERS: question.containers}, files), (*paths, CONTAINERS)
    facts = gather(paths, files, question.asked)
    return Diagnosis(findings=examine(facts, select=question.select, ignore=question.ignore), facts=facts)


def with_advice(diagnosis: Diagnosis, question: Question) -> Diagnosis:
    """The same with the layouts that would serve more, where the files name GPUs, model and flags."""
    from atoll.workflows.advise import advise  # the planner and the simulator are not needed for the findings

    return replace(diagnosis, advice=advise(diagnosis.facts, gpu=question.asked.gpu))


@dataclass(frozen=True, kw_only=True)
class Correction:
    """The fixes that were put in or left out, and what is found in the corrected files."""

    mending: Mending
    left: Diagnosis

    @property
    def files(self) -> tuple[Mended, ...]:
        return self.mending.files


def correct(question: Question, files: Files | None = None, *, risky: bool = False) -> Correction:
    """The corrected files (nothing is written), and what is left.

    Args:
        question: what to look at.
        files: where the files lie; this machine's disk unless told otherwise.
        risky: put in fixes that change behaviour too, not only those that cannot change what serves.
    """
    below = files or DiskFiles()

    def look(texts: Mapping[str, str]) -> tuple[Finding, ...]:
        return diagnose(question, HeldFiles(texts, below)).findings

    mending = mend(look, lambda path: below.read(path) or "", RISKY_TOO if risky else SAFE_ONLY)
    left = diagnose(question, HeldFiles({one.path: one.after for one in mending.files}, below))
    return Correction(mending=mending, left=left)


def write_corrected(mended: Sequence[Mended], *, in_place: bool) -> tuple[str, ...]:
    """Write the corrected files and give their names: in place, or `compose.fixed.yaml` beside `compose.yaml`.

    In place a link stays one and its file is changed. Each file is written whole, with its mode, its owner
    and its byte order mark.
    """
    written = []
    for one in mended:
        path = Path(one.path)
        target = path if in_place else path.with_name(f"{path.stem}{CORRECTED.rstrip('.')}{path.suffix}")
        mark = BOM_UTF8 if read_bytes(path).startswith(BOM_UTF8) else b""
        write_whole(target.resolve() if in_place else target, mark + one.after.encode(), like=path)
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
