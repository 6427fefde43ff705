"""A workspace's things are found by what they are; an id is no path, and links are not followed."""

import shutil

import pytest

from atoll.errors import NotThere
from atoll.web.workspace import Kind, Workspace
from stand_ins.clock import ManualClock
from stand_ins.patience import wait_until


def filled(tmp_path):
    root = tmp_path / "ws"
    for path in (
        "boxes/office.txt",
        "models/mine/config.json",
        "layouts/best.yaml",
        "study.yaml",
        "bundle/layout.yaml",
        "bundle/nginx.conf",
        "runs/one/run.yaml",
        "runs/big/study-run.yaml",
        "runs/big/2xTP2/run.yaml",
        ".atoll/jobs/1/job.yaml",
    ):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text("x: 1\n")
    return Workspace(root)


def test_what_is_there_is_found_by_kind(tmp_path):
    workspace = filled(tmp_path)
    names = {kind: sorted(thing.name for thing in workspace.things(kind)) for kind in Kind}
    assert names == {
        Kind.BOX: ["boxes/office.txt"],
        Kind.LAYOUT: ["layouts/best.yaml"],
        Kind.STUDY: ["study.yaml"],
        Kind.BUNDLE: ["bundle"],
        Kind.MODEL: ["models/mine/config.json"],
        Kind.RUN: ["runs/big/2xTP2", "runs/one"],
        Kind.STUDY_RUN: ["runs/big"],
    }


def test_an_id_finds_its_thing_and_no_path_does(tmp_path):
    workspace = filled(tmp_path)
    (run,) = [thing for thing in workspace.things(Kind.RUN) if thing.name == "runs/one"]
    assert workspace.find(run.id, Kind.RUN) == run
    for bad in ("runs/one", "../ws/runs/one", "", run.id + "0"):
        with pytest.raises(NotThere, match="There is no run"):
            workspace.find(bad, Kind.RUN)
    with pytest.raises(NotThere):
        workspace.find(run.id, Kind.BUNDLE)


def test_a_link_out_of_the_workspace_is_not_followed(tmp_path):
    outside = tmp_path / "outside" / "run"
    outside.mkdir(parents=True)
    (outside / "run.yaml").write_text("x: 1\n")
    workspace = filled(tmp_path)
    (workspace.root / "runs" / "link").symlink_to(outside)
    (workspace.root / "boxes" / "link.txt").symlink_to("/etc/passwd")
    assert all("link" not in thing.name for kind in Kind for thing in workspace.things(kind))


def test_a_fresh_name_is_nobodys(tmp_path):
    workspace = filled(tmp_path)
    assert workspace.fresh("boxes", "office", ".txt").name == "office-2.txt"
    assert workspace.fresh("boxes", "../../etc/passwd", ".txt").name == "etc-passwd.txt"
    assert workspace.fresh("boxes", "서버 1", ".txt").parent == workspace.root / "boxes"


def test_what_comes_and_goes_is_seen_at_once(tmp_path):
    """Folders are remembered once they are old by this clock; that they have changed since is seen."""
    clock, probe = ManualClock(), tmp_path / "probe"
    clock.wall = lambda: 1e11
    workspace = Workspace(filled(tmp_path).root, clock=clock)

    def names():
        """The runs, then a file system whose time has gone on, as it has between two changes that a person makes."""
        found = {thing.name for thing in workspace.things(Kind.RUN)}
        probe.touch()
        last = probe.stat().st_ctime_ns
        wait_until(lambda: probe.touch() or probe.stat().st_ctime_ns > last)
        return found

    assert names() == names() == {"runs/one", "runs/big/2xTP2"}
    (one,) = [thing for thing in workspace.things(Kind.RUN) if thing.name == "runs/one"]
    assert workspace.find(one.id, Kind.RUN) == workspace.find(one.id, Kind.RUN) == one
    new = workspace.root / "runs" / "two"
    new.mkdir()
    assert len(names()) == 2
    (new / "run.yaml").write_text("x: 1\n")
    assert names() == {"runs/one", "runs/two", "runs/big/2xTP2"}
    shutil.rmtree(one.path)
    assert names() == {"runs/two", "runs/big/2xTP2"}
    with pytest.raises(NotThere):
        workspace.find(one.id, Kind.RUN)
    one.path.symlink_to(new)
    with pytest.raises(NotThere):
        workspace.find(one.id, Kind.RUN)
