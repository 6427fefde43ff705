"""What the Reader takes by its shape is what the parser would have found, at the same moments."""

import asyncio
import itertools
import json
import socket
from contextlib import closing

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atoll.load.answer import Answer
from atoll.load.client import Connection
from atoll.load.reader import Reader
from atoll.load.shapes import LONGEST_SHAPE, Shapes
from atoll.traffic.request import Request

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def framed(plain, *, separators=(",", ":")):
    body = b"data: " + json.dumps(plain, separators=separators, ensure_ascii=False).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(body), body)


def chunk(text="a", finish=None, *, key="content", number=1, **more):
    choice = {"index": 0, "delta": {key: text}, "logprobs": None, "finish_reason": finish}
    return framed({"id": f"chatcmpl-{number:08}", "choices": [choice]} | more)


class Slowly(Answer):
    """Takes nothing the short way: the parser sees every byte."""

    def take_chunk(self, data):
        return False

    def _take_chunks(self, data, start):
        return start


class Line:
    """A connection and the server's end of it; each send is read at the moment that the clock shows."""

    def __init__(self, shapes=None):
        shapes = Shapes() if shapes is None else shapes
        self.moment = 0.0
        self.stamped = 0
        self.ended = []
        self.reader = Reader(lambda: self.moment, shapes)
        self.mine, self.theirs = socket.socketpair()
        self.mine.setblocking(False)
        self.connection = Connection(
            Answer(shapes=shapes), now=lambda: self.moment, on_end=self.ended.append, on_first=lambda _: None
        )
        self.connection.use_socket(self.mine, self.reader)
        self.ask()

    def ask(self):
        self.connection.begin(Request(number=0, user=0, prompt_tokens=1, output_tokens=1), 0.0)
        self.connection.send(b"?")
        self.theirs.recv(1)

    def say(self, data):
        before, took = len(self.connection.times), self.connection.answer.now
        self.moment += 1.0
        self.theirs.sendall(data)
        self.reader.drain()
        self.stamped += len(self.connection.times) > before and self.connection.answer.now == took

    def close(self):
        self.connection.close()
        self.theirs.close()


@pytest.fixture
def line():
    made = Line()
    yield made
    made.close()


def by_the_parser(reads):
    """Times and outcome when every byte goes through the parser."""
    answer = Slowly()
    for number, read in enumerate(reads):
        answer.now = number + 1.0
        answer.feed(read)
        if answer.complete or answer.problem is not None:
            break
    return answer


def told(answer):
    return (list(answer.times), answer.usage, answer.problem, answer.complete, answer.said_done, answer.reusable)


texts = st.sampled_from(["a", " b", "word", " longer", '"', "\\", "\n", "\r", "한", "", '","content":"x'])
plain_chunks = st.builds(chunk, texts, number=st.integers(0, 3))
odd_chunks = st.one_of(
    st.builds(chunk, texts, st.sampled_from(["length", "stop"])),
    st.builds(chunk, texts, key=st.sampled_from(["reasoning", "reasoning_content", "refusal"])),
    st.builds(lambda text: chunk(text, usage={"completion_tokens": 3}), texts),
    st.builds(lambda text: chunk(text, error={"message": "no"}), texts),
    st.builds(lambda text: chunk(text).replace(b'{"id"', b'{\n"id"'), texts),
    st.builds(lambda text: chunk(text).replace(b"\n\n", b"\r\r"), texts),
    st.builds(lambda text: chunk(text) + b"4\r\n: \n\n\r\n", texts),
    st.builds(lambda text: chunk(text)[1:], texts),
    st.just(framed({"choices": [], "usage": {"completion_tokens": 9}})),
    st.just(framed({"error": {"message": "engine died"}})),
    st.just(b"5\r\n: hi\n\r\n"),
)
streams = st.lists(st.one_of(plain_chunks, plain_chunks, plain_chunks, odd_chunks), max_size=14)


@settings(max_examples=200, deadline=None)
@given(chunks=streams, joined=st.lists(st.integers(1, 3), max_size=14), cuts=st.lists(st.integers(0, 2500), max_size=4))
@example(chunks=[chunk(), chunk(), chunk("b", "stop"), chunk()], joined=[1] * 5, cuts=[])
def test_stamps_of_known_shapes_are_what_the_parser_finds(chunks, joined, cuts):
    """Over a socket, read by read: one chunk, several, or cut anywhere."""
    reads, left = [HEAD], [*chunks, DONE]
    for count in [*joined, len(left)]:
        reads, left = [*reads, b"".join(left[:count])], left[count:]
    reads = [read for read in reads if read]
    data = b"".join(reads)
    places = sorted({0, len(data), *(at for at in cuts if at < len(data))})
    shapes = Shapes()
    for said in (reads, [HEAD, *chunks, DONE], [data[a:b] for a, b in itertools.pairwise(places)]):
        pieces = [piece[at : at + 900] for piece in said for at in range(0, len(piece), 900)]  # a read each
        with closing(Line(shapes)) as line:
            for piece in pieces:
                if line.ended:
                    break
                line.say(piece)
            slow = by_the_parser(pieces)
            assert told(line.connection.answer) == told(slow)
            assert len(line.ended) == (slow.complete or slow.problem is not None)


def test_a_chunk_like_an_earlier_one_does_not_reach_its_listener(line):
    for data in (HEAD, chunk(), chunk("b"), chunk("c"), chunk("d", number=2)):
        line.say(data)
    assert line.stamped == 3
    assert list(line.connection.times) == [2.0, 3.0, 4.0, 5.0]
    line.say(chunk("d", "length"))
    line.say(DONE)
    assert line.stamped == 3
    assert line.ended
    assert line.connection.answer.problem is None


def test_several_known_chunks_in_one_read_have_a_time_each(line):
    """A client that fell behind finds more than one; all came by the moment of the read."""
    for data in (HEAD, chunk(), chunk("b"), chunk("c") + chunk("d"), chunk("e") * 3):
        line.say(data)
    assert line.stamped == 3
    assert list(line.connection.times) == [2.0, 3.0, 4.0, 4.0, 5.0, 5.0, 5.0]
    line.say(chunk("f") + chunk("g", "length"))
    line.say(DONE)
    assert line.stamped == 3
    assert len(line.connection.times) == 9
    assert line.connection.answer.said_finish


def test_a_finish_reason_is_seen_behind_any_number_of_known_chunks(line):
    for data in (HEAD, *[chunk()] * 40, chunk("b", "stop"), b"0\r\n\r\n"):
        line.say(data)
    assert line.connection.answer.said_finish
    assert line.connection.answer.problem is None
    assert len(line.connection.times) == 41


def test_known_chunks_alone_are_a_truncated_stream(line):
    for data in (HEAD, *[chunk()] * 40, b"0\r\n\r\n"):
        line.say(data)
    assert line.connection.answer.problem[0] == "truncated"


def test_every_answer_on_a_connection_has_times_of_its_own(line):
    for _ in range(2):
        for data in (HEAD, *[chunk()] * 3, DONE):
            line.say(data)
        first = list(line.connection.times)
        line.ask()
    assert first == [7.0, 8.0, 9.0]
    assert len(line.connection.times) == 0


def test_bytes_that_nobody_asked_for_close_the_connection(line):
    for data in (HEAD, *[chunk()] * 3, DONE, chunk()):
        line.say(data)
    assert not line.connection.is_open


def test_a_server_that_is_gone_is_noticed_between_known_chunks(line):
    for data in (HEAD, *[chunk()] * 3):
        line.say(data)
    line.theirs.close()
    line.reader.drain()
    assert line.connection.answer.problem[0] == "truncated"
    assert len(line.connection.times) == 3


def test_more_bytes_than_one_read_takes_are_all_read(line):
    line.say(HEAD)
    line.say(chunk() * 900 + DONE)
    assert line.ended
    assert len(line.connection.times) == 900


def test_a_listener_that_fails_does_not_cost_the_others_their_bytes():
    class Bad:
        def take(self, data, moment):
            raise ValueError("broken")

        def connection_lost(self, error):
            pass

    class Good(Bad):
        def take(self, data, moment):
            got.append(data)

    async def scene():
        reader = Reader(lambda: 0.0)
        pairs = [socket.socketpair() for _ in range(4)]
        for number, (mine, theirs) in enumerate(pairs):
            mine.setblocking(False)
            reader.add(mine, Bad() if number == 1 else Good())
            theirs.send(b"%d" % number)
        with pytest.raises(ValueError, match="broken"):
            reader.drain()
        await asyncio.sleep(0)
        for pair in pairs:
            for one in pair:
                one.close()

    got = []
    asyncio.run(scene())
    assert sorted(got) == [b"0", b"2", b"3"]


@pytest.mark.parametrize(
    "plain",
    [
        chunk("a", "stop"),
        chunk("a", usage={"completion_tokens": 1}),
        chunk("a" * LONGEST_SHAPE),
        chunk("a").replace(b'"index":0', b'"index":x'),
    ],
)
def test_what_tells_of_an_end_or_is_no_json_is_no_shape(line, plain):
    for data in (HEAD, plain, plain, plain):
        line.say(data)
    assert line.stamped == 0


def test_logprobs_that_differ_each_time_are_given_up_soon():
    shapes = Shapes()
    for number in range(1000):
        data = chunk(number=1).replace(b"null,", b"1%06d," % number, 1)
        shapes.learn(data, data[: data.index(b"{") + 1], data.index(b'{"content"'), data.index(b'"a"') + 1)
        assert not shapes.knows(chunk(), b'"content":"')
    assert len(shapes) == 1


def test_what_comes_while_answers_are_handed_over_is_stamped_when_it_comes(monkeypatch):
    """A listener that takes long does not make the others' arrivals late, and each one's bytes keep their order."""
    monkeypatch.setattr("atoll.load.reader._LOOK_EVERY", 1)
    clock = [0.0]
    reader = Reader(lambda: clock[0])
    ours, theirs = zip(*(socket.socketpair() for _ in range(3)), strict=True)
    taken = []

    class Slow:
        def __init__(self, number):
            self.number = number

        def take(self, data, moment):
            taken.append((self.number, data, moment))
            if len(taken) == 1:  # meanwhile there is more of this one and something of the next
                clock[0] += 1.0
                theirs[0].send(b"second")
                theirs[1].send(b"other")
            clock[0] += 10.0

        def connection_lost(self, error):
            taken.append((self.number, error, None))

    async def story():
        reader.start()
        for number, one in enumerate(ours):
            one.setblocking(False)
            reader.add(one, Slow(number))
        theirs[0].send(b"first")
        theirs[2].send(b"third")
        reader.drain()
        reader.stop()

    asyncio.run(story())
    moments = {(number, data): moment for number, data, moment in taken}
    assert moments == {(0, b"first"): 0.0, (2, b"third"): 0.0, (0, b"second"): 11.0, (1, b"other"): 11.0}
    assert [data for number, data, _ in taken if number == 0] == [b"first", b"second"]
    for one in (*ours, *theirs):
        one.close()


def test_with_much_to_hand_over_the_rest_stays_in_its_sockets_and_comes_in_one_piece(monkeypatch):
    """Nothing is told of twice: what was left unread is read in the same turn, with what came behind it."""
    monkeypatch.setattr("atoll.load.reader._MOST_WAITING", 2)
    monkeypatch.setattr("atoll.load.reader._LOOK_EVERY", 2)
    ours, theirs = zip(*(socket.socketpair() for _ in range(9)), strict=True)
    taken = []

    class Listener:
        def __init__(self, number):
            self.number = number

        def take(self, data, moment):
            if not taken:
                theirs[8].send(b"+")
            taken.append((self.number, data))

        def connection_lost(self, error):
            taken.append((self.number, error))

    async def story():
        reader = Reader(lambda: 0.0)
        reader.start()
        for number, one in enumerate(ours):
            one.setblocking(False)
            reader.add(one, Listener(number))
            theirs[number].send(b"x")
        reader.drain()
        reader.stop()

    asyncio.run(story())
    for one in (*ours, *theirs):
        one.close()
    assert sorted(taken) == [(number, b"x") for number in range(8)] + [(8, b"x+")]
