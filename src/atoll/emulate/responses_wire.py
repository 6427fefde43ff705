"""An answer of /v1/responses as bytes: the events and document of vLLM 0.32 (openai/responses/streaming_events.py)."""

import secrets
from typing import Any

from atoll.emulate.ask import Ask, Served
from atoll.emulate.probabilities import Odds
from atoll.emulate.responses import Ordered
from atoll.emulate.vocabulary import Vocabulary
from atoll.emulate.wire import compact


class ResponsesWire:
    """Makes the bytes of one answer; it has one choice, a message or the call of a tool."""

    plain = False
    head = tail = b""

    def __init__(
        self,
        ordered: Ordered,
        *,
        request_id: str,
        created: int,
        served: Served,
        vocabulary: Vocabulary,
        chunked: bool = True,
    ) -> None:
        self._served = served
        self._vocabulary = vocabulary
        self._messages = ordered.messages
        self.ask: Ask = ordered.call.asks[0]
        self._shown = ordered.call.shown
        self._repeated = ordered.repeated
        self._chunked = chunked
        self._created = created
        self._id = f"resp_{request_id}"
        self._thought_item = f"rs_{secrets.token_hex(8)}"
        self._index = 1 if self.ask.thought and self._shown.reasoning else 0  # of the item behind the reasoning
        self._begun = False  # whether that item has been opened
        self._item = f"{'msg' if self.ask.call is None else 'fc'}_{secrets.token_hex(8)}"
        self._call_id = f"chatcmpl-tool-{secrets.token_hex(8)}"
        self._odds = Odds(vocabulary, self.ask, self._shown)
        self._number = 0
        self._said = ""

    def opening(self) -> bytes:
        begun = self._document(None)
        events = self._event("created", {"response": begun}) + self._event("in_progress", {"response": begun})
        if not self._index:
            return events + self._open()
        item = self._thinking([], "in_progress")
        events += self._event("output_item.added", {"item": item, "output_index": 0})
        part = {"text": "", "type": "reasoning_text"}
        return events + self._event("content_part.added", self._thought_place() | {"part": part})

    def _open(self) -> bytes:
        """The item that answers."""
        self._begun = True
        if self.ask.call is not None:
            called = {"item": self._call("", "in_progress"), "output_index": self._index}
            return self._event("output_item.added", called)
        message = {"item": self._message([], "in_progress"), "output_index": self._index}
        part = {"annotations": [], "text": "", "type": "output_text", "logprobs": []}
        place = {"content_index": 0, "item_id": self._item, "output_index": self._index}
        added = self._event("output_item.added", message)
        return added + self._event("content_part.added", place | {"part": part})

    def delta(self, first: int, stop: int) -> bytes:
        thought, first = self._thought_delta(first, stop)
        if first >= stop:
            return thought
        if self.ask.call is not None:
            return thought + self._argument_delta(self.ask.arguments(first, stop))
        return thought + self._text_delta(self.ask.let_out(first, stop), first, stop)

    def last(self, first: int, stop: int) -> bytes:
        thought, first = self._thought_delta(first, stop)
        if self.ask.call is not None:
            return thought + self._argument_delta(self.ask.arguments(first, stop)) + self._end_of_call(stop)
        return thought + self._last_text(first, stop)

    def _thought_delta(self, first: int, stop: int) -> tuple[bytes, int]:
        """The events of what is still reasoning, and the token at which that ends."""
        before = len(self.ask.thought)
        end = min(stop, before)
        events = b""
        if not self._index:
            return events, max(first, end)
        if first < end:
            said = self.ask.reasoning(first, end)
            place = self._thought_place() | {"delta": said}
            events += self._event("reasoning_text.delta", place)
        if stop > before and not self._begun:
            whole = {"text": self.ask.reasoning(0, before), "type": "reasoning_text"}
            events += self._event("reasoning_text.done", self._thought_place() | {"text": whole["text"]})
            events += self._event("content_part.done", self._thought_place() | {"part": whole})
            item = self._thinking([whole], "completed")
            events += self._event("output_item.done", {"item": item, "output_index": 0}) + self._open()
        return events, max(first, end)

    def _thought_place(self) -> dict[str, Any]:
        return {"content_index": 0, "item_id": self._thought_item, "output_index": 0}

    def _thinking(self, content: list[Any], status: str) -> dict[str, Any]:
        said = {"id": self._thought_item, "summary": [], "type": "reasoning", "content": content}
        return said | {"encrypted_content": None, "status": status}

    def _last_text(self, first: int, stop: int) -> bytes:
        text = self.ask.let_out(first, stop, final=True)
        events = self._text_delta(text, first, stop) if text else b""
        place = {"content_index": 0, "item_id": self._item}
        done = place | {"logprobs": [], "output_index": self._index}
        events += self._event("output_text.done", done, text=self._said)
        events += self._event(
            "content_part.done", place | {"output_index": self._index, "part": self._part(stop, final=False)}
        )
        item = self._message([self._part(stop, final=False)], "completed")
        return events + self._event("output_item.done", {"item": item, "output_index": self._index})

    def _end_of_call(self, stop: int) -> bytes:
        said = self.ask.arguments(0, stop)
        done = {"arguments": said, "item_id": self._item, "output_index": self._index}
        assert self.ask.call is not None
        events = self._event("function_call_arguments.done", done, name=self.ask.call.name)
        return events + self._event(
            "output_item.done", {"item": self._call(said, "completed"), "output_index": self._index}
        )

    def ending(self, *, tokens: int, cached: int) -> bytes:
        event = self._event("completed", {"response": self._document((tokens, cached), final=False)})
        return event + (b"0\r\n\r\n" if self._chunked else b"")

    def body(self, *, tokens: int, cached: int) -> bytes:
        return compact(self._document((tokens, cached))).encode(errors="replace")

    def _argument_delta(self, said: str) -> bytes:
        if not said:
            return b""
        return self._event(
            "function_call_arguments.delta", {"delta": said, "item_id": self._item, "output_index": self._index}
        )

    def _text_delta(self, text: str, first: int, stop: int) -> bytes:
        self._said += text
        logprobs = [] if self._shown.logprobs is None else self._logprobs(first, stop)
        place = {
            "content_index": 0,
            "delta": text,
            "item_id": self._item,
            "logprobs": logprobs,
            "output_index": self._index,
        }
        return self._event("output_text.delta", place)

    def _event(self, kind: str, inner: dict[str, Any], **late: Any) -> bytes:
        name = f"response.{kind}"
        whole = inner | {"sequence_number": self._number}
        if "text" in late:
            whole |= {"text": late.pop("text")}
        self._number += 1
        data = f"event: {name}\ndata: {compact(whole | {'type': name} | late)}\n\n".encode(errors="replace")
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _document(self, counts: tuple[int, int] | None, *, final: bool = True) -> dict[str, Any]:
        """The answer's document; `counts` are the tokens of the answer and those of the prompt that were cached."""
        whole = {"id": self._id, "created_at": self._created} | self._repeated
        if counts is None:
            return whole
        tokens, cached = counts
        cut = self.ask.finish_reason == "length"
        item = self._call(self.ask.arguments(0, tokens), "completed") if self.ask.call is not None else None
        output = [item or self._message([self._part(tokens, final=final)], "completed")]
        if self._index:
            said = {"text": self.ask.reasoning(0, tokens), "type": "reasoning_text"}
            output.insert(0, self._thinking([said], "completed"))
        whole["output"] = output
        if self._messages:
            whole["input_messages"] = [_raw(self._vocabulary, list(self.ask.prompt_ids))]
            whole["output_messages"] = [_raw(self._vocabulary, self._odds.ids(0, tokens))]
        whole["incomplete_details"] = {"reason": "max_output_tokens"} if cut else None
        whole["status"] = "incomplete" if cut else "completed"
        prompt = self.ask.prompt_tokens
        whole["usage"] = {
            "input_tokens": prompt,
            "input_tokens_details": {
                "cached_tokens": cached,
                "cache_write_tokens": self._served.created(prompt, cached),
                "input_tokens_per_turn": [],
                "cached_tokens_per_turn": [],
            },
            "output_tokens": tokens,
            "output_tokens_details": {
                "reasoning_tokens": min(len(self.ask.thought), tokens),
                "tool_output_tokens": 0,
                "output_tokens_per_turn": [],
                "tool_output_tokens_per_turn": [],
            },
            "total_tokens": prompt + tokens,
        }
        return whole

    def _message(self, content: list[Any], status: str) -> dict[str, Any]:
        said = {"id": self._item, "content": content, "role": "assistant", "status": status}
        return said | {"type": "message", "phase": None}

    def _part(self, tokens: int, *, final: bool) -> dict[str, Any]:
        """The text; the probabilities of a streamed answer stand in its deltas."""
        logprobs = self._logprobs(len(self.ask.thought), tokens) if final and self._shown.logprobs is not None else None
        text = self.ask.let_out(0, tokens, final=True)
        return {"annotations": [], "text": text, "type": "output_text", "logprobs": logprobs}

    def _logprobs(self, first: int, stop: int) -> list[dict[str, Any]]:
        return [_ordered(entry) for entry in self._odds.chat(first, stop)["content"]]

    def _call(self, arguments: str, status: str) -> dict[str, Any]:
        assert self.ask.call is not None
        return {
            "arguments": arguments,
            "call_id": self._call_id,
            "name": self.ask.call.name,
            "type": "function_call",
            "id": self._item,
            "async": None,
            "caller": None,
            "namespace": None,
            "status": status,
        }


def _raw(vocabulary: Vocabulary, ids: list[int]) -> dict[str, Any]:
    """What went into the model or came out of it (vLLM: ResponseRawMessageAndToken)."""
    return {"message": vocabulary.decode(ids), "tokens": ids, "type": "raw_message_tokens"}


def _ordered(entry: dict[str, Any]) -> dict[str, Any]:
    """A chat's entry in the order of this API."""
    kept = {name: entry[name] for name in ("token", "bytes", "logprob")}
    return kept | (
        {"top_logprobs": [_ordered(one) for one in entry["top_logprobs"]]} if "top_logprobs" in entry else {}
    )
