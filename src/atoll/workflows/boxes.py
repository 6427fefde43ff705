"""The box a command speaks of: a capture, a box document, or so many cards of a kind."""

from pathlib import Path

from atoll.errors import InputError
from atoll.inventory.box import Box
from atoll.inventory.catalog import find_gpu, make_box
from atoll.inventory.parse import parse_box
from atoll.layout.study import Study
from atoll.outside.files import read_text


def named_box(*, capture: Path | str | None = None, gpu: str | None = None, gpus: int | None = None) -> Box:
    """The box of `--box FILE`, `--gpu NAME` and `--gpus N`, its cards named by the catalogue where that is known.

    Args:
        capture: a capture of `nvidia-smi topo -m`, a Box document (`box.yaml`), or `-` for standard input.
        gpu: the cards' kind; names those that the capture leaves without a name.
        gpus: how many cards, when there is no capture.

    Raises:
        InputError: neither a capture nor a kind, or a number of cards that the capture contradicts.
        BadTopology: the capture is none.
        UnknownGpu: no such kind.
    """
    if capture is None:
        if gpu is None:
            raise InputError(
                "Say which box: --box FILE with a capture of `nvidia-smi topo -m`, or --gpu NAME --gpus N."
            )
        return make_box(gpu, gpus or 1)
    box = _read_box(capture)
    if gpus is not None and gpus != len(box.gpus):
        raise InputError(f"--gpus {gpus} does not agree with {capture}, which shows {len(box.gpus)} GPUs.")
    return with_gpu_names(box, gpu) if gpu is not None else box


def with_gpu_names(box: Box, gpu: str) -> Box:
    """The box with cards of one kind; memory that the driver told stays."""
    kind = find_gpu(gpu)
    cards = tuple(
        card.replace(name=kind.name, memory_bytes=card.memory_bytes or kind.memory_bytes) for card in box.gpus
    )
    return box.replace(gpus=cards)


def _read_box(capture: Path | str) -> Box:
    text = read_text(capture)
    if str(capture).endswith((".yaml", ".yml", ".json")):
        return Box.parse(text, origin=str(capture))
    return parse_box(text, origin="standard input" if str(capture) == "-" else str(capture))


def box_of_study(study: Study, folder: Path) -> Box:
    """The box that a study names; its capture is looked for in `folder`.

    Raises:
        InputError: the study names two kinds of card, or what `named_box` raises.
    """
    if isinstance(study.box, str):
        return named_box(capture=folder / study.box, gpu=study.gpu)
    if study.gpu is not None and find_gpu(study.gpu) != find_gpu(study.box.gpu):
        raise InputError(
            f"study {study.name}: box says {study.box.gpu} and gpu says {study.gpu}; leave one of them out."
        )
    return named_box(gpu=study.box.gpu, gpus=study.box.gpus)
