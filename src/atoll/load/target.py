"""Where the load goes, and how it is asked for: URL, endpoint, key, headers, timeouts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from atoll.errors import InputError

REPLICA_HEADER = "X-Atoll-Replica"
# Every answer of `atoll emulate` carries it; nginx passes it on, where it would put its own name into `Server`.
EMULATED_HEADER = "X-Atoll-Emulated"


class Endpoint(StrEnum):
    """What is asked for; the paths are OpenAI's, and vLLM's own for the last two."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    RERANK = "rerank"
    SCORE = "score"

    @property
    def path(self) -> str:
        return "/chat/completions" if self is Endpoint.CHAT else f"/{self}"

    @property
    def generates(self) -> bool:
        """Whether the answer is text, token by token; else it is vectors or scores, at once."""
        return self in {Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.RESPONSES}

    @property
    def takes_messages(self) -> bool:
        return self in {Endpoint.CHAT, Endpoint.RESPONSES}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShare:
    """One of the models that a run asks, and its part of the requests against the others' parts."""

    name: str
    share: float = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One server: where to connect, and the path of each thing it offers."""

    host: str
    port: int
    tls: bool
    path: str  # of the requests that are timed
    models_path: str
    tokenize_path: str  # vLLM's own, beside /v1
    basic: str | None = None  # name:password that stood in the URL

    @property
    def authority(self) -> str:
        """The Host header: without the port where it is the scheme's own."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == (443 if self.tls else 80) else f"{name}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{'https' if self.tls else 'http'}://{self.authority}"


def parse_target(url: str, endpoint: Endpoint | None = None) -> tuple[Target, Endpoint]:
    """Understand `host:port`, `http://host:port`, `.../v1` and a full path.

    Args:
        url: what the user typed.
        endpoint: what is asked for; None takes what the path says, else chat.

    Raises:
        InputError: no host, a port that is none, or a scheme other than http and https.
    """
    parts = _split(url)
    if parts is None or parts.scheme not in {"http", "https"} or not parts.hostname or not _is_host(parts.hostname):
        raise InputError(f"{url!r} is no URL of a server. Write it like http://127.0.0.1:8000.")
    try:
        port = parts.port
    except ValueError:
        raise InputError(f"{url!r} has no usable port. Write it like http://127.0.0.1:8000.") from None
    path = parts.path.rstrip("/")
    chosen = endpoint or _endpoint_of(path) or Endpoint.CHAT
    base = _api_base(path)
    query = f"?{parts.query}" if parts.query else ""
    target = Target(
        host=parts.hostname,
        port=port or (443 if parts.scheme == "https" else 80),
        tls=parts.scheme == "https",
        path=(path if path.endswith(Endpoint(chosen).path) else base + chosen.path) + query,
        models_path=base + "/models",
        tokenize_path=base.removesuffix("/v1") + "/tokenize",
        basic=f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if "@" in parts.netloc else None,
    )
    return target, chosen


def models_in(answer: object) -> list[dict[str, Any]]:
    """What an answer of /v1/models names; nothing where it is another kind of answer."""
    models = answer.get("data") if isinstance(answer, dict) else None
    return [model for model in models if isinstance(model, dict)] if isinstance(models, list) else []


def url_to_keep(url: str) -> str:
    """The URL without what may be secret in it: a name and a password before the host, and a query."""
    parts = _split(url)
    if parts is None or not (parts.username or parts.password or parts.query):
        return url
    kept = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
    return kept if "://" in url else kept.removeprefix("http://")


def password_of(url: str) -> str:
    """What stands before a URL's host as its password; "" where nothing does."""
    parts = _split(url)
    return (parts.password or "") if parts else ""


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url if "://" in url else f"http://{url}")
    except ValueError:  # a bracket that is not closed
        return None


def _is_host(name: str) -> bool:
    """Whether it can be asked for: `..` and names with a part of more than 63 letters cannot."""
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False


def _endpoint_of(path: str) -> Endpoint | None:
    """The endpoint that a path ends with; /chat/completions is looked at before /completions."""
    return next((one for one in Endpoint if path.endswith(one.path)), None)


def _api_base(path: str) -> str:
    """`""` and `/v1` are `/v1`; `/proxy/v1/chat/completions` is `/proxy/v1`; any other path is kept as it is."""
    endpoint = _endpoint_of(path)
    return path.removesuffix(endpoint.path) if endpoint is not None else path or "/v1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """How long to wait, in seconds; None waits for ever."""

    connect_s: float = 10.0
    token_s: float | None = 300.0  # between two pieces of text, and for the first
    request_s: float | None = None  # the whole answer
    idle_s: float = 4.0  # a connection unused for so long is not used again: vLLM closes it after 5


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """How every request of a run is asked."""

    model: str | None = None  # None: the first that /v1/models names
    models: tuple[ModelShare, ...] = ()  # where several are asked
    endpoint: Endpoint | None = None  # None: what the URL's path says, else chat
    stream: bool = True
    api_key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    extra_body: Mapping[str, object] = field(default_factory=dict)  # further fields of the JSON body
    exact_output: bool = True  # ask for exactly the wanted answer length: ignore_eos and min_tokens
    length_field: str = "max_tokens"  # or max_completion_tokens, for models that take no other
    usage: bool = True  # ask for the usage of a stream: stream_options
    omit: tuple[str, ...] = ()  # fields that are left out, whoever asked for them
    images: tuple[str, ...] = ()  # URLs or data URLs that every message shows
    documents: int = 4  # that a query is held against, where it is (rerank, score)
    session_header: str | None = None  # names the session to who balances; None: it is not sent
    request_ids: str | None = None  # what X-Request-Id begins with; None: a word of the run's own; "": none is sent
    retries: int = 0  # times that a request is sent again after a refusal that says when (Retry-After)
    temperature: float | None = None
    script: str = "english"  # of synthetic prompts
    verify_tls: bool = True
    ca_file: str | None = None
    certificate: str | None = None  # a file: whoever shows just this one is taken, under whatever name
    proxy: str | None = None  # http://host:port; none is used unless it is given
    replica_header: str = REPLICA_HEADER
    timeouts: Timeouts = field(default_factory=Timeouts)
