"""The file by which the users of a running load test are changed (load/control.py), one for each in the workspace."""

from pathlib import Path

from atoll.outside.files import read_text
from atoll.web.jobs import Job, JobState
from atoll.web.site import Site
from atoll.workflows.door import find_door

CONTROLS = Path(".atoll/controls")


def sends_users(where: str, *, users: str, rate: str) -> bool:
    """Whether the load has users, whose number can be changed: its own words say it, else what the bundle carries."""
    if users.strip() or rate.strip():
        return bool(users.strip())
    workload = find_door(where).workload
    return workload is None or workload.is_closed


def control_of(job: Job) -> str | None:
    """The file that says how many users a load test has, within the workspace."""
    argv = job.note.argv
    return argv[argv.index("--control") + 1] if argv[:1] == ("bench",) and "--control" in argv else None


def users_of(site: Site, job: Job) -> str | None:
    """How many users were last asked for in a running load test; None where that cannot be changed."""
    control = control_of(job)
    if control is None or job.state is not JobState.RUNNING:
        return None
    file, argv = site.workspace.root / control, job.note.argv
    if file.is_file():
        return read_text(file).strip()
    return argv[argv.index("--users") + 1] if "--users" in argv else ""
