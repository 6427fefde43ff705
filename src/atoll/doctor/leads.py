"""Whether a door leads to a language model: yes, no, or nobody can tell from what is there."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum

Address = tuple[str, int | None]


class Lead(Enum):
    MODEL = "a language model"
    OTHER = "another program"
    UNKNOWN = "nobody can tell"


@dataclass(frozen=True, kw_only=True)
class Signs:
    """What a door shows of a way that it leads: nginx's location, Caddy's reverse_proxy, a backend of HAProxy."""

    names: tuple[str, ...]  # of upstreams, backends, hosts, paths
    addresses: tuple[Address, ...] = ()
    path: str = ""  # what clients ask for; "" where it is everything
    uri: str = ""  # what is put before it on the way
    text: str = ""  # the file
    streams: bool = False  # buffers are switched off, as answers that come word by word want it


# Words that show a way to lead to a language model.
_MODEL = re.compile(
    r"vllm|llm|openai|sglang|ollama|\btgi\b|llama|qwen|mistral|gpt|deepseek|gemma|inference", re.IGNORECASE
)
_MODEL_PATH = re.compile(r"^\^?/(?:v1/(?:chat|completions|embeddings|models|responses)|api/(?:generate|chat)|openai)\b")
_API_PATH = re.compile(r"^\^?/v1(?:/|$|\b)")  # many APIs have one: it counts where something else tells too
_PORTS = {8000, 30000, 11434}  # of vLLM, SGLang, Ollama; 8000 is many programs', and a name tells which
# Hosts that are named for what they are, not for what runs on them.
_NAMELESS = re.compile(
    r"^(\d+\.\d+\.\d+\.\d+|\[.*\]|localhost|host\.(docker|containers)\.internal"
    r"|(gpu|node|server|worker|host|box|machine|dgx|backend|upstream|replica)s?[\w-]*(\.[\w.-]+)?)$",
    re.IGNORECASE,
)
# Programs that are known by their names, and ports that are theirs.
_OTHER = re.compile(
    r"grafana|prometheus|alertmanager|jupyter|webui|minio|keycloak|authentik|oauth2|n8n|portainer|gitea|gitlab|jenkins"
    r"|kibana|elastic|mongo|redis|postgres|mysql|rabbit|flower|airflow|mlflow|langfuse|qdrant|milvus|weaviate|superset"
    r"|frontend|static|assets|comfy|whisper|wordpress|nextcloud|node[-_]?exporter|dcgm|cadvisor|loki|traefik|certbot|acme",
    re.IGNORECASE,
)
_OTHER_PORTS = {3000, 3001, 4200, 5173, 5432, 5601, 6333, 6379, 8188, 8888, 9000, 9090, 9093, 9100, 9200, 9400, 27017}
_OTHER_PATH = re.compile(
    r"^\^?/(?:static|assets|favicon|robots|socket\.io|ws\b|grafana|prometheus|jupyter|admin|auth|login|oauth|images"
    r"|media|docs|\.well-known)|\\\.\(|\.(?:js|css|png|ico|svg)\b",
    re.IGNORECASE,
)


def judge(signs: Signs, engine_ports: Collection[int]) -> Lead:
    """Where a way leads whose host is none of the services that were read.

    Args:
        signs: what the door shows.
        engine_ports: the ports at which engines of these files answer.
    """
    if _MODEL_PATH.match(signs.path) or _MODEL_PATH.match(signs.uri) or _are_named(signs.names):
        return Lead.MODEL
    nameless = [port for host, port in signs.addresses if _NAMELESS.match(host)]
    told = (
        _API_PATH.match(signs.path) is not None or _API_PATH.match(signs.uri) is not None,
        any(port in _PORTS for port in nameless),
        any(port in engine_ports for port in nameless),
        _MODEL.search(signs.text) is not None,
        signs.streams,
    )
    if sum(told) >= 2:  # each of them alone is any program's
        return Lead.MODEL
    ports = {port for _, port in signs.addresses}
    other = any(_OTHER.search(name) for name in signs.names) or _OTHER_PATH.search(signs.path) is not None
    return Lead.OTHER if other or (ports and ports <= _OTHER_PORTS) else Lead.UNKNOWN


def _are_named(names: Iterable[str]) -> bool:
    return any(_MODEL.search(name) and not _OTHER.search(name) for name in names)
