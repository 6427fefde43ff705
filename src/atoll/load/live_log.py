"""live.jsonl of a run's folder: one look at the run a line while it goes, for whoever follows it from elsewhere."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from atoll.load.progress import Progress

FILE = "live.jsonl"


def note_progress(folder: Path, then: Callable[[Progress], None] | None = None) -> Callable[[Progress], None]:
    """What appends each look to the folder's file, and hands it on.

    A disk that refuses costs the line, not the run.
    """
    path = folder / FILE

    def note(progress: Progress) -> None:
        try:
            with path.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(asdict(progress)) + "\n")
        except OSError:
            pass
        if then is not None:
            then(progress)

    return note
