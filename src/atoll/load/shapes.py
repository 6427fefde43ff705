r"""How a usual chunk of this server looks, so that most chunks are known by comparing a few bytes.

A read is a chunk of a known shape when it has the length of one that was looked at closely, and

    fa\r\ndata: {        its beginning, the chunk's size included,
    {"content":"         the key of the text, at the same place,
    ...                  behind it some text, and nowhere here a line end,
    "},"logprobs":null,"finish_reason":null}]}\n\n\r\n      and all that stood behind that one's text.

So it is one whole chunk with one event, which has text and neither a finish reason nor a usage. What stands between the
beginning and the key (the id, the time) may differ. One Shapes serves all connections to a server.
"""

import json
import re
from typing import Any

# Where the beginning is and what; where the key is and what; where the text begins; where the end is and what; between.
Shape = tuple[slice, bytes, slice, bytes, int, slice, bytes, slice]

QUOTE, LINE_FEED, RETURN = b'"\n\r'
CHUNK_END = b"\n\n\r\n"  # an event's end, then its chunk's
LONGEST_SHAPE = 990  # bytes; a longer chunk has no shape
_REST_OF_TEXT = re.compile(rb'(?:[^"\\]|\\.)*')
_TRIES = 256  # at chunks that might be a new shape; a server whose chunks end differently each time has none


class Shapes(dict[int, Shape]):
    """Shapes by the length of the chunk, learnt from those that were looked at closely."""

    def __init__(self) -> None:
        super().__init__()
        self._tries = _TRIES

    def find(self, data: bytes) -> Shape | None:
        """The known shape that this chunk has. The Reader has the same lines, where a call would cost too much."""
        shape = self.get(len(data))
        if shape is None:
            return None
        front, opening, place, key, at, back, ending, middle = shape
        if data[front] != opening or data[place] != key or data[back] != ending or data[at] == QUOTE:
            return None
        between = data[middle]
        return None if LINE_FEED in between or RETURN in between else shape

    def knows(self, data: bytes, needle: bytes) -> bool:
        """Whether this is a chunk of a known shape with this key."""
        shape = self.find(data)
        return shape is not None and shape[3][1:] == needle  # what stands before it is a brace or a comma

    def count(self, data: bytes) -> int:
        """How many chunks of known shapes these bytes are; 0 when anything else is among them."""
        start = found = 0
        while start < len(data):
            end = data.find(CHUNK_END, start) + 4
            if self.find(data[start:end]) is None:
                return 0
            found += 1
            start = end
        return found

    def learn(self, data: bytes, opening: bytes, key_at: int, text_at: int) -> None:
        """Take the shape of a chunk that was looked at closely, if it may have one.

        Args:
            data: the whole chunk, with text, and no line end within its event.
            opening: how it begins, up to the event's first brace.
            key_at: where the brace or comma before the text's key stands.
            text_at: where the text begins.
        """
        if self._tries == 0 or len(data) >= LONGEST_SHAPE:
            return
        self._tries -= 1
        rest = _REST_OF_TEXT.match(data, text_at)
        ending = data[rest.end() if rest else len(data) :]
        if text_at >= len(data) - len(ending) or not _is_without_end(data[len(opening) - 1 :]):
            return
        if len(self) < LONGEST_SHAPE and len(data) not in self:
            self._tries += 1  # nothing is lost: there are only so many lengths
        self[len(data)] = (
            slice(0, len(opening)),
            opening,
            slice(key_at, text_at),
            data[key_at:text_at],
            text_at,
            slice(-len(ending), None),
            ending,
            slice(len(opening), -len(ending)),
        )


def _is_without_end(payload: bytes) -> bool:
    """Whether an event has neither a finish reason nor a usage."""
    try:
        plain: Any = json.loads(payload)
    except ValueError:
        return False
    if not isinstance(plain, dict) or isinstance(plain.get("usage"), dict) or plain.get("error"):
        return False
    choices = plain.get("choices")
    return isinstance(choices, list) and not any(
        isinstance(choice, dict) and choice.get("finish_reason") for choice in choices
    )
