"""/tokenize and /detokenize over the made-up vocabulary (vllm/entrypoints/serve/tokenize, 0.32)."""

from typing import Any

from pydantic import RootModel

from atoll.emulate.ask import Served
from atoll.emulate.body import Shape, Tool, read_body
from atoll.emulate.probabilities import END_SHOWN
from atoll.emulate.prompts import Desk, chat_prompt
from atoll.emulate.refusal import refused
from atoll.emulate.words import pieces


class TokenizeText(Shape):
    model: str | None = None
    prompt: str
    return_token_strs: bool | None = False


class TokenizeChat(Shape):
    model: str | None = None
    messages: list[dict[str, Any]]
    tools: list[Tool] | None = None
    return_token_strs: bool | None = False
    add_generation_prompt: bool = True
    continue_final_message: bool = False


class _Tokenize(RootModel[TokenizeText | TokenizeChat]):
    pass


class _Detokenize(Shape):
    model: str | None = None
    tokens: list[int]


def tokenize(body: bytes, desk: Desk) -> dict[str, Any]:
    """The ids of a text or chat, and how many there are.

    Raises:
        Refusal: with vLLM's status and words.
    """
    fields = read_body(_Tokenize, body).root
    desk.check_model(fields.model)
    if isinstance(fields, TokenizeChat):
        if fields.continue_final_message and "add_generation_prompt" in fields.model_fields_set:
            raise refused("Cannot set both `continue_final_message` and `add_generation_prompt` to True.")
        text = chat_prompt(fields.messages, fields.tools, desk.served).text or ""
    else:
        text = fields.prompt
    parts = pieces(text)
    ids = [desk.vocabulary.id_of(part) for part in parts]
    strings = parts if fields.return_token_strs else None
    return {"count": len(ids), "max_model_len": desk.served.max_model_len, "tokens": ids, "token_strs": strings}


def tokenizer_info(served: Served) -> dict[str, Any]:
    """How the made-up tokenizer is called; it has no chat template and no special tokens but the end."""
    return {"tokenizer_class": "EmulatedTokenizer", "model_max_length": served.max_model_len, "eos_token": END_SHOWN}


def detokenize(body: bytes, desk: Desk) -> dict[str, Any]:
    """The text of ids; those outside the vocabulary have none.

    Raises:
        Refusal: with vLLM's status and words.
    """
    fields = read_body(_Detokenize, body)
    desk.check_model(fields.model)
    return {"prompt": desk.vocabulary.decode(fields.tokens)}
