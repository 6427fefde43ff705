"""Stand in for one replica of a layout, without a GPU."""

from collections.abc import Callable
from pathlib import Path

from atoll.emulate.listen import listen
from atoll.emulate.replica import blueprint_of
from atoll.errors import InputError
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import check_name, read_model
from atoll.outside.files import read_text
from atoll.run.process import PROFILE_FILE
from atoll.workflows.profiles import read_profile


def emulate_replica(
    layout: Layout,
    number: int,
    *,
    host: str,
    port: int,
    api_key: str | None = None,
    speed: float = 1.0,
    profile: Path | None = None,
    say: Callable[[str], None],
) -> None:
    """Serve replica `number` of the layout until SIGTERM or Ctrl-C, paced as the machine of the profile, if any.

    Raises:
        UnknownModel, UnknownGpu: a name that the catalogues do not have.
        NothingFits: the model does not fit.
        StartFailed: the port is taken.
    """
    card = read_model(layout.model)
    blueprint = blueprint_of(layout, number, card, profile=read_profile(profile))
    listen(blueprint, host=host, port=port, api_key=api_key, speed=speed, say=say)


def profile_beside(layout: Path | None) -> Path | None:
    """The profile.yaml in the layout's folder, where a study puts it."""
    if layout is None or not (layout.parent / PROFILE_FILE).exists():
        return None
    return layout.parent / PROFILE_FILE


def layout_to_emulate(
    *, file: Path | None, gpu: str | None, tensor_parallel: int, model: str | None, flags: EngineFlags
) -> Layout:
    """The layout of a file with the flags that are given besides, or one replica on so many cards of a kind.

    Raises:
        InputError: neither a file nor GPU and model, or both.
        BadDocument: the file is no layout.
    """
    if file is not None:
        layout = Layout.parse(read_text(file), origin=str(file))
        if gpu is not None or model is not None:
            raise InputError(f"{file} says which GPUs and which model; leave out --gpu and --model, or --layout.")
        given = flags.model_dump(exclude_unset=True)
        extra = (*layout.flags.extra, *given.pop("extra", ()))
        return layout.replace(flags=layout.flags.replace(**given, extra=extra))
    if gpu is None or model is None:
        raise InputError("Say what to emulate: --layout FILE, or --gpu NAME and --model M.")
    check_name(model)
    return Layout(
        name="emulated",
        model=model,
        box=make_box(gpu, tensor_parallel),
        replicas=(Replica(gpus=tuple(range(tensor_parallel)), tensor_parallel=tensor_parallel),),
        flags=flags,
        engine="emulated",
    )
