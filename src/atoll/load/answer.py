"""The bytes of one HTTP answer -> when text arrived, how it ended. No sockets and no clock in here.

The hot path is `Answer.take_chunk`: the bytes are one whole chunk of a chunked body, which holds one whole event with
text. It is known by a few comparisons, without an HTTP parser and without JSON. Whatever comes in any other shape goes
through llhttp (`feed`), which finds the same events. An event whose bytes do not decide (the role chunk, the last one,
the usage, escapes in a key) is parsed; there are about three in an answer.

In valid JSON the bytes `"content":"` after a `{` or a `,` can only be the key `content` with a string value: inside a
string every quote has a backslash before it. So a byte other than `"` behind them is generated text.
"""

import json
import re
from array import array
from typing import Any

import httptools

from atoll.load.error_text import error_sentence, error_text, show
from atoll.load.events import carries_text, choices_of, error_of, is_delta, is_plainly_empty, whole_text
from atoll.load.shapes import CHUNK_END, Shapes
from atoll.load.target import EMULATED_HEADER

QUOTE, OPEN = b'"{'
NEEDLES = (
    b'"content":"',
    b'"reasoning_content":"',
    b'"reasoning":"',
    b'"text":"',
    b'"arguments":"',
    b'"delta":"',
    b'"content": "',
    b'"reasoning_content": "',
    b'"reasoning": "',
    b'"text": "',
    b'"arguments": "',
    b'"delta": "',
)
LONGEST_EVENT = 8 * 2**20  # bytes; vLLM's longest events (logprobs of a large vocabulary) are far below
KEPT_BODY = 64 * 2**10  # of an error page
_SAID = re.compile(rb'"(?:content|text|delta)": ?"((?:[^"\\\\]|\\\\.)*)"')
_EMULATED = EMULATED_HEADER.lower().encode()
_EMPTY = b'"content":""'
_DONE_CHUNK = b"e\r\ndata: [DONE]\n\n\r\n"
# Ends of an answer that the engine gave up; the others are stop, length, tool_calls and their like.
_GIVEN_UP = frozenset({"abort", "aborted", "error", "cancelled", "canceled", "failed"})
_MAY_BE_GIVEN_UP = re.compile(rb'"(?:finish_reason|stop_reason)": ?"(?:abort|error|cancel|fail)')
_MARK = b"\xef\xbb\xbf"  # a byte-order mark may stand before the first event (WHATWG HTML, 9.2.6)
_LONGEST_QUICK = 65536  # bytes: no read is longer


class _Openings(dict[int, bytes]):
    """How a chunk of so many bytes, framing included, begins when its body is one event with a JSON object."""

    def __missing__(self, size: int) -> bytes:
        body = size - 5  # a digit, two line ends
        while len(f"{body:x}") + body + 4 > size:
            body -= 1
        opening = b"%x\r\ndata: {" % max(body, 0)
        if size <= _LONGEST_QUICK:
            self[size] = opening
        return opening


_OPENINGS = _Openings()


class Answer:
    """One answer at a time on one connection; `reset` before each request.

    Times are whatever clock `now` was set from, before each call of `feed`.
    """

    __slots__ = (
        "_begun",
        "_between_chunks",
        "_body",
        "_chunked",
        "_close",
        "_holds",
        "_kind",
        "_last",
        "_length",
        "_needle",
        "_needle_length",
        "_parser",
        "_plain",
        "_replica_header",
        "_rest",
        "_shapes",
        "_streaming",
        "_whole_only",
        "complete",
        "content_type",
        "emulated",
        "first_byte",
        "keep",
        "kept",
        "location",
        "now",
        "problem",
        "replica",
        "retry_after",
        "said_done",
        "said_finish",
        "status",
        "times",
        "usage",
    )

    def __init__(
        self,
        *,
        streaming: bool = True,
        replica_header: str = "X-Atoll-Replica",
        keep: bool = False,
        whole_only: bool = False,
        holds: str = "choices",
        shapes: Shapes | None = None,
    ) -> None:
        """Make the reader of one connection's answers.

        Args:
            streaming: an event stream is expected, else one JSON document.
            replica_header: names who served.
            keep: keep the events, because the next turn carries their text.
            whole_only: any body will do; whoever asked looks at `body`.
            holds: the list that a whole answer is known by: choices, output, data, results.
            shapes: what is known of this server's chunks; more is put there.
        """
        self._replica_header = replica_header.lower().encode()
        self._streaming = streaming
        self._needle = NEEDLES[0]
        self._needle_length = len(self._needle)
        self._whole_only = whole_only
        self._holds = holds
        self._shapes = Shapes() if shapes is None else shapes
        self.keep = keep
        self.now = 0.0
        self.reset()

    def reset(self) -> None:
        """Forget the last answer; what was learnt about the server's JSON stays."""
        self._parser = httptools.HttpResponseParser(self)
        self.times = array("d")  # arrival of each piece of generated text
        self.first_byte = 0.0  # 0: no headers yet
        self.status = 0
        self.replica: str | None = None
        self.emulated = False  # whether the server says that it is `atoll emulate`
        self.content_type = ""
        self.location: str | None = None
        self.retry_after: str | None = None
        self.complete = False
        self.problem: tuple[str, str] | None = None  # class of failure and its sentence
        self.usage: dict[str, Any] | None = None
        self.said_done = False
        self.said_finish = False
        self.kept: list[bytes] = []
        self._plain = True
        self._body = bytearray()
        self._rest = bytearray()
        self._begun = False
        self._last = b""
        self._chunked = False
        self._between_chunks = False  # the parser has seen whole chunks of an event stream, or its head, and no more
        self._close = False
        self._length: int | None = None

    def take_chunk(self, data: bytes) -> bool:
        """Take bytes that are exactly one chunk with one event with text; anything else is refused (False).

        The parser does not see such a chunk: it stands before the next chunk's size and goes on standing there.
        """
        if not self._between_chunks or not (self._shapes.knows(data, self._needle) or self._is_text_chunk(data)):
            return False
        self.times.append(self.now)
        self._last = data
        if self.keep:
            self.kept.append(data)
        return True

    def _is_text_chunk(self, data: bytes) -> bool:
        """The same for a chunk of any shape, which is then known."""
        size = len(data)
        opening = _OPENINGS[size]
        start = len(opening)
        if not (
            data.startswith(opening)
            and data.endswith(b"}\n\n\r\n")
            and data.find(b"\n", start) == size - 4
            and data.find(b"\r", start) == size - 2
        ):
            return False
        at = data.find(self._needle, start - 1)
        if at <= start or data[at + self._needle_length] == QUOTE or data[at - 1] not in b"{,":
            return False
        self._shapes.learn(data, opening, at - 1, at + self._needle_length)
        return True

    @property
    def is_steady(self) -> bool:
        """Whether a chunk of a known shape, now, would be one more time and nothing else."""
        return (
            self._between_chunks
            and not self.keep
            and self.problem is None
            and self._shapes.knows(self._last, self._needle)
        )

    def feed(self, data: bytes) -> None:
        """Take bytes as they came; look at `complete` and `problem` afterwards."""
        start = 0
        while start < len(data):
            if self._between_chunks:
                start = self._take_chunks(data, start)
            if start < len(data):
                end = self._next_stop(data, start)
                self._parse(data[start:end])
                start = end

    def _take_chunks(self, data: bytes, start: int) -> int:
        """Take whole chunks of one event each; gives where the first begins that is none."""
        while end := data.find(CHUNK_END, start) + 1:
            chunk = data[start : end + 3]
            if not (self.take_chunk(chunk) or self._take_other_chunk(chunk)):
                break
            start = end + 3
        return start

    def _take_other_chunk(self, data: bytes) -> bool:
        """Take a whole chunk of one event whose bytes do not show text; anything else is refused."""
        if data == _DONE_CHUNK:
            self.said_done = True
            return True
        size = len(data)
        opening = _OPENINGS[size]
        start = len(opening)
        if (
            not data.startswith(opening)
            or data.find(b"\n", start) != size - 4
            or data.find(b"\r", start) != size - 2
            or not data.endswith(CHUNK_END)
        ):
            return False
        self._take_payload(data[start - 1 : -4])
        return True

    def _next_stop(self, data: bytes, start: int) -> int:
        """How far the parser reads before a whole chunk may begin: behind the head, behind an event."""
        if self.first_byte and not (self._chunked and not self._plain):
            return len(data)
        mark = CHUNK_END if self.first_byte else b"\r\n\r\n"
        found = data.find(mark, start)
        return len(data) if found < 0 else found + 4

    def _parse(self, data: bytes) -> None:
        self._between_chunks = False
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            if self.problem is None and not self.complete:
                self.problem = ("bad_http", f"no valid HTTP: {error or type(error).__name__}")
            self._close = True
        if self._between_chunks:  # behind a chunk's line end there may be the beginning of the next one's size
            self._between_chunks = data.endswith(b"\n") and not (self._plain or self._rest or self.complete)

    def end_of_bytes(self) -> None:
        """The server closed the connection: right for an answer without length, else cut short."""
        if self.complete or self.problem is not None:
            return
        if self.first_byte and not self._chunked and self._length is None:
            self.on_message_complete()
        elif self.first_byte:
            self.problem = ("truncated", "the connection was closed in the middle of the answer")
        else:
            self.problem = ("connection_closed", "the connection was closed without an answer")

    @property
    def body(self) -> bytes:
        """Of an answer that is no event stream."""
        return bytes(self._body)

    @property
    def said(self) -> bytes:
        """The text of an answer whose events were kept, as JSON text without quotes."""
        if self._plain:
            return whole_text(bytes(self._body))
        return b"".join(b"".join(_SAID.findall(event)) for event in self.kept)

    @property
    def reusable(self) -> bool:
        """Whether the next request may go over the same connection."""
        return self.complete and not self._close

    # What httptools calls, in this order.

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1")
        elif name == self._replica_header:
            self.replica = value.decode("latin-1").strip() or None
        elif name == _EMULATED:
            self.emulated = True
        elif name == b"transfer-encoding":
            self._chunked = b"chunked" in value.lower()
        elif name == b"content-length":
            self._length = int(value) if value.isdigit() else None
        elif name == b"location":
            self.location = value.decode("latin-1")
        elif name == b"retry-after":
            self.retry_after = value.decode("latin-1").strip()

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            return
        self.first_byte = self.now
        kind = self.content_type.partition(";")[0].strip().lower()
        self._plain = not (self._streaming and self.status == 200 and kind in {"text/event-stream", ""})
        self._between_chunks = self._chunked and not self._plain  # before the first is as good

    def on_body(self, body: bytes) -> None:
        """A piece of the body: with vLLM, one whole event."""
        if (
            not self._rest
            and body.find(b"\n\n") == len(body) - 2
            and not self._plain
            and body[-3:-2] == b"}"
            and body.startswith(b"data: {")
            and b"\r" not in body
        ):
            at = body.find(self._needle)
            if at > 0 and body[at + self._needle_length] != QUOTE and body[at - 1] in b"{,":
                self.times.append(self.now)
                self._last = body
                if self.keep:
                    self.kept.append(body)
                return
        if self._plain:
            if len(self._body) < KEPT_BODY or (self.status == 200 and len(self._body) < LONGEST_EVENT):
                self._body += body
        else:
            self._take_pieces(body)

    def on_chunk_header(self) -> None:
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        self._between_chunks = True

    def on_message_complete(self) -> None:
        if self.status < 200:
            return
        self.complete = True
        self._close = self._close or not self._parser.should_keep_alive()  # it tells only while in this call
        if self.problem is None and not self._whole_only:
            self.problem = self._judge()

    # Event framing, for whatever is not one whole event.

    def _take_pieces(self, body: bytes) -> None:
        if self._rest and b"\n" not in body and b"\r" not in body and not self._rest.endswith(b"\r"):
            self._rest += body  # the middle of a long line: nothing can end here
            self._refuse_too_long()
            return
        data = bytes(self._rest) + body if self._rest else body
        if not self._begun:
            if len(data) < len(_MARK) and _MARK.startswith(data):
                self._rest = bytearray(data)
                return
            data, self._begun = data.removeprefix(_MARK), True
        held = b""
        if b"\r" in data:
            if data.endswith(b"\r"):  # a line feed may follow it
                data, held = data[:-1], b"\r"
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *events, rest = data.split(b"\n\n")
        for event in events:
            self._take_event(event)
        self._rest = bytearray(rest + held)
        self._refuse_too_long()

    def _refuse_too_long(self) -> None:
        if len(self._rest) > LONGEST_EVENT:
            self._fail("line_too_long", f"an event is longer than {LONGEST_EVENT >> 20} MiB")

    def _take_event(self, event: bytes) -> None:
        if event.startswith(b"data: ") and b"\n" not in event:
            payload = event[6:]
        else:
            lines = [line for line in event.split(b"\n") if line]
            payload = b"\n".join(line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:"))
            if not payload:
                if any(not line.startswith((b":", b"event:", b"id:", b"retry:", b"data")) for line in lines):
                    self._fail("bad_sse", f"no event-stream line: {show(lines[0])}")
                return
        if self._has_text_bytes(payload):
            self.times.append(self.now)
            self._last = payload
            if self.keep:
                self.kept.append(payload)
        else:
            self._take_payload(payload)

    def _has_text_bytes(self, payload: bytes) -> bool:
        at = payload.find(self._needle)
        return (
            at > 0
            and payload.endswith(b"}")
            and payload.startswith(b"{")
            and payload[at + self._needle_length] != QUOTE
            and payload[at - 1] in b"{,"
        )

    def _take_payload(self, payload: bytes) -> None:
        """An event whose bytes did not decide."""
        if payload[:1] != b"{" and payload.strip() == b"[DONE]":
            self.said_done = True
            return
        if _EMPTY in payload and is_plainly_empty(payload):
            return  # the role chunk, or a token whose bytes are not yet a character
        try:
            plain = json.loads(payload.decode("utf-8", "surrogatepass"))
        except ValueError:
            self._fail("bad_sse", f"an event is no JSON: {show(payload)}")
            return
        if not isinstance(plain, dict):
            self._fail("bad_sse", f"an event is no JSON object: {show(payload)}")
            return
        if any(carries_text(choice) for choice in choices_of(plain)) or is_delta(plain):
            self._last = payload  # what else it has counts if it is the last one: see _read_last
            self.times.append(self.now)
            self._learn(payload)
            if self.keep:
                self.kept.append(payload)
        elif plain.get("error") or plain.get("object") == "error":
            self._fail("stream_error", error_sentence(plain))
        elif isinstance(plain.get("response"), dict):
            self._note_response(plain)
        elif plain.get("type") == "error":
            self._fail("stream_error", error_sentence(plain))
        else:
            self._note_end(plain)

    def _learn(self, payload: bytes) -> None:
        """Look for text where this server puts it, next time."""
        for needle in NEEDLES:
            at = payload.find(needle)
            if at > 0 and payload[at + len(needle)] != QUOTE and payload[at - 1] in b"{, ":
                self._needle, self._needle_length = needle, len(needle)
                return

    def _note_end(self, plain: dict[str, Any]) -> None:
        if isinstance(plain.get("usage"), dict):
            self.usage = plain["usage"]
        for choice in choices_of(plain):
            reason = choice.get("finish_reason")
            self.said_finish = self.said_finish or bool(reason)
            if isinstance(reason, str) and reason.lower() in _GIVEN_UP:
                self._fail("aborted", f"the engine gave the answer up: finish_reason {reason}")

    def _note_response(self, plain: dict[str, Any]) -> None:
        """An event of /v1/responses that holds the response as it is by then."""
        response, kind = plain["response"], str(plain.get("type"))
        if isinstance(response.get("usage"), dict):
            self.usage = response["usage"]
        if kind in {"response.completed", "response.incomplete"}:
            self.said_finish = True
        elif kind in {"response.failed", "response.cancelled"}:
            self._fail("stream_error", error_sentence(response.get("error") or {"message": kind}))

    def _fail(self, word: str, sentence: str) -> None:
        if self.problem is None:
            self.problem = (word, sentence)

    # The end.

    def _judge(self) -> tuple[str, str] | None:
        if self.status != 200:
            return (f"http_{self.status}", error_text(bytes(self._body)) or f"status {self.status}")
        if not self._plain:
            return self._judge_stream()
        if self._streaming:
            refused = error_of(self._body)
            if refused is not None:
                return ("stream_error", refused)
            shown = self.content_type or "none"
            return ("wrong_content_type", f"an event stream was asked for, this is {shown}: {show(self._body)}")
        return self._judge_whole()

    def _judge_stream(self) -> tuple[str, str] | None:
        if self._rest.strip() == b"data: [DONE]":
            self.said_done = True
        if not (self.said_done or self.said_finish) or self.usage is None or _MAY_BE_GIVEN_UP.search(self._last):
            self._read_last()
        if self.said_done or self.said_finish:
            return self.problem
        return ("truncated", "the stream ended without a finish reason and without [DONE]")

    def _read_last(self) -> None:
        """The last event with text may also carry the finish reason or the usage."""
        payload = self._last[max(self._last.find(b"{"), 0) :]  # it may have a chunk's framing around it
        try:
            plain = json.loads(payload) if payload else None
        except ValueError:
            return
        if isinstance(plain, dict):
            self._note_end(plain)

    def _judge_whole(self) -> tuple[str, str] | None:
        try:
            plain = json.loads(self._body)
        except ValueError:
            return ("wrong_content_type", f"JSON was asked for, this is {self.content_type}: {show(self._body)}")
        if not isinstance(plain, dict) or not (isinstance(plain.get(self._holds), list) and plain[self._holds]):
            refused = error_of(self._body)
            return ("bad_answer", refused or f"an answer without {self._holds}: {show(self._body)}")
        self._note_end(plain)
        return self.problem
