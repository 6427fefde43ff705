"""Any split of the same bytes gives the same events; what counts as generated text."""

import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.load.answer import Answer

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\nX-Atoll-Replica: 1\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def chunk(delta, finish=None, **more):
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    plain = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return plain | more


def event(plain, separators=(",", ":")):
    return b"data: " + json.dumps(plain, separators=separators, ensure_ascii=False).encode() + b"\n\n"


def usage(tokens, prompt=7, cached=0):
    counts = {
        "prompt_tokens": prompt,
        "total_tokens": prompt + tokens,
        "completion_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    return {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []} | {
        "usage": counts
    }


def framed(body, size=None):
    """The body in HTTP chunks of so many bytes; None: one chunk."""
    size = size or max(1, len(body))
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


def framed_each(*events):
    """Each event a chunk of its own, as vLLM sends them."""
    return b"".join(framed(one).removesuffix(b"0\r\n\r\n") for one in events) + b"0\r\n\r\n"


def feed(pieces, **settings_):
    answer = Answer(**settings_)
    for number, piece in enumerate(pieces):
        answer.now = float(number + 1)
        answer.feed(piece)
    return answer


def whole(*events):
    return CHUNKED + framed(b"".join(events))


def told(answer):
    """What must not depend on how the bytes were cut."""
    return (
        len(answer.times),
        answer.usage,
        answer.problem,
        answer.complete,
        answer.said_done,
        answer.status,
        answer.replica,
        answer.reusable,
    )


texts = st.text(max_size=12)
deltas = st.one_of(
    st.builds(lambda text: {"content": text}, texts),
    st.builds(lambda text: {"role": "assistant", "content": text}, texts),
    st.builds(lambda text: {"reasoning_content": text}, texts),
    st.builds(lambda text: {"reasoning": text, "content": None}, texts),
    st.builds(
        lambda text: {"tool_calls": [{"index": 0, "function": {"arguments": text, "name": None}}]},
        st.one_of(texts, st.just('{"content":"x"}')),
    ),
    st.just({"content": '"content":"' + "\\"}),
    st.just({}),
)
separators = st.sampled_from([(",", ":"), (", ", ": ")])
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw):
    """A body, and how many of its events carry text."""
    wanted = draw(st.lists(deltas, max_size=8))
    spaces, end = draw(separators), draw(line_ends)
    body = b""
    for delta in wanted:
        if draw(st.booleans()):
            body += b": keep-alive" + end + end
        body += event(chunk(delta), spaces).replace(b"\n\n", end + end)
    body += event(usage(3), spaces).replace(b"\n\n", end + end) + DONE.replace(b"\n\n", end + end)
    return body, sum(has_text(delta) for delta in wanted)


def has_text(delta):
    calls = delta.get("tool_calls", [])
    said = [delta.get("content"), delta.get("reasoning_content"), delta.get("reasoning")]
    return any(said) or any(call["function"]["arguments"] for call in calls)


class Slowly(Answer):
    """Takes nothing the short way: the parser sees every byte."""

    def take_chunk(self, data):
        return False

    def _take_chunks(self, data, start):
        return start


@st.composite
def chunked_events(draw):
    """HTTP chunks: mostly an event each, now and then two, a piece of one, a comment, an extension or capitals."""
    events = [event(chunk(delta)) for delta in draw(st.lists(deltas, max_size=10))] + [event(usage(3)), DONE]
    pieces, body = [], b""
    for one in events:
        body += draw(st.sampled_from([b"", b"", b"", b": keep-alive\n\n", b"\r", b"data: {"])) + one
        how = draw(st.sampled_from(["whole", "whole", "whole", "wait", "halves", "extension", "capitals"]))
        if how == "wait":
            continue
        cut = draw(st.integers(1, len(body) - 1)) if how == "halves" else len(body)
        size = b"%X" if how == "capitals" else b"%x;a=b" if how == "extension" else b"%x"
        pieces += [size % len(part) + b"\r\n" + part + b"\r\n" for part in (body[:cut], body[cut:]) if part]
        body = b""
    return pieces + ([b"%x\r\n%s\r\n" % (len(body), body)] if body else []) + [b"0\r\n\r\n"]


@settings(max_examples=200, deadline=None)
@given(chunks=chunked_events(), joined=st.lists(st.integers(1, 4), max_size=30), cuts=st.lists(st.integers(0, 3000)))
def test_the_short_way_finds_what_the_parser_finds(chunks, joined, cuts):
    """Reads of one chunk, of several, and cut anywhere: the same events at the same times."""
    reads, left = [CHUNKED], list(chunks)
    for count in [*joined, len(left)]:
        reads, left = [*reads, b"".join(left[:count])], left[count:]
    reads = [read for read in reads if read]
    data = b"".join(reads)
    places = sorted({0, len(data), *(at for at in cuts if at < len(data))})
    for pieces in (reads, [CHUNKED, *chunks], [data[a:b] for a, b in itertools.pairwise(places)]):
        quick, slow = Answer(keep=True), Slowly(keep=True)
        for number, piece in enumerate(pieces):
            for answer in (quick, slow):
                answer.now = float(number + 1)
                answer.take_chunk(piece) or answer.feed(piece)
        assert (*told(quick), list(quick.times), quick.said) == (*told(slow), list(slow.times), slow.said)


def test_a_chunk_of_one_event_does_not_reach_the_parser():
    answer = feed([CHUNKED + framed(event(chunk({"role": "assistant", "content": ""})))[:-5]])
    read = framed(event(chunk({"content": " a"})))[:-5]
    answer.take_chunk(read)  # the first may be needed to learn where this server puts its text
    assert answer.take_chunk(read)
    assert not answer.take_chunk(read[:-1])
    assert not answer.take_chunk(read.replace(b" a", b""))


@settings(max_examples=150, deadline=None)
@given(stream=streams(), size=st.integers(1, 400), cuts=st.lists(st.integers(0, 4000), max_size=12))
def test_any_split_of_the_bytes_gives_the_same_events(stream, size, cuts):
    body, count = stream
    message = CHUNKED + framed(body, size)
    places = sorted({0, len(message), *(cut % len(message) for cut in cuts)})
    pieces = [message[a:b] for a, b in itertools.pairwise(places)]
    cut, at_once = feed(pieces), feed([message])
    assert told(cut) == told(at_once)
    assert len(cut.times) == count
    assert cut.problem is None
    assert cut.usage["completion_tokens"] == 3


@settings(max_examples=100, deadline=None)
@given(stream=streams())
def test_byte_by_byte_is_the_same_as_at_once(stream):
    message = CHUNKED + framed(stream[0], 50)
    assert told(feed([bytes([byte]) for byte in message])) == told(feed([message]))


@settings(max_examples=150, deadline=None)
@given(junk=st.binary(max_size=200), cuts=st.lists(st.integers(0, 400), max_size=6))
def test_junk_never_raises_and_never_depends_on_the_split(junk, cuts):
    for message in (junk, CHUNKED + framed(junk) if junk else CHUNKED, CHUNKED + framed(b"data: " + junk + b"\n\n")):
        places = sorted({0, len(message), *(cut % max(1, len(message)) for cut in cuts)})
        pieces = [message[a:b] for a, b in itertools.pairwise(places)]
        cut, at_once = feed(pieces), feed([message])
        assert len(cut.times) == len(at_once.times)
        assert (cut.problem and cut.problem[0]) == (at_once.problem and at_once.problem[0])


def test_text_counts_from_its_first_piece_and_not_from_the_role():
    answer = feed(
        [
            CHUNKED,
            framed(event(chunk({"role": "assistant", "content": ""})))[:-5],
            framed(event(chunk({"content": "Hello"})))[:-5],
            framed(event(chunk({"content": ""})))[:-5],
            framed(event(chunk({"content": " you"}, "length")))[:-5],
            framed(event(usage(2, cached=16)) + DONE),
        ]
    )
    assert list(answer.times) == [3.0, 5.0]
    assert answer.first_byte == 1.0
    assert answer.problem is None
    assert answer.usage["prompt_tokens_details"]["cached_tokens"] == 16


@pytest.mark.parametrize(
    "delta",
    [
        {"content": '"'},
        {"content": "\n"},
        {"content": "\\"},
        {"content": "한국어"},
        {"reasoning_content": "hm"},
        {"reasoning": "hm"},
        {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
    ],
)
@pytest.mark.parametrize("spaces", [(",", ":"), (", ", ": ")])
def test_generated_text_is_seen_wherever_it_stands(delta, spaces):
    events = [event(chunk(delta), spaces) for _ in range(3)]
    assert len(feed([whole(*events, DONE)]).times) == 3


@pytest.mark.parametrize(
    "plain",
    [
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": None}),
        chunk({}, "stop"),
        chunk({"content": ""}, "stop"),
        usage(3),
        chunk({"tool_calls": []}),
        chunk({"content": ""}, None, note={"content": None}),
    ],
)
def test_a_chunk_without_text_is_no_token(plain):
    assert len(feed([whole(event(plain), DONE)]).times) == 0


def test_text_in_a_second_choice_is_seen_behind_an_empty_first():
    two = chunk({"content": ""})
    two["choices"].append({"index": 1, "delta": {"content": "x"}, "finish_reason": None})
    assert len(feed([whole(event(two), DONE)]).times) == 1


def test_completions_carry_text_in_text():
    plain = {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": " a", "logprobs": None}]}
    empty = {"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 0, "text": ""}]}
    assert len(feed([whole(event(plain), event(empty), event(plain), DONE)]).times) == 2


def test_a_finish_reason_in_the_last_text_chunk_counts_before_a_usage_and_without_done():
    """What comes behind it neither says that the answer is whole nor takes it back."""
    stream = CHUNKED + framed_each(
        event(chunk({"content": "a"})), event(chunk({"content": "b"}, "length")), event(usage(2))
    )
    answer = feed([stream])
    assert (answer.complete, answer.problem, len(answer.times)) == (True, None, 2)
    assert answer.usage["completion_tokens"] == 2
    cut = feed([CHUNKED + framed_each(event(chunk({"content": "a"})), event(chunk({"content": "b"})), event(usage(2)))])
    assert cut.problem[0] == "truncated"


def test_a_finish_reason_and_usage_in_the_last_text_chunk_are_read():
    last = chunk({"content": "x"}, "length", usage={"prompt_tokens": 3, "completion_tokens": 9})
    answer = feed([whole(event(chunk({"content": "x"})), event(last))])
    assert answer.problem is None
    assert answer.usage["completion_tokens"] == 9


@pytest.mark.parametrize(
    ("message", "word"),
    [
        (whole(event(chunk({"content": "x"}))), "truncated"),
        (whole(b'data: {"choices":[{"delta":{"content":"x\n\n', DONE), "bad_sse"),
        (whole(b"hello\n\n", DONE), "bad_sse"),
        (whole(b"data: 5\n\n", DONE), "bad_sse"),
        (whole(event({"error": {"message": "engine died", "code": 500}}), DONE), "stream_error"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 4\r\n\r\n<ht>", "wrong_content_type"),
        (b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}", "wrong_content_type"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "bad_http"),
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 0\r\n\r\n", "http_503"),
    ],
)
def test_each_bad_answer_has_a_class_of_its_own(message, word):
    assert feed([message]).problem[0] == word


def test_the_engines_own_words_are_shown():
    body = json.dumps({"error": {"message": "maximum context length is 4096 tokens", "code": 400}}).encode()
    head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    assert feed([head + body]).problem == ("http_400", "maximum context length is 4096 tokens")


def test_an_answer_without_length_ends_with_the_connection():
    answer = feed([HEAD + b"\r\n" + event(chunk({"content": "x"})) + DONE])
    assert not answer.complete
    answer.end_of_bytes()
    assert answer.complete
    assert answer.problem is None
    assert not answer.reusable


def test_a_connection_closed_within_a_chunked_answer_is_truncated():
    answer = feed([whole(event(chunk({"content": "x"})), DONE)[:-7]])
    answer.end_of_bytes()
    assert answer.problem[0] == "truncated"


def test_a_gigantic_event_is_refused(monkeypatch):
    monkeypatch.setattr("atoll.load.answer.LONGEST_EVENT", 1000)
    assert feed([CHUNKED + framed(b"data: " + b"x" * 3000)[:-5]]).problem[0] == "line_too_long"


def test_an_answer_at_once_gives_its_usage_and_no_token_times():
    plain = {"choices": [{"message": {"content": "hi"}, "finish_reason": "stop"}], "usage": {"completion_tokens": 1}}
    body = json.dumps(plain).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
    answer = feed([head + body], streaming=False)
    assert answer.problem is None
    assert answer.usage == {"completion_tokens": 1}
    assert len(answer.times) == 0


def test_the_next_answer_on_the_same_connection_starts_afresh():
    answer = feed([whole(event(chunk({"content": "x"})), DONE)])
    assert answer.reusable
    answer.reset()
    answer.now = 9.0
    answer.feed(whole(event(chunk({"content": "y"})), event(chunk({"content": "z"})), DONE))
    assert list(answer.times) == [9.0, 9.0]
    assert answer.problem is None
