"""The router's configuration: nginx before the replicas, for containers and for plain processes alike.

What stands in the text was measured: answers are streamed unbuffered over HTTP/1.1, an idle connection to a replica is
dropped before the replica drops it, a request is given to a second replica only while that is cheap, and the header
`X-Atoll-Replica` names the replica that answered. docs/render.md tells each choice with its figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from textwrap import indent

from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.render.models import location_of
from atoll.render.parts import SCRIPT_FILE, Part, door_script, join_parts
from atoll.render.pool import Pool, UpstreamServer, affinity_part, body_buffer_mib, health_name, upstream_blocks
from atoll.render.tls import CONTAINER_TLS_PORT, KEEPS_CONNECTIONS, Version, listen_lines, version_in

REPLICA_HEADER = "X-Atoll-Replica"
CONTAINER_PORT = 8080  # where nginx listens inside its container; what is published stands in .env
MOST_WORKERS = 4  # one nginx worker carried 28,000 chunks/s here (1.31.3, loopback), far above any four-GPU box
# What of an engine's API is for clients, below /v1/: vLLM 0.32's routes less those that load adapters.
CLIENT_ROUTES = (
    "models",
    "chat/completions",
    "completions",
    "responses(/[A-Za-z0-9_-]+(/cancel)?)?",
    "messages(/count_tokens)?",
    "embeddings",
    "rerank",
    "score",
    "audio/(transcriptions|translations|speech)",
)
MOST_CONNECTIONS = 16384  # of a worker
MOST_STREAMS = 8000  # a little less than half of them
# Of one client's address. High, since a team behind a proxy is one address: they end a flood, not a busy day.
CLIENT_STREAMS = 4096
CLIENT_REQUESTS_PER_S = 1000
PROCESS_ACCESS_LOG = "nginx-access.log"  # in the folder of a bundle of plain processes
TOO_MANY = '{"error":{"message":"Too many requests from this address.","type":"rate_limit_error","code":429}}'
KEPT_AFTER_RELOAD_S = 1  # less than an update watches a replica that leaves: run.roll
ENGINE_KEEP_ALIVE_S = 5.0  # uvicorn's own, which vLLM keeps unless VLLM_HTTP_TIMEOUT_KEEP_ALIVE says otherwise


@dataclass(frozen=True, kw_only=True, slots=True)
class NginxForm:
    """What differs between nginx in a container and nginx as a plain process.

    Paths may be relative; nginx then reads them from its prefix (`nginx -p DIR`), so a folder of files can be moved.
    """

    listen: str | None  # in the clear
    pid: str
    error_log: str
    access_log: str
    temporary: str  # what the names of temporary folders begin with
    modules: str  # brings in njs where a script is needed
    foreground: bool  # the official image says `daemon off;` itself, and saying it twice is an error
    resolver: str | None = None  # asked again for a replica's address; needs nginx >= 1.27.3
    secure: str | None = None  # where it listens with TLS, beside `listen` or in its place
    version: Version | None = None  # nginx's, as far as it is known
    many_a_name: bool = False  # one name stands for many replicas, which are told apart by their addresses


CONTAINER = NginxForm(
    listen=str(CONTAINER_PORT),
    pid="/tmp/nginx.pid",  # noqa: S108 - a tmpfs of the container's own
    error_log="stderr",
    access_log="/dev/stdout",
    temporary="/tmp/nginx-",  # noqa: S108
    modules="load_module modules/ngx_http_js_module.so;  # of the image",
    foreground=False,
    resolver="127.0.0.11",  # Docker's DNS
)


CLUSTER = replace(CONTAINER, resolver="kube-dns.kube-system.svc.cluster.local", many_a_name=True)  # in Kubernetes


def container_form(image: str, *, tls: bool) -> NginxForm:
    """In Compose, by what the tag of nginx's image says of its release."""
    return replace(CONTAINER, version=version_in(image), secure=str(CONTAINER_TLS_PORT) if tls else None)


def process_form(host: str, port: int, *, tls: bool = False, version: Version | None = None) -> NginxForm:
    """Everything beside the configuration file, so that neither root nor a system nginx is needed or touched."""
    return NginxForm(
        listen=None if tls else f"{host}:{port}",
        secure=f"{host}:{port}" if tls else None,
        version=version,
        pid="nginx.pid",
        error_log="stderr",
        access_log=PROCESS_ACCESS_LOG,
        temporary="nginx-",
        modules="include nginx-module*.conf;  # written by `atoll up` where nginx has njs as a module",
        foreground=True,
    )


def render_door(pools: Sequence[Pool], *, form: NginxForm, parts: Sequence[Part] = ()) -> dict[str, str]:
    """The door's files: nginx.conf, and door.js where something in it is njs's to do."""
    script = door_script(parts)
    text = render_nginx(pools, form=form, parts=parts)
    return {"nginx.conf": text} if script is None else {"nginx.conf": text, SCRIPT_FILE: script}


def render_nginx(pools: Sequence[Pool], *, form: NginxForm, parts: Sequence[Part] = ()) -> str:
    """The text of nginx.conf.

    Args:
        pools: one a model. Its layout's router gives policy, weights and when a replica counts as failed; the first
            one's also what holds for the whole door.
        form: in a container or as a process.
        parts: what further features of the door add.

    Raises:
        InputError: a policy that nginx does not have, or two replicas on one port.
    """
    _refuse_what_nginx_cannot(pools)
    affinity = [affinity_part(pool) for pool in pools]
    door = join_parts([*(replace(part, passing=()) for part in affinity), *parts])
    resolves = form.resolver is not None
    blocks = [
        _request_id_map(),
        _log_format(form),
        _http_basics(form, pools),
        _address_map() if form.many_a_name else _replica_map([server for pool in pools for server in pool.servers]),
        _limits(pools[0].layout),
        *([f"js_import door from {SCRIPT_FILE};"] if door.functions else []),
        *door.http,
        *(block for pool in pools for block in upstream_blocks(pool, resolves=resolves)),
        _server(form, pools, door, affinity),
    ]
    http = "\n\n".join(indent(block, "  ") for block in blocks)
    return f"{_head(pools, form, door)}\nhttp {{\n{http}\n}}\n"


def _refuse_what_nginx_cannot(pools: Sequence[Pool]) -> None:
    for pool in pools:
        pool.check()
    ports = [server.port for pool in pools for server in pool.servers]
    if len(set(ports)) != len(ports):
        raise InputError(f"{pools[0].layout.name}: two replicas have the same port ({ports}); give each its own.")


def _head(pools: Sequence[Pool], form: NginxForm, door: Part) -> str:
    told = [
        f"{pool.layout.name}: {len(pool.servers)} replica{'s' * (len(pool.servers) != 1)} behind one door"
        f" ({pool.layout.router.policy.value})."
        for pool in pools
    ]
    lines = [
        *(f"# {words}" for words in told),
        *([form.modules] if door.functions else []),
        f"worker_processes {_workers(pools)};",
        "worker_rlimit_nofile 65536;",
        f"error_log {form.error_log} warn;",
        f"pid {form.pid};",
        *(["daemon off;"] if form.foreground else []),
        f"events {{ worker_connections {MOST_CONNECTIONS}; }}  # two a stream: one to the client, one to the replica",
    ]
    return "\n".join(lines) + "\n"


def _workers(pools: Sequence[Pool]) -> int:
    """Without a shared zone every worker counts alone, so their number is the layout's to say."""
    routers = [pool.layout.router for pool in pools]
    replicas = sum(len(pool.servers) for pool in pools)
    wanted = min(MOST_WORKERS, replicas) if all(router.shared_zone for router in routers) else 1
    return max(wanted, *(router.workers for router in routers))


def _request_id_map() -> str:
    """A client's own id goes on to the replica and into the log, so that a slow request is found again in all three."""
    return (
        "map $http_x_request_id $atoll_request_id {\n"
        '  "~^[!-~]{1,200}$" $http_x_request_id;  # printable, and of a length that a log line has room for\n'
        "  default $request_id;\n"
        "}"
    )


def _log_format(form: NginxForm) -> str:
    return (
        'log_format atoll escape=json \'{"t":"$time_iso8601","id":"$atoll_request_id","status":$status,\'\n'
        '  \'"replica":"$atoll_replica","upstream":"$upstream_addr","upstream_status":"$upstream_status",\'\n'
        '  \'"first_byte_s":"$upstream_header_time","seconds":$request_time,"in":$request_length,\'\n'
        '  \'"out":$bytes_sent,"path":"$uri","session":"$http_x_session_id"}\';\n'
        f"access_log {form.access_log} atoll buffer=32k flush=1s;"
    )


def _http_basics(form: NginxForm, pools: Sequence[Pool]) -> str:
    buffer = body_buffer_mib(pools)
    lines = [
        "server_tokens off;",
        "default_type application/octet-stream;",
        "gzip off;  # with buffering it would hold back the whole answer",
        "client_max_body_size 64m;  # images and long prompts",
        f"client_body_buffer_size {buffer or 1}m;  # ordinary prompts never touch the disk",
        *(["client_body_in_single_buffer on;  # the prompt's head is looked at"] if buffer is not None else []),
        "keepalive_timeout 75s;",
        "keepalive_requests 100000;",
        *_kept_connections(form),
        "client_body_temp_path {t}body;",
        "proxy_temp_path {t}proxy;",
        "fastcgi_temp_path {t}fastcgi;",
        "uwsgi_temp_path {t}uwsgi;",
        "scgi_temp_path {t}scgi;",
    ]
    if form.resolver is not None:
        lines.insert(0, f"resolver {form.resolver} valid=5s ipv6=off;  # a container that comes back may have moved")
    return "\n".join(lines).format(t=form.temporary)


def _kept_connections(form: NginxForm) -> tuple[str, ...]:
    """A worker that a reload ends closes what is idle at once, just when its client may be sending on it."""
    if form.version is None or form.version < KEEPS_CONNECTIONS:
        return ()
    return (f"keepalive_min_timeout {KEPT_AFTER_RELOAD_S}s;  # idle connections outlive a reload by so much",)


def _replica_map(upstreams: Sequence[UpstreamServer]) -> str:
    """After a retry $upstream_addr lists every address that was tried, so the last port is the one that answered."""
    rows = "\n".join(f'  "~:{upstream.port}$" "{upstream.number}";' for upstream in upstreams)
    return f'map $upstream_addr $atoll_replica {{\n  default "";\n{rows}\n}}'


def _address_map() -> str:
    return 'map $upstream_addr $atoll_replica {\n  default "";\n  "~(?<pod>[0-9a-f.:\\[\\]]+):\\d+$" $pod;\n}'


def _limits(layout: Layout) -> str:
    """What a client gets at most, and all together: what a worker's connections carry, two a stream, less a reserve."""
    router = layout.router
    rate = router.client_requests_per_s or CLIENT_REQUESTS_PER_S
    return f"""limit_conn_zone $binary_remote_addr zone=client_streams:10m;
limit_conn_zone $server_port zone=streams:64k;
limit_req_zone $binary_remote_addr zone=client_requests:10m rate={rate}r/s;
limit_conn_status 429;
limit_req_status 429;
limit_conn client_streams {router.client_streams or CLIENT_STREAMS};  # of one address
limit_conn streams {MOST_STREAMS};  # of all
limit_req zone=client_requests burst={2 * rate} nodelay;
client_header_timeout 15s;  # who sends a head so slowly holds a connection and nothing else
reset_timedout_connection on;"""


_AS_MATCHED = (
    "rewrite ^ $uri break;  # pass on the path that was matched, not as it was spelled: /metrics/..%2fv1/models"
)


def _server(form: NginxForm, pools: Sequence[Pool], door: Part, affinity: Sequence[Part]) -> str:
    """Nothing else is for clients: neither an engine's /metrics, /tokenize and /pause nor the app stack's backend."""
    return f"""server {{
{_lines(_listen(form), "  ")}{_lines(door.server, "  ")}  add_header {REPLICA_HEADER} $atoll_replica always;
  error_page 429 @too_many;

  proxy_http_version 1.1;  # with 1.0 an answer comes in 4 KiB lumps, and a cut one looks whole
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  proxy_set_header X-Real-IP $remote_addr;
  proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
  proxy_set_header X-Forwarded-Proto $scheme;
  proxy_set_header X-Request-Id $atoll_request_id;
  proxy_buffering off;
  proxy_socket_keepalive on;
  proxy_connect_timeout 2s;
  proxy_send_timeout 60s;
  proxy_read_timeout 1800s;  # longer than the queue plus the longest answer that is not streamed
  proxy_next_upstream error timeout http_503 non_idempotent;
  proxy_next_upstream_tries 2;
  proxy_next_upstream_timeout 5s;  # an answer that failed late is never generated again

{indent(_ways_in(pools, door, affinity), "  ")}
{_lines(door.locations, "  ")}  location /v1/ {{  # loading adapters and whatever else is not for clients
    return 404;
  }}
  location @too_many {{  # of nginx; an engine's own 429 is passed on
    default_type application/json;
    add_header Retry-After 1 always;
    return 429 '{TOO_MANY}\\n';
  }}
  location = /health {{  # 200 while at least one replica can serve
    access_log off;
    proxy_read_timeout 10s;
    proxy_pass http://{health_name(pools[0])}/health;
  }}
  location = /nginx-health {{
    access_log off;
    return 200 "ok\\n";
  }}
  location / {{
    return 404;
  }}
}}"""


def _listen(form: NginxForm) -> tuple[str, ...]:
    plain = () if form.listen is None else (f"listen {form.listen};",)
    return plain if form.secure is None else (*plain, *listen_lines(form.secure, form.version))


def _ways_in(pools: Sequence[Pool], door: Part, affinity: Sequence[Part]) -> str:
    """From a client's request to its pool: in one location where there is one, else by way of a script."""
    routes = "|".join(CLIENT_ROUTES)
    if len(pools) == 1:
        return _location(f'~ "^/v1/({routes})$"', (*door.entry, *_passing(pools[0], door, affinity[0])))
    blocks = [
        _location("= /v1/models", (*door.entry, "js_content door.models;")),
        _location(f'~ "^/v1/({routes})$"', (*door.entry, "js_content door.by_model;")),
    ]
    for pool, own in zip(pools, affinity, strict=True):
        blocks.append(_location(location_of(pool.name), _passing(pool, door, own)))
        blocks.append(
            _location(
                f"= /health/{pool.name}",
                ("access_log off;", "proxy_read_timeout 10s;", f"proxy_pass http://{health_name(pool)}/health;"),
            )
        )
    return "\n".join(blocks)


def _passing(pool: Pool, door: Part, own: Part) -> tuple[str, ...]:
    return (_AS_MATCHED, *own.passing, *door.passing, f"proxy_pass http://{pool.name};")


def _location(where: str, lines: Sequence[str]) -> str:
    return f"location {where} {{\n{_lines(lines, '  ')}}}"


def _lines(pieces: Sequence[str], blanks: str) -> str:
    return "".join(indent(piece, blanks) + "\n" for piece in pieces)
