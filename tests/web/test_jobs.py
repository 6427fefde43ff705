"""Jobs are processes of their own: found again, followed, stopped, cut."""

import os
import signal
import time

import pytest

from atoll.errors import InputError, NotThere
from atoll.web.jobs import Jobs, JobState
from stand_ins.control_plane import PATIENCE_S


def settled(jobs, job_id):
    """The job once it has ended."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        job = jobs.find(job_id)
        if job.state is not JobState.RUNNING:
            return job
        time.sleep(0.02)
    raise AssertionError("the job did not end")


def heard(jobs, job_id, words):
    """Wait until the command has said something."""
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        if words in jobs.output(job_id)[0].decode():
            return
        time.sleep(0.02)
    raise AssertionError(jobs.output(job_id)[0].decode())


def test_a_job_runs_a_command_and_its_end_is_kept(tmp_path):
    jobs = Jobs(tmp_path)
    job = jobs.start(["--version"], title="version", now=10.0, by="olga")
    assert job.command == "atoll --version"
    done = settled(Jobs(tmp_path), job.note.id)  # found again by another server
    assert done.state is JobState.DONE
    assert done.end.exit_code == 0
    assert jobs.output(job.note.id)[0].startswith(b"atoll ")
    jobs.remove(job.note.id)
    assert jobs.all() == ()


def test_a_command_that_fails_keeps_its_last_words(tmp_path):
    jobs = Jobs(tmp_path)
    job = settled(jobs, jobs.start(["report", "nothing-here"], title="report", now=10.0).note.id)
    assert job.state is JobState.FAILED
    assert job.end.exit_code == 2
    assert b"nothing-here" in jobs.output(job.note.id)[0]


def test_a_job_is_stopped_as_by_ctrl_c(tmp_path):
    jobs = Jobs(tmp_path)
    job = jobs.start(["serve", ".", "--port", "0"], title="serve", now=10.0)
    heard(jobs, job.note.id, "?token=")
    with pytest.raises(InputError, match="still running"):
        jobs.remove(job.note.id)
    assert jobs.stop(job.note.id, wait_s=PATIENCE_S).state in {JobState.STOPPED, JobState.DONE}


def test_a_job_whose_process_was_killed_is_cut(tmp_path):
    jobs = Jobs(tmp_path)
    job = jobs.start(["serve", ".", "--port", "0"], title="serve", now=10.0)
    heard(jobs, job.note.id, "?token=")
    os.kill(job.note.pid, signal.SIGKILL)
    assert settled(jobs, job.note.id).state is JobState.CUT


@pytest.mark.parametrize("job_id", ["none", "../../etc", "a/b", ""])
def test_a_job_that_is_not_there(tmp_path, job_id):
    with pytest.raises(NotThere, match="There is no job"):
        Jobs(tmp_path).find(job_id)
