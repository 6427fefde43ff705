"""Which tool an answer calls, and with which arguments: any that satisfy the tool's schema."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from atoll.emulate.constraint import value_for


@dataclass(frozen=True, slots=True)
class ToolCall:
    name: str
    arguments: str  # JSON
    named: bool = False  # the request named this very tool: the answer then ends with "stop", not "tool_calls"


@dataclass(frozen=True, slots=True)
class Offer:
    """A tool that may be called: its name and the schema of its arguments."""

    name: str
    parameters: Any


def choose_call(
    offers: Sequence[Offer], choice: object, *, messages: Sequence[dict[str, Any]], dice: Random, to_the_limit: bool
) -> ToolCall | None:
    """The call that the answer makes, or None for a text.

    With "auto" a question is answered by a call and a tool's result by a text, unless the answer must be as long as it
    may be (`to_the_limit`: ignore_eos), which a call never is. Who must call a tool again calls one that this turn has
    not called yet, so that agents whose last tool hands over the result come to an end.

    `choice` is None or "auto", "none", "required", or the name of a tool in a list of one.
    """
    if not offers or choice == "none":
        return None
    if isinstance(choice, list):
        named = next((offer for offer in offers if offer.name == choice[0]), None)
        return None if named is None else _call(named, dice, named=True)
    if choice in (None, "auto") and (to_the_limit or not messages or messages[-1].get("role") not in _ASKERS):
        return None
    called = _called_in_this_turn(messages)
    return _call(next((offer for offer in offers if offer.name not in called), offers[-1]), dice, named=False)


_ASKERS = {"user", "developer", "system"}


def _call(offer: Offer, dice: Random, *, named: bool) -> ToolCall:
    schema = {"type": "object", "properties": {}} if offer.parameters is None else offer.parameters
    if isinstance(schema, dict) and "type" not in schema and "$ref" not in schema:
        schema = {"type": "object", **schema}
    return ToolCall(offer.name, json.dumps(value_for(schema, dice), ensure_ascii=False), named)


def _called_in_this_turn(messages: Sequence[dict[str, Any]]) -> set[str]:
    """The tools that were called since the user's last message."""
    called: set[str] = set()
    for message in messages:
        if message.get("role") == "user":
            called = set()
        for call in message.get("tool_calls") or ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                called.add(str(function.get("name")))
    return called
