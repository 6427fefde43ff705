"""Compose: what a container needs to run an engine, and what it must not have."""

import re
from collections.abc import Iterable, Iterator
from hashlib import sha256

from atoll.doctor.checks.places import found, join
from atoll.doctor.compose import Mount, Port, Project, Service
from atoll.doctor.edits import (
    Edits,
    add_item,
    add_key,
    add_volume,
    remove_item,
    remove_key,
    replace_value,
)
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.rule import ERROR, INFO, WARNING, rule
from atoll.doctor.tree import Node
from atoll.doctor.words import words_of
from atoll.errors import InputError
from atoll.units import parse_seconds

VLLM = "v0.32.0"  # what corrected files are pinned to: the oldest release without a known hole (SE001)
NGINX = "1.31.3"  # the version that nginx's rules were tried with


def serving(facts: Facts) -> Iterator[tuple[Project, Service]]:
    """The services on an answer's way, in Compose projects: engines, proxies, nginx before them."""
    routed = {id(route.config.service) for route in facts.routes}
    for project in facts.projects:
        for service in project.services if project.origin != "kubernetes" else ():
            if service.serves_llm or id(service) in routed:
                yield project, service


def engines(facts: Facts) -> Iterator[tuple[Project, Service]]:
    """The vLLM services of Compose projects."""
    return ((project, service) for project, service in serving(facts) if service.vllm is not None)


@rule("DC001", INFO)
def version_key(facts: Facts) -> Iterable[Finding]:
    """A `version:` key.

    Consequence: Compose warns that it is obsolete, and reads nothing from it.

    Evidence: docker compose 2.40.3.

    Fix: Delete it.

    Fails:
    ```compose.yaml
    version: "3.8"
    services:
      web: {image: "example/web:1.0"}
    ```

    Passes:
    ```compose.yaml
    services:
      web: {image: "example/web:1.0"}
    ```
    """
    for root in (root for project in facts.projects for root in project.roots):
        key = root.key("version")
        if key is not None:
            yield found(key, "`version:` is obsolete", edits=remove_key(root, "version"))


_MOVING = {"latest", "nightly", "main", "stable", "mainline", "alpine", "dev", "edge", "main-latest", "main-stable"}


def is_unpinned(service: Service) -> bool:
    image = service.image
    return image is not None and image.digest is None and (image.tag is None or image.tag in _MOVING)


@rule("DC002", WARNING)
def unpinned_image(facts: Facts) -> Iterable[Finding]:
    """An image without a version.

    Consequence: A pull changes flags (VL001) or nginx's defaults (1.29.7: HTTP/1.1 and keepalive) from one day to the
    next.

    Evidence: https://github.com/jdaln/dgx-spark-inference-stack/issues/12.

    Fix: Pin a version, or a digest.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:latest", command: m/model}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```
    """
    clusters = (service for project in facts.projects if project.origin == "kubernetes" for service in project.services)
    composed = (service for project, service in serving(facts) if project.origin == "compose")
    for service in (*composed, *clusters):
        node = service.get("image")
        if node is not None and is_unpinned(service):
            yield found(node, f"{node.text} is another program after every pull", edits=_pinned(service, node))


def _pinned(service: Service, node: Node) -> Edits:
    image = service.image
    assert image is not None
    if image.path == "vllm/vllm-openai":
        return replace_value(node, f"{image.path}:{VLLM}")
    if image.path == "nginx":
        return replace_value(node, f"nginx:{NGINX}{'-alpine' if image.tag == 'alpine' else ''}")
    return ()


@rule("DC003", ERROR)
def engine_published(facts: Facts) -> Iterable[Finding]:
    """An engine's port is published on all interfaces although something stands before it.

    Consequence: Clients go past nginx (or the backend) and its key check; Docker's rules come before ufw's; --api-key
    leaves /invocations, /tokenize and /pause open.

    Evidence: https://docs.vllm.ai/en/stable/usage/security/;
    https://dev.to/munimv2/vllms-api-key-leaves-invocations-tokenize-and-pause-open-lock-it-down-with-an-allowlist-4jlf.

    Fix: `expose` instead of `ports`, or 127.0.0.1:8001:8000.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, ports: ["8001:8000"]}
      backend: {image: "example/backend:1.0", depends_on: [vllm]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, ports: ["127.0.0.1:8001:8000"]}
      backend: {image: "example/backend:1.0", depends_on: [vllm]}
    ```
    """
    for project, service in engines(facts):
        before = _in_front(facts, project, service)
        for port in service.ports:
            if before and port.open_to_all:
                yield found(
                    port.node,
                    f"{service.name} is open to every network on port {port.published}, past {before}",
                    edits=on_loopback(port),
                )


def _in_front(facts: Facts, project: Project, service: Service) -> str | None:
    """What leads to it: nginx, or a service that depends on it or names it in a variable."""
    for route in facts.routes_to(service):
        return route.config.service.name if route.config.service is not None else route.config.source.name
    named = re.compile(rf"\b{re.escape(service.name)}:\d")
    for other in project.services:
        if other is service or other.vllm is not None:
            continue
        if service.name in other.depends_on or any(named.search(s.value or "") for s in other.environment.values()):
            return other.name
    return None


def on_loopback(port: Port) -> Edits:
    """The port, published for this machine alone."""
    node = port.node
    if node.is_map:
        written = node.get("host_ip")
        return replace_value(written, "127.0.0.1") if written is not None else add_key(node, ("host_ip: 127.0.0.1",))
    raw = (node.raw or "").strip()
    if port.host_ip is not None:
        raw = raw.removeprefix(f"{port.host_ip}:")
    return replace_value(node, f'"127.0.0.1:{raw}"')


_SIZES = {"": 1, "b": 1, "k": 2**10, "kb": 2**10, "m": 2**20, "mb": 2**20, "g": 2**30, "gb": 2**30}


def _bytes(text: str) -> int | None:
    found_ = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text)
    factor = _SIZES.get(found_[2].lower()) if found_ is not None else None
    return int(float(found_[1]) * factor) if found_ is not None and factor is not None else None


@rule("DC004", ERROR)
def small_shared_memory(facts: Facts) -> Iterable[Finding]:
    """Tensor parallelism without `shm_size` or `ipc: host`.

    Consequence: /dev/shm is 64 MiB; vLLM's ring to its workers is 24 MiB x 10, and NCCL uses it when peer-to-peer is
    off: SIGBUS, a hang or an NCCL error, late and under load.

    Evidence: seen with Docker: a segment of 240 MiB dies with exit 135 after 64 MiB;
    https://github.com/vllm-project/vllm/issues/1710, https://github.com/vllm-project/vllm/pull/1125,
    https://github.com/MiniMax-AI/MiniMax-01/issues/42.

    Fix: shm_size: 16gb, or ipc: host.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: [m/model, -tp, "2"], shm_size: 16gb}
    ```
    """
    for _, service in engines(facts):
        assert service.vllm is not None
        tp, pp = service.vllm.tensor_parallel, service.vllm.pipeline_parallel
        if tp is None or pp is None or tp * pp < 2 or service.string("ipc") not in {None, "private"}:
            continue
        if any(target.rstrip("/") == "/dev/shm" for target in _laid_in(service)):  # noqa: S108 - the name is the point
            continue
        node = service.get("shm_size")
        size = _bytes(node.text or "") if node is not None and node.known else None
        if node is None:
            yield found(
                service,
                f"{service.name} has {tp * pp} workers and 64 MiB of shared memory",
                edits=add_key(service.node, ("shm_size: 16gb",)),
            )
        elif size is not None and size < 2**30:
            yield found(
                node,
                f"{service.name} has {tp * pp} workers and {node.text} of shared memory",
                edits=replace_value(node, "16gb"),
            )


def _laid_in(service: Service) -> Iterator[str]:
    """The places of a container that come from elsewhere: mounts and tmpfs."""
    yield from (mount.target for mount in service.mounts)
    temporary = service.get("tmpfs")
    yield from ((node.text or "").partition(":")[0] for node in (temporary.scalars() if temporary is not None else ()))


@rule("DC005", WARNING)
def no_health_check(facts: Facts) -> Iterable[Finding]:
    """No health check on an engine.

    Consequence: `service_healthy` cannot be asked for, and nothing notices a dead engine (/health answers 503 then).

    Evidence: health.py of 0.32.0; seen with Docker.

    Fix: curl -fsS http://127.0.0.1:8000/health every 10 s, with a start_period longer than the loading.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        healthcheck: {test: [CMD, curl, -fsS, "http://127.0.0.1:8000/health"], interval: 10s, start_period: 20m}
    ```
    """
    for _, service in engines(facts):
        if not service.has_healthcheck:
            lines = (
                "healthcheck:",
                f'  test: ["CMD", "curl", "-fsS", "http://127.0.0.1:{service.listen_port or 8000}/health"]',
                "  interval: 10s",
                "  timeout: 5s",
                "  retries: 6",
                "  start_period: 20m",
            )
            edits = add_key(service.node, lines) if service.get("healthcheck") is None else ()
            yield found(service, f"nothing asks {service.name} whether it is alive", edits=edits)


@rule("DC006", WARNING)
def started_is_not_ready(facts: Facts) -> Iterable[Finding]:
    """A service depends on an engine by a plain list.

    Consequence: The condition is service_started: nginx or the backend come up in a second while the model loads for
    minutes, and answer 502.

    Evidence: docker compose: 1.2 s against 22.0 s with service_healthy.

    Fix: condition: service_healthy (nginx: with required: false, or resolve its upstreams, NG020).

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      backend: {image: "example/backend:1.0", depends_on: [vllm]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      backend: {image: "example/backend:1.0", depends_on: {vllm: {condition: service_healthy}}}
    ```
    """
    for project in facts.projects:
        for service in project.services:
            listed = service.get("depends_on")
            slow = [
                name for name, said in service.depends_on.items() if _is_slow(project, name) and _is_impatient(said)
            ]
            if listed is None or not slow:
                continue
            edits = _with_conditions(project, service, listed) if listed.is_list else _waiting(project, service, slow)
            place = listed if listed.is_list else service.depends_on[slow[0]]
            yield found(place, f"{service.name} does not wait until {join(slow)} can answer", edits=edits)


def _is_impatient(said: Node) -> bool:
    """Whether a dependency is fulfilled when its container runs: the short form, or the condition of that name."""
    return said.string("condition") in {None, "service_started"} and said.string("required") != "false"


def _waiting(project: Project, service: Service, slow: Iterable[str]) -> Edits:
    """service_healthy in place of service_started, where there is a health check to wait for."""
    edits: Edits = ()
    for name in slow:
        condition, other = service.depends_on[name].get("condition"), project.service(name)
        if condition is None or other is None or not other.has_healthcheck:
            return ()
        edits = (*edits, *replace_value(condition, "service_healthy"))
    return edits


def _is_slow(project: Project, name: str) -> bool:
    service = project.service(name)
    return service is not None and service.kind in {"vllm", "tgi", "sglang", "llama.cpp", "lmdeploy"}


def _with_conditions(project: Project, service: Service, listed: Node) -> Edits:
    """The list as a mapping; an engine without a health check cannot be waited for."""
    entry = service.node.entries.get("depends_on")
    if entry is None or entry.merged or listed.source.path != entry.key.source.path or not listed.source.fixable:
        return ()
    text = listed.source.text
    column = entry.key.start - (text.rfind("\n", 0, entry.key.start) + 1)
    lines = ["depends_on:"]
    for name in service.depends_on:
        other = project.service(name)
        if _is_slow(project, name):
            if other is None or not other.has_healthcheck:
                return ()
            lines += [f"  {name}:", "    condition: service_healthy"]
            lines += ["    required: false"] if service.kind == "nginx" else []
        else:
            lines += [f"  {name}:", "    condition: service_started"]
    end = listed.items[-1].end if listed.style != "flow" else listed.end
    body = f"\n{' ' * column}".join(lines)
    return (Edit(file=listed.file, start=entry.key.start, end=end, text=body),)


def _seconds(node: Node | None, default: float) -> float | None:
    if node is None:
        return default
    try:
        return parse_seconds(node.text or "") if node.known else None
    except InputError:
        return None


def loading_s(weight_bytes: int | None) -> float:
    """What loading takes at the very least: two minutes, or a minute and the weights at 2 GB/s, a fast disk."""
    return max(120.0, 60 + weight_bytes / 2e9) if weight_bytes is not None else 120.0


@rule("DC007", ERROR)
def short_start_period(facts: Facts) -> Iterable[Finding]:
    """The health check gives up before the model can be loaded.

    Consequence: `dependency failed to start: container is unhealthy`: compose up fails although the engine gets healthy
    later. Loading usually takes 2 to 15 minutes; torch.compile took up to 37.

    Evidence: seen with Docker: failed with 0s, passed with 60s on a load of 20 s;
    https://github.com/Toloka/tolokaforge/pull/661, https://github.com/llm-d/llm-d-benchmark/issues/83,
    https://github.com/vllm-project/vllm/issues/34399.

    Fix: start_period: 20m; it costs nothing when the engine is healthy earlier.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: Qwen/Qwen2.5-32B-Instruct
        healthcheck:
          test: [CMD, curl, -f, "http://localhost:8000/health"]
          interval: 10s
          retries: 3
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: Qwen/Qwen2.5-32B-Instruct
        healthcheck:
          test: [CMD, curl, -f, "http://localhost:8000/health"]
          interval: 10s
          retries: 3
          start_period: 15m
    ```
    """
    for _, service in engines(facts):
        check = service.get("healthcheck")
        if check is None or not service.has_healthcheck:
            continue
        start = _seconds(check.get("start_period"), 0.0)
        interval = _seconds(check.get("interval"), 30.0)
        retries = check.string("retries") or "3"
        if start is None or interval is None or not re.fullmatch(r"\d{1,9}", retries):
            continue
        card = facts.model_of(service)
        budget, needed = start + interval * int(retries), loading_s(card.weight_bytes if card is not None else None)
        if budget < needed:
            node = check.get("start_period")
            edits = replace_value(node, "20m") if node is not None else add_key(check, ("start_period: 20m",))
            yield found(
                node or check,
                f"{service.name} counts as unhealthy after {budget:g} s; loading takes {needed:.0f} s"
                " at the very least",
                edits=edits,
            )


@rule("DC008", WARNING)
def nobody_heals(facts: Facts) -> Iterable[Finding]:
    """A service is labelled to be restarted when unhealthy, and nothing does it.

    Consequence: Plain Docker never restarts a container for its health; only an exit counts for `restart:`.

    Evidence: seen with Docker: RestartCount 0.

    Fix: Run an autoheal service, or let the engine exit.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, restart: always, labels: {autoheal: "true"}}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, restart: always, labels: {autoheal: "true"}}
      autoheal: {image: "willfarrell/autoheal:1.2.0"}
    ```
    """
    healers = re.compile(r"autoheal|watchdog")
    for project, service in serving(facts):
        labels = service.get("labels")
        marked = labels is not None and (
            labels.get("autoheal") is not None or any("autoheal" in (item.text or "") for item in labels.items)
        )
        present = any(other.image is not None and healers.search(other.image.path) for other in project.services)
        if labels is not None and marked and not present:
            yield found(labels, f"{service.name} waits for an autoheal that is not there")


@rule("DC009", WARNING)
def stays_down(facts: Facts) -> Iterable[Finding]:
    """No restart policy.

    Consequence: After one crash, driver fault or reboot the service stays down.

    Evidence: Docker's documentation: the default is `no`.

    Fix: restart: unless-stopped.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, restart: unless-stopped}
    ```
    """
    for _, service in serving(facts):
        node = service.get("restart")
        if (node is None or node.text == "no") and service.get("deploy", "restart_policy") is None:
            edits = replace_value(node, "unless-stopped") if node is not None else ()
            yield found(
                node or service,
                f"{service.name} stays down after a crash",
                edits=edits or add_key(service.node, ("restart: unless-stopped",)),
            )


@rule("DC010", ERROR)
def missing_network(facts: Facts) -> Iterable[Finding]:
    """An external network that this host does not have (with --live).

    Consequence: Compose stops: `network X declared as external, but could not be found`.

    Evidence: docker compose 2.40.3; `docker network ls`.

    Fix: docker network create X, or let Compose make it.

    Fails:
    ```compose.yaml
    services:
      web: {image: "example/web:1.0", networks: [llm]}
    networks: {llm: {external: true}}
    ```
    ```host
    networks: [bridge, host, none]
    ```

    Passes:
    ```compose.yaml
    services:
      web: {image: "example/web:1.0", networks: [llm]}
    networks: {llm: {external: true}}
    ```
    ```host
    networks: [bridge, host, none, llm]
    ```
    """
    known = facts.host.networks if facts.host is not None else None
    if known is None:
        return
    for project in facts.projects:
        declared = project.root.get("networks") if project.origin == "compose" else None
        for name, network in declared.pairs() if declared is not None else ():
            called = network.string("name") or network.string("external", "name") or name
            external = network.get("external")
            if external is not None and external.text != "false" and called not in known:
                yield found(network, f"this host has no network {called}")


_HUB_CACHE = "/root/.cache/huggingface"


def covers(mounts: Iterable[Mount], path: str) -> bool:
    """Whether a mount holds this path: at it or above it."""
    return any(path == mount.target.rstrip("/") or path.startswith(mount.target.rstrip("/") + "/") for mount in mounts)


@rule("DC011", WARNING)
def downloads_again(facts: Facts) -> Iterable[Finding]:
    """The Hugging Face cache is not mounted (or HF_HOME points elsewhere than the mount).

    Consequence: The whole model is downloaded again for each new container.

    Evidence: https://docs.vllm.ai/en/stable/deployment/docker/.

    Fix: A volume or a host path at HF_HOME, by default /root/.cache/huggingface.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, volumes: ["hf:/cache"]}
    volumes: {hf: {}}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {HF_HOME: /cache}
        volumes: ["hf:/cache"]
    volumes: {hf: {}}
    ```
    """
    for _, service in engines(facts):
        assert service.vllm is not None
        model = service.vllm.model
        if model is None or model.startswith(("/", ".", "s3:", "gs:", "${")) or "://" in model:
            continue
        home = service.environment.get("HF_HOME") or service.environment.get("HF_HUB_CACHE")
        place = service.vllm.text("--download-dir") or (home.value if home is not None else None) or _HUB_CACHE
        if not covers(service.mounts, place.rstrip("/")):
            yield found(
                service,
                f"{service.name} keeps its model at {place}, which no volume holds",
                edits=_mount(service, f"~/.cache/huggingface:{place}"),
            )


def _mount(service: Service, text: str) -> Edits:
    listed = service.get("volumes")
    if listed is not None:
        return add_item(listed, text)
    return add_key(service.node, ("volumes:", f"  - {text}"))


@rule("DC012", INFO)
def compiles_again(facts: Facts) -> Iterable[Finding]:
    """The compile cache of vLLM is not kept.

    Consequence: torch.compile runs again for each new container.

    Evidence: https://github.com/vllm-project/vllm/issues/20264.

    Fix: A volume for each engine at /root/.cache/vllm (VLLM_CACHE_ROOT).

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, volumes: ["hf:/root/.cache/huggingface"]}
    volumes: {hf: {}}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, volumes: ["cache:/root/.cache"]}
    volumes: {cache: {}}
    ```
    """
    for project, service in engines(facts):
        assert service.vllm is not None
        root = service.environment.get("VLLM_CACHE_ROOT")
        place = (root.value if root is not None and root.value else "/root/.cache/vllm").rstrip("/")
        if not covers(service.mounts, place) and not service.vllm.has("--enforce-eager"):
            edits = add_volume(service.node, project.root, f"{service.name}-cache", place)
            yield found(service, f"{service.name} compiles anew in every container", edits=edits)


_TOKEN = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16})\b"
)
_SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|SECRET_KEY|API_KEY|ACCESS_KEY|MASTER_KEY|TOKEN)$")
_DUMMY = re.compile(
    r"^(|empty|none|null|dummy|fake|test|token-abc123|not-needed|no-?key.*|sk-(no-key-required|fake.*|dummy.*|none|x+|1234)|"
    r"local|ollama|vllm|na|n/a|unused|ignored|placeholder|true|false|\d|<.*>|your[-_ ].*|/run/secrets/.*)$",
    re.IGNORECASE,
)


@rule("DC013", ERROR)
def literal_secret(facts: Facts) -> Iterable[Finding]:
    """A token, key or password stands in the file.

    Consequence: It leaks with the repository and with every `docker inspect`.

    Evidence: OWASP's Docker cheat sheet; compose-lint.

    Fix: `secrets:`, or ${NAME:?} with the value in an .env that is not in git. Change the one that was here.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {HF_TOKEN: hf_abcdefghijklmnopqrstuvwxyz0123456789}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        environment: {HF_TOKEN: "${HF_TOKEN:?}"}
    ```
    """
    for project in facts.projects:
        ours = any(service.serves_llm or service.kind == "mongo" for service in project.services)
        for service in project.services:
            for name, setting in service.environment.items():
                node, value = setting.node, setting.value or ""
                if "$" in (node.raw or "") or node.source not in project.sources:
                    continue
                password = _PASSWORD_IN_URL.search(value)
                if _TOKEN.search(value) or (ours and _SECRET_NAME.search(name) and _is_secret(name, value)):
                    edits = _by_variable(node, name) if node.is_scalar and project.origin == "compose" else ()
                    yield found(node, f"{name} of {service.name} stands in the file", edits=edits)
                elif ours and password is not None and not _DUMMY.match(password[1]):
                    yield found(node, f"the password in {name} of {service.name} stands in the file")
            for word in words_of(service.get("command")):
                if word.direct and _TOKEN.search(word.text):
                    yield found(word, f"a key in the command of {service.name} stands in the file")


_PASSWORD_IN_URL = re.compile(r"^[a-z][a-z0-9+.-]*://[^:/@\s]*:([^@/\s]+)@")


def _is_secret(name: str, value: str) -> bool:
    if _DUMMY.match(value) or "${" in value:
        return False
    return name.endswith(("PASSWORD", "PASSWD", "PASSPHRASE")) or len(value) >= 12


def _by_variable(node: Node, name: str) -> Edits:
    reference = f"${{{name}:?put {name} into .env}}"
    listed = (node.raw or "").startswith(f"{name}=")
    return replace_value(node, f'"{name}={reference}"' if listed else f'"{reference}"')


@rule("DC014", INFO)
def runtime_and_devices(facts: Facts) -> Iterable[Finding]:
    """`runtime: nvidia` beside a device request.

    Consequence: One is enough; on a host with CDI alone Docker stops: `Unknown runtime specified nvidia`.

    Evidence: seen with Docker.

    Fix: Drop runtime.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, runtime: nvidia, gpus: all}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: all}
    ```
    """
    for project in facts.projects:
        for service in project.services:
            asked = service.get("deploy", "resources", "reservations", "devices") or service.get("gpus")
            runtime = service.get("runtime")
            if asked is not None and runtime is not None and runtime.text == "nvidia" and project.origin == "compose":
                yield found(
                    runtime, f"{service.name} asks for its GPUs twice", edits=remove_key(service.node, "runtime")
                )


@rule("DC015", ERROR)
def no_toolkit(facts: Facts) -> Iterable[Finding]:
    """This host's Docker has no NVIDIA runtime (with --live).

    Consequence: Docker stops: `could not select device driver "nvidia" with capabilities: [[gpu]]`.

    Evidence: seen with Docker.

    Fix: Install the NVIDIA container toolkit.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: all}
    ```
    ```host
    runtimes: [runc, io.containerd.runc.v2]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: all}
    ```
    ```host
    runtimes: [runc, nvidia]
    ```
    """
    runtimes = facts.host.runtimes if facts.host is not None else None
    if runtimes is None or any("nvidia" in name or "cdi" in name for name in runtimes):
        return
    for project in facts.projects:
        for service in project.gpu_services if project.origin == "compose" else ():
            assert service.gpus is not None
            yield found(
                service.gpus.node, f"{service.name} wants GPUs and this Docker knows {join(sorted(runtimes))} only"
            )


_SHORTEST_GRACE_S = 30.0  # the shortest of the answers (30 to 150 s) in the load that atoll comes from


@rule("DC016", WARNING)
def killed_in_mid_answer(facts: Facts) -> Iterable[Finding]:
    """No stop_grace_period.

    Consequence: After 10 s Docker kills the container in mid-answer.

    Evidence: seen with Docker: docker stop took 10.3 s and ended with 137.

    Fix: stop_grace_period: 130s, with --shutdown-timeout 120 (VL018); for nginx also stop_signal: SIGQUIT.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, stop_grace_period: 130s}
    ```
    """
    for _, service in serving(facts):
        if service.kind not in {"vllm", "nginx"}:
            continue
        node = service.get("stop_grace_period")
        grace = _seconds(node, 10.0)
        if node is not None and grace is not None and node.tag == "str" and grace < _SHORTEST_GRACE_S:
            edits = replace_value(node, "130s")
            yield found(node, f"{service.name} is killed {grace:g} s after it is told to stop", edits=edits)
        elif node is None:
            lines = ["stop_grace_period: 130s"]
            if service.kind == "nginx" and service.get("stop_signal") is None:
                lines.insert(0, "stop_signal: SIGQUIT")
            edits = add_key(service.node, lines) if service.node.style != "flow" or len(lines) == 1 else ()
            yield found(service, f"{service.name} is killed 10 s after it is told to stop", edits=edits)


@rule("DC017", INFO)
def endless_log(facts: Facts) -> Iterable[Finding]:
    """Logs without a limit.

    Consequence: Docker's json-file grows until the disk is full.

    Evidence: Docker's documentation of the json-file driver.

    Fix: logging options max-size 50m and max-file 3.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        logging: {driver: json-file, options: {max-size: 50m, max-file: "3"}}
    ```
    """
    for project, service in serving(facts):
        driver = service.string("logging", "driver") or "json-file"
        limited = service.get("logging", "options", "max-size") or service.get("logging", "max-size")
        if service.kind in {"vllm", "nginx"} and driver == "json-file" and limited is None:
            lines = ("logging:", "  driver: json-file", '  options: {max-size: "50m", max-file: "3"}')
            edits = (
                add_key(service.node, lines) if service.get("logging") is None and project.origin == "compose" else ()
            )
            yield found(service, f"the log of {service.name} grows without end", edits=edits)


@rule("DC018", ERROR)
def takes_over_the_host(facts: Facts) -> Iterable[Finding]:
    """An engine's container is privileged, or has Docker's socket.

    Consequence: Code that came with a model takes over the host.

    Evidence: https://github.com/vllm-project/vllm/pull/14217.

    Fix: Drop it; a device request gives the GPUs.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, privileged: true, gpus: all}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model, gpus: all}
    ```
    """
    for _, service in serving(facts):
        if not service.serves_llm:
            continue
        node = service.get("privileged")
        if node is not None and node.text == "true":
            yield found(node, f"{service.name} is privileged", edits=remove_key(service.node, "privileged"))
        for mount in service.mounts:
            if mount.source is not None and mount.source.endswith("docker.sock"):
                yield found(mount.node, f"{service.name} holds Docker's socket", edits=remove_item(mount.node))


@rule("DC019", ERROR)
def same_port_twice(facts: Facts) -> Iterable[Finding]:
    """Two services publish the same port.

    Consequence: The second one does not start; `docker compose config` does not notice.

    Evidence: docker compose 2.40.3 accepted it.

    Fix: Different ports.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model, ports: ["8000:8000"]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: m/model, ports: ["8000:8000"]}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model, ports: ["8000:8000"]}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: m/model, ports: ["8001:8000"]}
    ```
    """
    for project in facts.projects:
        taken: list[tuple[int, Port | None, Service]] = []
        for service in project.services if project.origin == "compose" else ():
            for number, port in _published(service):
                other = next((entry for entry in taken if _collide(entry, number, port, service)), None)
                if other is not None:
                    place = port.node if port is not None else service
                    yield found(place, f"{other[2].name} and {service.name} both want port {number} of the host")
                taken.append((number, port, service))


def _published(service: Service) -> Iterator[tuple[int, Port | None]]:
    for port in service.ports:
        for number in port.hosts():
            if len(port.hosts()) == len(port.targets()):  # of a range for one port Docker takes a free one
                yield number, port
    if service.host_network and service.vllm is not None and service.listen_port is not None:
        yield service.listen_port, None


def _collide(entry: tuple[int, Port | None, Service], number: int, port: Port | None, service: Service) -> bool:
    other_number, other, other_service = entry
    if other_number != number or other_service is service or not other_service.together_with(service):
        return False
    if port is None or other is None:
        return True
    same_ip = port.host_ip == other.host_ip or port.open_to_all or other.open_to_all
    return same_ip and port.protocol == other.protocol and "${" not in f"{port.host_ip}{other.host_ip}"


@rule("DC020", ERROR)
def one_name_for_many(facts: Facts) -> Iterable[Finding]:
    """container_name or device_ids together with several replicas.

    Consequence: Compose refuses the first; the second pins every replica to the same GPUs.

    Evidence: docker compose 2.40.3.

    Fix: One service for each group of GPUs, without container_name.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        container_name: vllm
        deploy:
          replicas: 2
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        container_name: vllm
    ```
    """
    for project in facts.projects:
        for service in project.services:
            named = service.get("container_name")
            if service.replicas > 1 and named is not None:
                yield found(
                    named,
                    f"{service.replicas} replicas of {service.name} cannot have one name",
                    edits=remove_key(service.node, "container_name"),
                )
            if service.replicas > 1 and service.gpus is not None and service.gpus.ids is not None:
                yield found(service.gpus.node, f"{service.replicas} replicas of {service.name} get the same GPUs")


@rule("DC021", WARNING)
def old_file_stays(facts: Facts) -> Iterable[Finding]:
    """nginx.conf is mounted as a single file.

    Consequence: A tool that replaces the file (an editor, git, Ansible) leaves the container with the old one: a reload
    reads what was there before.

    Evidence: seen with Docker: still v1 after the reload.

    Fix: Mount the folder, or make the container anew after a change (a label with the file's hash does it).

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf:ro"]}
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; } } }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      nginx: {image: "nginx:1.31.3", volumes: ["./nginx:/etc/nginx/conf.d:ro"]}
    ```
    ```nginx/llm.conf
    server { location /v1/ { proxy_pass http://vllm:8000; } }
    ```
    """
    for config in facts.nginx:
        service = config.service
        if service is None or not any(route.config is config for route in facts.routes):
            continue
        for mount in service.mounts:
            if (
                mount.kind == "bind"
                and mount.target.endswith(".conf")
                and not _follows_the_file(service, config.source.text)
            ):
                yield found(mount.node, f"{mount.target} stays as it was when {mount.source} is replaced")


def _follows_the_file(service: Service, text: str) -> bool:
    """Whether a label carries the file's hash, so that Compose makes the container anew with it."""
    digest = sha256(text.encode()).hexdigest()
    labels = service.get("labels")
    values = [value.text for _, value in labels.pairs()] if labels is not None else []
    values += [(item.text or "").partition("=")[2] for item in labels.items] if labels is not None else []
    return any(value and len(value) >= 8 and digest.startswith(value) for value in values)


@rule("DC022", INFO)
def waits_for_all(facts: Facts) -> Iterable[Finding]:
    """Nginx waits until every engine is healthy.

    Consequence: One broken engine keeps the whole service down.

    Evidence: docker compose: service_healthy on all upstreams.

    Fix: Depend on none and resolve the upstreams (NG020), or required: false.

    Fails:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      nginx:
        image: nginx:1.31.3
        depends_on:
          vllm-0: {condition: service_healthy}
          vllm-1: {condition: service_healthy}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      vllm-1: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
      nginx:
        image: nginx:1.31.3
        depends_on:
          vllm-0: {condition: service_healthy, required: false}
          vllm-1: {condition: service_healthy, required: false}
    ```
    """
    for project in facts.projects:
        for service in project.services:
            needed = [
                name
                for name, node in service.depends_on.items()
                if _is_slow(project, name)
                and node.string("condition") == "service_healthy"
                and node.string("required") != "false"
            ]
            if service.kind == "nginx" and len(needed) > 1:
                nodes = [service.depends_on[name] for name in needed]
                edits = tuple(edit for node in nodes for edit in add_key(node, ("required: false",)))
                yield found(nodes[0], f"nginx does not start before {join(needed)} are all healthy", edits=edits)


_DURATIONS = ("interval", "timeout", "start_period", "start_interval")


@rule("DC023", ERROR)
def number_for_duration(facts: Facts) -> Iterable[Finding]:
    """A duration is written as a bare number.

    Consequence: Compose refuses the file: it must be a string.

    Evidence: docker compose 2.40.3.

    Fix: 900s.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        healthcheck: {test: [CMD, "true"], start_period: 900}
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: m/model
        healthcheck: {test: [CMD, "true"], start_period: 900s}
    ```
    """
    for project in facts.projects:
        for service in project.services if project.origin == "compose" else ():
            places = {name: service.get("healthcheck", name) for name in _DURATIONS}
            places["stop_grace_period"] = service.get("stop_grace_period")
            for name, node in places.items():
                if node is not None and node.tag in {"int", "float"}:
                    yield found(node, f"{name}: {node.text} has no unit", edits=replace_value(node, f"{node.text}s"))


RULES = (
    version_key,
    unpinned_image,
    engine_published,
    small_shared_memory,
    no_health_check,
    started_is_not_ready,
    short_start_period,
    nobody_heals,
    stays_down,
    missing_network,
    downloads_again,
    compiles_again,
    literal_secret,
    runtime_and_devices,
    no_toolkit,
    killed_in_mid_answer,
    endless_log,
    takes_over_the_host,
    same_port_twice,
    one_name_for_many,
    old_file_stays,
    waits_for_all,
    number_for_duration,
)
