"""An answer of /v1/messages as bytes: the events and the document of vLLM 0.32 (anthropic/serving.py)."""

import json
import secrets
from typing import Any

from atoll.emulate.ask import Ask, Call, Served
from atoll.emulate.wire import compact


class MessagesWire:
    """Makes the bytes of one answer: a text, or the use of a tool."""

    plain = False
    head = tail = b""

    def __init__(self, call: Call, *, request_id: str, served: Served, chunked: bool = True) -> None:
        self.ask: Ask = call.asks[0]
        self._chunked = chunked
        self._served = served
        self._id = f"chatcmpl-{request_id}"
        self._signature = secrets.token_hex(16)
        self._index = 1 if self.ask.thought else 0  # of the block behind the reasoning
        self._use_id = f"chatcmpl-tool-{secrets.token_hex(8)}"

    def opening(self) -> bytes:
        message: dict[str, Any] = {"id": self._id, "type": "message", "role": "assistant", "content": []}
        message |= {"model": self._served.model, "stop_reason": None, "stop_sequence": None}
        message |= {"usage": {"input_tokens": self.ask.prompt_tokens, "output_tokens": 0}}
        begun = self._event("message_start", {"message": message})
        if not self.ask.thought:
            return begun + self._open()
        block = {"type": "thinking", "thinking": ""}
        return begun + self._event("content_block_start", {"content_block": block, "index": 0})

    def _open(self) -> bytes:
        """The block that answers."""
        block: dict[str, Any] = {"type": "text", "text": ""}
        if self.ask.call is not None:
            block = {"type": "tool_use", "id": self._use_id, "name": self.ask.call.name, "input": {}}
        return self._event("content_block_start", {"content_block": block, "index": self._index})

    def delta(self, first: int, stop: int) -> bytes:
        thought = self._thought_delta(first, stop)
        if stop <= len(self.ask.thought):
            return thought
        if self.ask.call is not None:
            return thought + self._delta("input_json_delta", "partial_json", self.ask.arguments(first, stop))
        return thought + self._delta("text_delta", "text", self.ask.let_out(first, stop))

    def last(self, first: int, stop: int) -> bytes:
        thought = self._thought_delta(first, stop)
        if self.ask.call is not None:
            said = self._delta("input_json_delta", "partial_json", self.ask.arguments(first, stop))
        else:
            said = self._delta("text_delta", "text", self.ask.let_out(first, stop, final=True))
        return thought + said + self._event("content_block_stop", {"index": self._index})

    def _thought_delta(self, first: int, stop: int) -> bytes:
        """The events of what is still reasoning, and, where it ends, the beginning of the answer."""
        before = len(self.ask.thought)
        if not before or first >= before:
            return b""
        events = self._delta("thinking_delta", "thinking", self.ask.reasoning(first, min(stop, before)), index=0)
        if stop > before:
            signed = {"delta": {"type": "signature_delta", "signature": self._signature}, "index": 0}
            events += self._event("content_block_delta", signed) + self._event("content_block_stop", {"index": 0})
            events += self._open()
        return events

    def ending(self, *, tokens: int, cached: int) -> bytes:
        reason, sequence = self._stop()
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        events = self._event("message_delta", {"delta": delta, "usage": self._usage(tokens, cached)})
        return events + self._event("message_stop", {}) + (b"0\r\n\r\n" if self._chunked else b"")

    def body(self, *, tokens: int, cached: int) -> bytes:
        reason, sequence = self._stop()
        message: dict[str, Any] = {"id": self._id, "type": "message", "role": "assistant", "content": self._blocks()}
        message |= {"model": self._served.model, "stop_reason": reason}
        message |= {"stop_sequence": sequence} if sequence is not None else {}
        return compact(message | {"usage": self._usage(tokens, cached)}).encode(errors="replace")

    def _blocks(self) -> list[dict[str, Any]]:
        thought = self.ask.reasoning(0, self.ask.output_tokens)
        thinking = [{"type": "thinking", "thinking": thought, "signature": self._signature}] if thought else []
        return [*thinking, self._block()]

    def _block(self) -> dict[str, Any]:
        ask = self.ask
        if ask.call is None:
            return {"type": "text", "text": ask.let_out(0, ask.output_tokens, final=True)}
        try:
            given = json.loads(ask.arguments(0, ask.output_tokens))
        except ValueError:  # cut by the limit; a real vLLM fails here
            given = {}
        return {"type": "tool_use", "id": self._use_id, "name": ask.call.name, "input": given}

    def _stop(self) -> tuple[str, str | None]:
        ask = self.ask
        if ask.finish_reason == "length":
            return "max_tokens", None
        if isinstance(ask.stop_reason, str):
            return "stop_sequence", ask.stop_reason
        return ("end_turn" if ask.call is None else "tool_use"), None

    def _usage(self, tokens: int, cached: int) -> dict[str, int]:
        if not self._served.prompt_tokens_details:
            return {"input_tokens": self.ask.prompt_tokens, "output_tokens": tokens}
        created = self._served.created(self.ask.prompt_tokens, cached)
        counts = {"input_tokens": max(0, self.ask.prompt_tokens - cached - created), "output_tokens": tokens}
        return counts | {"cache_creation_input_tokens": created, "cache_read_input_tokens": cached}

    def _delta(self, kind: str, name: str, said: str, *, index: int | None = None) -> bytes:
        if not said:
            return b""
        place = self._index if index is None else index
        return self._event("content_block_delta", {"delta": {"type": kind, name: said}, "index": place})

    def _event(self, kind: str, inner: dict[str, Any]) -> bytes:
        data = f"event: {kind}\ndata: {compact({'type': kind} | inner)}\n\n".encode(errors="replace")
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data
