"""What is in the box: its cards, what joins them, and how it is best split."""

from atoll.documents import Document
from atoll.inventory.box import Box, Gpu, Link
from atoll.inventory.islands import all_best_splits, islands
from atoll.inventory.probe import probe_box
from atoll.outside.shell import Shell
from atoll.workflows.boxes import named_box, with_gpu_names

Group = tuple[int, ...]


class Inspection(Document):
    """A box with what follows from its links; `groups[k]` is the best split into groups of k."""

    gpus: tuple[Gpu, ...]
    links: tuple[Link, ...]
    islands: tuple[Group, ...]
    groups: dict[str, tuple[Group, ...]]
    pcie_only: bool
    notes: tuple[str, ...]

    @property
    def box(self) -> Box:
        return Box(gpus=self.gpus, links=self.links, pcie_only=self.pcie_only, notes=self.notes)


def inspect_box(box: Box) -> Inspection:
    """The islands and the best splits of a box."""
    splits = all_best_splits(box)
    return Inspection(
        gpus=box.gpus,
        links=box.links,
        islands=islands(box),
        groups={str(k): groups for k, groups in splits.items()},
        pcie_only=box.pcie_only,
        notes=box.notes,
    )


def inspect_named(*, capture: str | None, gpu: str | None, gpus: int | None, shell: Shell) -> Inspection:
    """The box of a capture, of the catalogue (`gpu` with `gpus`), or, given neither, this machine's.

    Raises:
        InputError: what was given does not fit together, is no capture or names no known card; or nothing was given
            and there is no NVIDIA driver here.
    """
    if capture is None and gpus is None:
        box = probe_box(shell)
        return inspect_box(with_gpu_names(box, gpu) if gpu is not None else box)
    return inspect_box(named_box(capture=capture, gpu=gpu, gpus=gpus))
