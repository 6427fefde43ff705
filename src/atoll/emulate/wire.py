"""An answer as bytes: the JSON of vLLM 0.32's chunks and bodies, in HTTP/1.1 chunked framing.

The field order, and which nulls are written, is that of vLLM's pydantic models dumped with `exclude_unset`
(entrypoints/openai/chat_completion/serving.py and completion/serving.py); tests/data/vllm_wire keeps recorded answers.
"""

import json
import secrets
from functools import cache
from typing import Any

from atoll.emulate.ask import Ask, Call, Served
from atoll.emulate.probabilities import Odds
from atoll.emulate.vocabulary import Vocabulary
from atoll.emulate.words import answer_ring


@cache
def ring_bytes() -> tuple[bytes, ...]:
    """The ring of words as they stand inside a JSON string; all have the same length."""
    return tuple(word.encode() for word in answer_ring())


compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
"""Any JSON value as text without blanks."""


class Envelope:
    """What all chunks of an answer share: identity, framing, and what usage shows."""

    __slots__ = ("call", "chunked", "common", "details", "fingerprint", "request_id", "served", "vocabulary")

    def __init__(
        self,
        call: Call,
        *,
        request_id: str,
        served: Served,
        model: str | None = None,
        created: int,
        fingerprint: str,
        vocabulary: Vocabulary,
        chunked: bool = True,
    ) -> None:
        kind = ("chat.completion.chunk" if call.stream else "chat.completion") if call.chat else "text_completion"
        self.call = call
        self.request_id = f"{'chatcmpl' if call.chat else 'cmpl'}-{request_id}"
        self.fingerprint = fingerprint
        self.details = served.prompt_tokens_details and call.details
        self.served = served
        self.vocabulary = vocabulary
        self.chunked = chunked  # an HTTP/1.0 client gets the bare stream, ended by the connection's end
        named = compact(served.model_of(model))
        self.common = f'"id":{compact(self.request_id)},"object":"{kind}","created":{created},"model":{named}'

    def frame(self, text: str) -> bytes:
        data = text.encode(errors="replace")
        return b"%x\r\n%b\r\n" % (len(data), data) if self.chunked else data

    def end(self) -> bytes:
        return b"0\r\n\r\n" if self.chunked else b""


class ChoiceWire:
    """Makes the bytes of one choice of a chat or completion."""

    __slots__ = ("_call_id", "_envelope", "_odds", "ask", "call", "head", "tail")

    def __init__(self, ask: Ask, envelope: Envelope) -> None:
        self.ask = ask
        self.call = envelope.call
        self._envelope = envelope
        self._odds = Odds(envelope.vocabulary, ask, envelope.call.shown)
        self._call_id = f"chatcmpl-tool-{secrets.token_hex(8)}" if ask.call is not None else ""
        before, after = self._delta_parts()
        whole = len(before) + len(after) + 5  # a token is a blank and four letters
        self.head = b"%x\r\n%b" % (whole, before) if envelope.chunked else before
        self.tail = after + b"\r\n" if envelope.chunked else after

    def _delta_parts(self) -> tuple[bytes, bytes]:
        """What stands before and behind the text of an ordinary delta."""
        if self.call.chat:
            choice = f'"choices":[{{"index":{self.ask.index},"delta":{{"content":"'
            rest = '"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        else:
            choice = f'"choices":[{{"index":{self.ask.index},"text":"'
            rest = (
                '","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}'
                "\n\n"
            )
        return f"data: {{{self._envelope.common},{choice}".encode(), rest.encode()

    @property
    def plain(self) -> bool:
        """Whether a delta is `head`, the token and `tail`."""
        ask, call = self.ask, self.call
        return (
            ask.text is None
            and not ask.thought
            and not call.continuous_usage
            and call.shown.plain
            and call.echo is None
        )

    def opening(self) -> bytes:
        """The chunks before the first token: the role and what is echoed; completions have none."""
        if not self.call.chat:
            return b""
        shown, index = self.call.shown, self.ask.index
        choice = f'{{"index":{index},"delta":{{"role":"assistant","content":""}},"logprobs":null,"finish_reason":null}}'
        ids = compact(list(self.ask.prompt_ids)) if shown.token_ids else "null"
        extra = f'"prompt_token_ids":{ids},"prompt_text":{compact(shown.prompt_text)}'
        usage = self._continuous(0)
        opened = self._envelope.frame(f'data: {{{self._envelope.common},"choices":[{choice}]{usage},{extra}}}\n\n')
        if self.call.echo and self.call.echo[0]:
            delta = f'{{"content":{compact(self.call.echo[0])}}}'
            inner = f'{{"index":{index},"delta":{delta},"logprobs":null,"finish_reason":null}}'
            opened += self._envelope.frame(f'data: {{{self._envelope.common},"choices":[{inner}]{usage}}}\n\n')
        return opened

    def delta(self, first: int, stop: int) -> bytes:
        """A chunk in the middle of the answer, with what the tokens `first` ... `stop` - 1 let out."""
        thought, first = self._thought_chunk(first, stop)
        if first >= stop:
            return thought
        if self.ask.call is not None:
            return thought + self._call_chunks(first, stop)
        return thought + self._chunk(self.ask.let_out(first, stop), first, stop, finish=None)

    def last(self, first: int, stop: int) -> bytes:
        """The chunk with the finish reason, which carries the last text."""
        reason = self.finish_reason
        thought, first = self._thought_chunk(first, stop)
        if self.ask.call is not None:
            end = stop - 1 if self.ask.ends_silently else stop
            return thought + self._call_chunks(first, end) + self._chunk_of("{}", end, stop, finish=reason)
        return thought + self._chunk(self.ask.let_out(first, stop, final=True), first, stop, finish=reason)

    def _thought_chunk(self, first: int, stop: int) -> tuple[bytes, int]:
        """The chunk of what is still reasoning, and the token at which that ends."""
        end = min(stop, len(self.ask.thought))
        if first >= end:
            return b"", first
        said = self.ask.reasoning(first, end)
        delta = f'{{"reasoning":{compact(said)}}}'
        return (self._chunk_of(delta, first, end, finish=None) if self.call.shown.reasoning else b""), end

    @property
    def finish_reason(self) -> str:
        """A complete tool call ends with "tool_calls", but one of a tool that the request named with "stop"."""
        ask = self.ask
        calls = ask.call is not None and not ask.call.named and ask.finish_reason == "stop"
        return "tool_calls" if calls else ask.finish_reason

    @property
    def reasoning_tokens(self) -> int:
        return min(len(self.ask.thought), self.ask.output_tokens)

    def _call_chunks(self, first: int, stop: int) -> bytes:
        call = self.ask.call
        assert call is not None
        chunks = b""
        if self.ask.names_tool(first, stop):
            begun = {"id": self._call_id, "type": "function", "index": 0, "function": {"name": call.name}}
            chunks += self._chunk_of(compact({"content": None, "tool_calls": [begun]}), first, first, finish=None)
        arguments = self.ask.arguments(first, stop)
        if arguments:
            more = {"content": None, "tool_calls": [{"index": 0, "function": {"arguments": arguments}}]}
            chunks += self._chunk_of(compact(more), first, stop, finish=None)
        return chunks

    def _chunk(self, text: str, first: int, stop: int, *, finish: str | None) -> bytes:
        if self.call.chat:
            return self._chunk_of(f'{{"content":{compact(text)}}}', first, stop, finish=finish)
        shown = self.call.shown
        echoed = first == 0 and self.call.echo is not None
        if echoed:
            said = self._echo()
            text = said if self.call.echo_alone else said + text
        logprobs = "null" if shown.logprobs is None else compact(self._text_odds(first, stop, prompt=echoed))
        stop_reason = compact(self.ask.stop_reason if finish is not None else None)
        prompt_ids = list(self.ask.prompt_ids) if first == 0 and (shown.token_ids or echoed) else None
        ids = compact(self._odds.ids(first, stop) if shown.token_ids else None)
        inner = (
            f'"text":{compact(text)},"logprobs":{logprobs},"finish_reason":{compact(finish)},'
            f'"stop_reason":{stop_reason},"prompt_token_ids":{compact(prompt_ids)},"token_ids":{ids}'
        )
        return self._framed(inner, stop, ended=finish is not None)

    def _chunk_of(self, delta: str, first: int, stop: int, *, finish: str | None) -> bytes:
        """A chat's chunk around its delta."""
        shown = self.call.shown
        logprobs = "null" if shown.logprobs is None else compact(self._odds.chat(first, stop))
        ended = f',"stop_reason":{compact(self.ask.stop_reason)}' if finish is not None else ""
        ids = compact(self._odds.ids(first, stop) if shown.token_ids else None)
        inner = f'"delta":{delta},"logprobs":{logprobs},"finish_reason":{compact(finish)}{ended},"token_ids":{ids}'
        return self._framed(inner, stop, ended=finish is not None)

    def _framed(self, inner: str, tokens: int, *, ended: bool) -> bytes:
        name = ended and not self.call.include_usage
        fingerprint = f',"system_fingerprint":{compact(self._envelope.fingerprint)}' if name else ""
        choice = f'"choices":[{{"index":{self.ask.index},{inner}}}]{self._continuous(tokens)}{fingerprint}'
        return self._envelope.frame(f"data: {{{self._envelope.common},{choice}}}\n\n")

    def _continuous(self, tokens: int) -> str:
        """Running usage inside a chunk, where asked for: chat writes one more null than completions do."""
        if not self.call.continuous_usage:
            return ""
        prompt = self.ask.prompt_tokens
        more = ',"completion_tokens_details":null' if self.call.chat else ""
        counts = f'"prompt_tokens":{prompt},"total_tokens":{prompt + tokens},"completion_tokens":{tokens}{more}'
        return f',"usage":{{{counts}}}'

    def _echo(self) -> str:
        echo = self.call.echo
        return echo[self.ask.index // self.call.n if not self.call.chat else 0] if echo else ""

    def _text_odds(self, first: int, stop: int, *, prompt: bool) -> dict[str, Any]:
        return self._odds.text(first, first if self.call.echo_alone else stop, prompt=prompt)

    def choice(self) -> dict[str, Any]:
        """The choice in an answer that is not streamed."""
        ask, shown, tokens = self.ask, self.call.shown, self.ask.output_tokens
        text = ask.let_out(0, tokens, final=True)
        ids = self._odds.ids(0, tokens) if shown.token_ids else None
        ends = {"finish_reason": self.finish_reason, "stop_reason": ask.stop_reason, "token_ids": ids}
        if self.call.chat:
            logprobs = None if shown.logprobs is None else self._odds.chat(0, tokens)
            said = {"index": ask.index, "message": self._message(self._echo() + text), "logprobs": logprobs}
            return said | ends | {"routed_experts": None}
        if self.call.echo is not None:
            text = self._echo() if self.call.echo_alone else self._echo() + text
        prompt = self.call.echo is not None
        logprobs = None if shown.logprobs is None else self._text_odds(0, tokens, prompt=prompt)
        prompt_ids = list(ask.prompt_ids) if shown.token_ids else None
        said = {"index": ask.index, "text": text, "logprobs": logprobs} | ends
        rest = {"prompt_logprobs": self._odds.prompt(), "prompt_token_ids": prompt_ids, "routed_experts": None}
        return said | rest

    def _message(self, text: str) -> dict[str, Any]:
        ask = self.ask
        message: dict[str, Any] = {"role": "assistant", "content": text if ask.call is None else ""}
        message |= dict.fromkeys(("refusal", "annotations", "audio", "function_call"))
        reasoning = ask.reasoning(0, ask.output_tokens) if self.call.shown.reasoning else ""
        if ask.call is not None and ask.names_tool(0, ask.output_tokens):
            said = ask.arguments(0, ask.output_tokens)
            function = {"name": ask.call.name, "arguments": said}
            message["tool_calls"] = [{"id": self._call_id, "type": "function", "function": function}]
        return message | {"reasoning": reasoning or None}

    def prompt_logprobs(self) -> list[dict[str, Any] | None] | None:
        return self._odds.prompt()


class ChoicesForm:
    """The answer of a chat or completion: all its choices in one stream or one document."""

    def __init__(self, envelope: Envelope) -> None:
        self._envelope = envelope
        self.wires = [ChoiceWire(ask, envelope) for ask in envelope.call.asks]

    def ending(self, *, tokens: int, cached: int) -> bytes:
        """What ends a stream: usage, if asked for, and the end."""
        envelope, call = self._envelope, self._envelope.call
        chunk = b""
        if call.include_usage:
            prompt = call.prompt_tokens
            created = f',"created_cache_tokens":{envelope.served.created(prompt, cached)}' if call.chat else ""
            details = f',"prompt_tokens_details":{{"cached_tokens":{cached}{created}}}' if envelope.details else ""
            counts = f'"prompt_tokens":{prompt},"total_tokens":{prompt + tokens},"completion_tokens":{tokens}{details}'
            thought = self._thought()
            counts += f',"completion_tokens_details":{compact(thought)}' if thought else ""
            rest = f'"choices":[],"usage":{{{counts}}},"system_fingerprint":{compact(envelope.fingerprint)}'
            chunk = envelope.frame(f"data: {{{envelope.common},{rest}}}\n\n")
        return chunk + envelope.frame("data: [DONE]\n\n") + envelope.end()

    def _thought(self) -> dict[str, int] | None:
        tokens = sum(wire.reasoning_tokens for wire in self.wires)
        return {"reasoning_tokens": tokens} if tokens else None

    def body(self, *, tokens: int, cached: int) -> bytes:
        """The document of an answer that is not streamed."""
        envelope, call = self._envelope, self._envelope.call
        details = None
        if envelope.details:
            created = envelope.served.created(call.prompt_tokens, cached) if call.chat else None
            details = {"cached_tokens": cached, "created_cache_tokens": created, "multimodal_tokens": None}
        prompt, first = call.prompt_tokens, self.wires[0]
        usage: dict[str, Any] = {"prompt_tokens": prompt, "total_tokens": prompt + tokens, "completion_tokens": tokens}
        usage |= {"prompt_tokens_details": details, "completion_tokens_details": self._thought()}
        rest: dict[str, Any] = {"choices": [wire.choice() for wire in self.wires], "service_tier": None}
        rest |= {"system_fingerprint": envelope.fingerprint, "usage": usage}
        if call.chat:
            ids = list(first.ask.prompt_ids) if call.shown.token_ids else None
            rest |= {"prompt_logprobs": first.prompt_logprobs(), "prompt_token_ids": ids}
            rest |= {"prompt_text": call.shown.prompt_text}
        rest |= {"kv_transfer_params": None, "ec_transfer_params": None, "metrics": None}
        return f"{{{envelope.common},{compact(rest)[1:]}".encode(errors="replace")
