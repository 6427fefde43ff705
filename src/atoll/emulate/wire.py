"""An answer as bytes: the JSON of vLLM 0.32's chunks and bodies, in HTTP/1.1 chunked framing.

The field order, and which nulls are written, is that of vLLM's pydantic models dumped with `exclude_unset`
(entrypoints/openai/chat_completion/serving.py and completion/serving.py); tests/data/vllm_wire keeps recorded answers.
"""

import json
from functools import cache
from typing import Any

from atoll.emulate.ask import Ask
from atoll.emulate.words import answer_ring, answer_text


@cache
def ring_bytes() -> tuple[bytes, ...]:
    """The ring of words as they stand inside a JSON string; all have the same length."""
    return tuple(word.encode() for word in answer_ring())


def _compact(plain: Any) -> str:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


class AnswerWire:
    """Makes the bytes of one answer."""

    __slots__ = ("_chunked", "_common", "_fingerprint", "ask", "cached_tokens", "head", "tail")

    def __init__(
        self, ask: Ask, *, request_id: str, model: str, created: int, fingerprint: str, chunked: bool = True
    ) -> None:
        kind = ("chat.completion.chunk" if ask.stream else "chat.completion") if ask.chat else "text_completion"
        prefix = "chatcmpl" if ask.chat else "cmpl"
        self.ask = ask
        self.cached_tokens = 0
        self._fingerprint = fingerprint
        self._chunked = chunked  # an HTTP/1.0 client gets the bare stream, ended by the connection's end
        self._common = (
            f'"id":{_compact(f"{prefix}-{request_id}")},"object":"{kind}","created":{created},"model":{_compact(model)}'
        )
        before, after = self._delta_parts()
        whole = len(before) + len(after) + 5  # a token is a blank and four letters
        self.head = b"%x\r\n%b" % (whole, before) if chunked else before
        self.tail = after + b"\r\n" if chunked else after

    def _frame(self, text: str) -> bytes:
        data = text.encode()
        return b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data

    def _delta_parts(self) -> tuple[bytes, bytes]:
        """What stands before and behind the text of an ordinary delta."""
        if self.ask.chat:
            choice = '"choices":[{"index":0,"delta":{"content":"'
            rest = '"},"logprobs":null,"finish_reason":null,"token_ids":null}]}\n\n'
        else:
            choice = '"choices":[{"index":0,"text":"'
            rest = (
                '","logprobs":null,"finish_reason":null,"stop_reason":null,"prompt_token_ids":null,"token_ids":null}]}'
                "\n\n"
            )
        return f"data: {{{self._common},{choice}".encode(), rest.encode()

    def opening(self) -> bytes:
        """The chunk that names the role; completions have none."""
        if not self.ask.chat:
            return b""
        choice = '{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}'
        usage = f',"usage":{self._usage(0)}' if self.ask.continuous_usage else ""
        extra = '"prompt_token_ids":null,"prompt_text":null'
        return self._frame(f'data: {{{self._common},"choices":[{choice}]{usage},{extra}}}\n\n')

    def delta(self, text: str, tokens_so_far: int) -> bytes:
        """A chunk in the middle of the answer; `tokens_so_far` goes into continuous usage."""
        return self._chunk(text, tokens_so_far, finish=None)

    def closing(self, text: str, tokens: int) -> bytes:
        """The chunk with the finish reason, which carries the last text; then usage, if asked for; then the end."""
        last = self._chunk(text, tokens, finish=self.ask.finish_reason)
        usage = self._usage_chunk(tokens) if self.ask.include_usage else b""
        return last + usage + self._frame("data: [DONE]\n\n") + (b"0\r\n\r\n" if self._chunked else b"")

    def body(self, tokens: int) -> bytes:
        """The document of an answer that is not streamed."""
        ask = self.ask
        text = _compact(self.text(0, tokens, final=True))
        reasons = f'"finish_reason":"{ask.finish_reason}","stop_reason":{_compact(ask.stop_reason)}'
        if ask.chat:
            message = (
                f'{{"role":"assistant","content":{text},"refusal":null,"annotations":null,"audio":null,'
                f'"function_call":null,"reasoning":null}}'
            )
            choice = f'"message":{message},"logprobs":null,{reasons},"token_ids":null,"routed_experts":null'
            nulls = '"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,'
        else:
            choice = (
                f'"text":{text},"logprobs":null,{reasons},"token_ids":null,"prompt_logprobs":null,'
                f'"prompt_token_ids":null,"routed_experts":null'
            )
            nulls = ""
        created = 0 if ask.chat else "null"
        details = f'{{"cached_tokens":{self.cached_tokens},"created_cache_tokens":{created},"multimodal_tokens":null}}'
        usage = (
            f'{{"prompt_tokens":{ask.prompt_tokens},"total_tokens":{ask.prompt_tokens + tokens},'
            f'"completion_tokens":{tokens},"prompt_tokens_details":{details},"completion_tokens_details":null}}'
        )
        return (
            f'{{{self._common},"choices":[{{"index":0,{choice}}}],"service_tier":null,'
            f'"system_fingerprint":{_compact(self._fingerprint)},"usage":{usage},{nulls}'
            f'"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}'
        ).encode()

    def text(self, first: int, stop: int, *, final: bool = False) -> str:
        """The text that the tokens `first` ... `stop` - 1 let out.

        Without stop strings each token lets out its own word. With them, letters are held back until it is clear that
        no stop string is under way; `final` lets out the rest.
        """
        ask = self.ask
        if ask.text is None:
            words = stop - 1 if final and ask.ends_silently else stop
            return answer_text(ask.start + first, max(0, words - first))
        out_before = max(0, 5 * first - ask.hold_back) if first else 0
        out_now = len(ask.text) if final else max(0, 5 * stop - ask.hold_back)
        return ask.text[out_before:out_now]

    def _chunk(self, text: str, tokens: int, *, finish: str | None) -> bytes:
        ask = self.ask
        ended = finish is not None
        reason = _compact(finish)
        if ask.chat:
            stop = f',"stop_reason":{_compact(ask.stop_reason)}' if ended else ""
            delta = f'"delta":{{"content":{_compact(text)}}}'
            inner = f'{delta},"logprobs":null,"finish_reason":{reason}{stop},"token_ids":null'
        else:
            stop = _compact(ask.stop_reason if ended else None)
            inner = (
                f'"text":{_compact(text)},"logprobs":null,"finish_reason":{reason},"stop_reason":{stop},'
                f'"prompt_token_ids":null,"token_ids":null'
            )
        usage = f',"usage":{self._usage(tokens)}' if ask.continuous_usage else ""
        name = f',"system_fingerprint":{_compact(self._fingerprint)}' if ended and not ask.include_usage else ""
        return self._frame(f'data: {{{self._common},"choices":[{{"index":0,{inner}}}]{usage}{name}}}\n\n')

    def _usage(self, tokens: int) -> str:
        """Running usage inside a chunk: chat writes one more null than completions do."""
        prompt = self.ask.prompt_tokens
        details = ',"completion_tokens_details":null' if self.ask.chat else ""
        return f'{{"prompt_tokens":{prompt},"total_tokens":{prompt + tokens},"completion_tokens":{tokens}{details}}}'

    def _usage_chunk(self, tokens: int) -> bytes:
        prompt = self.ask.prompt_tokens
        created = ',"created_cache_tokens":0' if self.ask.chat else ""
        usage = (
            f'{{"prompt_tokens":{prompt},"total_tokens":{prompt + tokens},"completion_tokens":{tokens},'
            f'"prompt_tokens_details":{{"cached_tokens":{self.cached_tokens}{created}}}}}'
        )
        rest = f'"choices":[],"usage":{usage},"system_fingerprint":{_compact(self._fingerprint)}'
        return self._frame(f"data: {{{self._common},{rest}}}\n\n")
