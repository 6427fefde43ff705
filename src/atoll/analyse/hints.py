"""What to do about a failure, where the engine's own sentence tells."""

import re

# Class of failure, what its sentence says, and the hint; the first that fits counts.
_HINTS: tuple[tuple[str, str, str], ...] = (
    (
        r"http_4\d\d",
        r"min_tokens|ignore_eos",
        "These fields keep answers at their length; --free-output leaves them out.",
    ),
    (r"http_4\d\d", r"stream_options|include_usage", "--no-usage leaves stream_options out."),
    (
        r"http_4\d\d",
        r"max_completion_tokens|'max_tokens'|\"max_tokens\"|\bmax_tokens\b.*(not supported|unsupported|not permitted)",
        "--length-field max_completion_tokens sends that one.",
    ),
    (
        r"http_4\d\d",
        r"context (length|window|size)|max_model_len|maximum.*tokens|too long|input length|exceeds?.*context",
        "The prompt and the answer together are longer than the engine takes; lower --prompt or --output.",
    ),
    (r"http_4\d\d", r"image|multi-?modal|audio|video", "The model does not take this kind of content."),
    (r"http_4\d\d", r"tool_choice|tool-call-parser|tool choice|auto tool", "The engine does not take tool calls."),
    (
        r"http_4\d\d",
        r"model.*(not (found|exist|available|supported|served|loaded)|unknown|invalid)|(no such|unknown|invalid) model",
        "The server does not know this model; without --model the server is asked which it serves.",
    ),
    (r"http_4(01|03)", r"", "The key is not taken; give it with --api-key-file or ATOLL_API_KEY."),
    (r"http_404", r"", "The path is not served; give the whole URL of the endpoint, or another --endpoint."),
    (r"http_405", r"", "The path does not take POST; give the whole URL of the endpoint."),
    (r"http_413", r"", "The body is too large for the server or a proxy before it; lower --prompt."),
    (r"http_4\d\d", r"extra inputs|extra fields|not permitted|unexpected|unrecognized|unknown (field|param|argument)",
     "--omit FIELD leaves a field out."),
    (r"http_(429|503)", r"", "--retry-after waits as the server says and sends again."),
    (r"http_50(2|4)", r"", "A proxy before the engine gave up on it; its log and its time-outs tell more."),
    (r"connection_refused", r"", "Nothing listens there; is the server up, and is this its port?"),
    (r"connection_(closed|reset)", r"", "The server, or a proxy before it, hangs up; its log tells more."),
    (r"tls", r"self.signed|unable to get|unknown ca|verify failed", "--ca-file trusts the certificate's issuer."),
    (r"tls", r"wrong version|record layer|not match", "Is this port one of plain HTTP? Then write http://."),
    (r"wrong_content_type|bad_answer", r"", "Is this an OpenAI-compatible endpoint? --no-stream asks for no stream."),
    (r"aborted", r"", "The engine gave the answer up in the middle; its log tells more."),
    (r"stall|slow_drip", r"", "--token-timeout says how long to wait."),
    (r"timeout", r"", "--timeout says how long a whole answer may take."),
)  # fmt: skip


def hint_of(error: str, sentence: str | None) -> str | None:
    """What to do about a class of failure and the sentence behind it; None where nothing is known."""
    for kind, words, hint in _HINTS:
        if re.fullmatch(kind, error) and re.search(words, sentence or "", re.IGNORECASE):
            return hint
    return None
