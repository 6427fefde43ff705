"""Why a request is not served, worded and shaped as vLLM 0.32 answers."""

import json
from dataclasses import dataclass, replace

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."


_SHORT = {
    "Unauthorized": b'{"error":"Unauthorized"}',
    "Not Found": b'{"detail":"Not Found"}',
    "Method Not Allowed": b'{"detail":"Method Not Allowed"}',
}


def _compact(plain: object) -> bytes:
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """An HTTP error answer. Raised while a request is read, before anything is sent."""

    status: int
    message: str
    kind: str = "BadRequestError"
    param: str | None = None
    allow: str | None = None  # the method that would have been right
    anthropic: bool = False  # in the shape of Anthropic's API, as /v1/messages answers

    def in_anthropics_shape(self) -> "Refusal":
        return replace(self, anthropic=True)

    def body(self) -> bytes:
        """The JSON document of the answer; what vLLM's web framework refuses on its own has a shorter one."""
        if self.kind in _SHORT:
            return _SHORT[self.kind]
        if self.anthropic:
            return _compact({"type": "error", "error": {"type": self.kind, "message": self.message}})
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return _compact({"error": error})


def bad(message: str, param: str, value: object = None) -> Refusal:
    """A value that vLLM's own checks refuse; it appends what it found to the sentence."""
    found = f"parameter={param}" + (f", value={value}" if value is not None else "")
    return Refusal(400, f"{message} ({found})", param=param)


def refused(message: str) -> Refusal:
    """A sentence of vLLM's checks that names no field."""
    return Refusal(400, message)


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def unknown_model(asked: str, served: str) -> Refusal:
    return Refusal(404, f"The model `{asked}` does not exist. Valid aliases: {served}.", "NotFoundError", "model")


def queue_full() -> Refusal:
    return Refusal(503, BUSY, "Service Unavailable")


def not_found() -> Refusal:
    return Refusal(404, "Not Found", "Not Found")


def wrong_method(right: str) -> Refusal:
    return Refusal(405, "Method Not Allowed", "Method Not Allowed", allow=right)
