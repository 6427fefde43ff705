"""Who starts a bundle."""

import pytest

from atoll.errors import InputError
from atoll.model.read import read_model
from atoll.render import RENDERERS, render_bundle
from atoll.run.runner import RUNNERS, find_runner, runner_of
from stand_ins.layouts import MODEL


def test_a_folder_is_started_by_whoever_knows_a_file_in_it(tmp_path):
    with pytest.raises(InputError, match="holds no bundle; write one"):
        runner_of(tmp_path)
    (tmp_path / "compose.yaml").touch()
    assert runner_of(tmp_path).name == "compose"
    with pytest.raises(
        InputError, match="holds no bundle for process; write one with `atoll render LAYOUT --to process`"
    ):
        runner_of(tmp_path, "process")
    (tmp_path / "process.yaml").touch()
    assert [runner_of(tmp_path, to).name for to in (None, "compose")] == ["process", "compose"]


def test_a_runner_that_there_is_not_is_answered_with_those_there_are(tmp_path):
    for ask in (lambda: find_runner("slurm"), lambda: runner_of(tmp_path, "slurm")):
        with pytest.raises(InputError, match="'slurm'; there are process, compose"):
            ask()


def test_every_runner_finds_its_file_in_what_the_renderer_of_its_name_writes(layout):
    assert set(RUNNERS) <= set(RENDERERS)
    for runner in RUNNERS.values():
        assert runner.bundle_file in render_bundle(layout, read_model(MODEL), to=runner.name).files
