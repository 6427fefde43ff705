"""A growing file is followed from any byte on, line by line."""

import asyncio

from atoll.web.tail import TailLine, tail


def follow(path, steps, *, offset=0):
    """What the follower gives while `steps` happen to the file, one at each of its sleeps."""
    ahead = list(steps)

    async def sleep(_):
        if ahead:
            ahead.pop(0)()

    async def collect():
        return [line async for line in tail(path, offset=offset, sleep=sleep, ended=lambda: not ahead)]

    return asyncio.run(collect())


def append(path, text):
    def step():
        with path.open("a") as stream:
            stream.write(text)

    return step


def test_lines_are_given_when_they_are_whole(tmp_path):
    path = tmp_path / "live.jsonl"
    got = follow(path, [append(path, "one\ntw"), append(path, "o\n"), append(path, "half")])
    assert got == [TailLine("one", 4), TailLine("two", 8)]


def test_it_goes_on_from_a_byte(tmp_path):
    path = tmp_path / "live.jsonl"
    path.write_text("one\ntwo\n")
    assert follow(path, [append(path, "drei\n")], offset=4) == [TailLine("two", 8), TailLine("drei", 13)]


def test_a_file_that_begins_anew_is_told_of(tmp_path):
    path = tmp_path / "live.jsonl"
    path.write_text("one\ntwo\n")
    assert follow(path, [lambda: path.write_text("x\n")], offset=8) == [None, TailLine("x", 2)]
