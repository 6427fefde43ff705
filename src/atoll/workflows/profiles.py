"""Machine profiles on disk: what `atoll calibrate -o` writes and `--profile` reads."""

from pathlib import Path

from atoll.cost.profile import MachineProfile
from atoll.outside.files import read_text, write_whole


def write_profile(profile: MachineProfile, path: Path) -> None:
    write_whole(path, profile.to_yaml())


def read_profile(path: Path | None) -> MachineProfile | None:
    """The profile, None where none is named; raises BadDocument naming the field."""
    return None if path is None else MachineProfile.parse(read_text(path), origin=str(path))
