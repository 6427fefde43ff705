"""Files are written whole or not at all."""

import os
from pathlib import Path

import pytest

from atoll.errors import InputError
from atoll.outside.files import make_folder, read_tail, read_text, refuse_to_overwrite, write_whole


def test_a_file_is_written_with_its_folder_and_mode(tmp_path):
    path = tmp_path / "deep" / "secret.env"
    write_whole(path, "KEY=1\n", mode=0o600)
    assert path.read_text() == "KEY=1\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_full_disk_leaves_the_old_file_and_no_litter(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    write_whole(path, "old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"summary\.json cannot be written: No space left on device"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "words"), [("none.txt", "There is no file"), (".", "is a folder")])
def test_a_file_that_cannot_be_read_is_told_in_a_sentence(tmp_path, name, words):
    with pytest.raises(InputError, match=words):
        read_text(tmp_path / name)


def test_bytes_that_are_no_text_are_read_with_marks(tmp_path):
    (tmp_path / "x").write_bytes(b"\xff\xfeGPU0")
    assert read_text(tmp_path / "x").endswith("GPU0")


def test_a_folder_in_the_place_of_a_file_cannot_be_made(tmp_path):
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        make_folder(tmp_path / "x" / "y")


def test_what_is_there_is_overwritten_only_with_force(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    refuse_to_overwrite(tmp_path / "new")
    refuse_to_overwrite(tmp_path / "folder")
    refuse_to_overwrite(Path("/dev/null"))
    for there in (tmp_path / "file", tmp_path):
        with pytest.raises(InputError, match="overwrite it with --force"):
            refuse_to_overwrite(there)
        refuse_to_overwrite(there, force=True)


def test_devices_pipes_and_names_that_cannot_be_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", tmp_path / "pipe"):
        with pytest.raises(InputError, match="is no file but a device or a pipe; give `-`"):
            read_text(path)
    with pytest.raises(InputError, match="There is no file"):
        read_text("a\0b")


def test_a_file_of_any_size_costs_a_sentence(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as stream:
        stream.truncate(10**12)  # a hole
    with pytest.raises(InputError, match="is larger than 256 MiB"):
        read_text(path)


def test_a_file_of_the_kernel_is_read():
    assert read_text("/proc/sys/kernel/random/boot_id").count("-") == 4


@pytest.mark.parametrize("lines", [1, 3, 200])
def test_the_tail_of_a_file_is_its_last_whole_lines(tmp_path, monkeypatch, lines):
    monkeypatch.setattr("atoll.outside.files.PIECE", 7)
    text = b"".join(b"line %d\n" % number for number in range(50))
    (tmp_path / "x.log").write_bytes(text + b"half a li")
    tail, end = read_tail(tmp_path / "x.log", lines=lines)
    assert end == len(text)
    assert text.endswith(tail)
    assert tail.splitlines()[-lines:] == text.splitlines()[-lines:]
    assert len(tail) <= len(text) if lines == 200 else len(tail) < 9 * (lines + 3)
    assert read_tail(tmp_path / "none.log", lines=lines) == (b"", 0)


def test_the_tail_of_a_file_without_line_ends_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr("atoll.outside.files.PIECE", 10)
    monkeypatch.setattr("atoll.outside.files.TAIL", 40)
    (tmp_path / "x.log").write_bytes(b"x" * 1000 + b"\n")
    assert read_tail(tmp_path / "x.log", lines=3) == (b"x" * 39 + b"\n", 1001)


def test_a_pipe_is_written_to_and_stays_one(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_whole(tmp_path / "pipe", "hello")
    assert os.read(reader, 100) == b"hello"
    assert (tmp_path / "pipe").is_fifo()
    os.close(reader)


def test_a_full_device_is_said():
    with pytest.raises(InputError, match="/dev/full cannot be written: No space left on device"):
        write_whole(Path("/dev/full"), "hello")
