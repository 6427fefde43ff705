"""Why a request is not served, worded and shaped as vLLM 0.32 answers."""

import json
from dataclasses import dataclass

BUSY = "The engine is currently busy and cannot accept new requests. Please try again later or on a different instance."


@dataclass(frozen=True, slots=True)
class Refusal(Exception):
    """An HTTP error answer. Raised while a request is read, before anything is sent."""

    status: int
    message: str
    kind: str = "BadRequestError"
    param: str | None = None

    def body(self) -> bytes:
        """The JSON document of the answer; a 401 has vLLM's shorter one."""
        if self.status == 401:
            return b'{"error":"Unauthorized"}'
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.status}
        return json.dumps({"error": error}, ensure_ascii=False, separators=(",", ":")).encode()


def unauthorized() -> Refusal:
    return Refusal(401, "Unauthorized", "Unauthorized")


def unknown_model(asked: str, served: str) -> Refusal:
    return Refusal(404, f"The model `{asked}` does not exist. Valid aliases: {served}.", "NotFoundError", "model")


def queue_full() -> Refusal:
    return Refusal(503, BUSY, "Service Unavailable")


def not_found() -> Refusal:
    return Refusal(404, "Not Found", "Not Found")


def wrong_method() -> Refusal:
    return Refusal(405, "Method Not Allowed", "Method Not Allowed")
