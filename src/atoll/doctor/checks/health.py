"""Health checks, and who waits for whom."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import engines, found, join, seconds_of
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import Edits, add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule
from atoll.doctor.tree import Node


@rule(
    "DC005",
    WARNING,
    risk="Docker calls it unhealthy while /health is silent; what watches that (Swarm, Traefik) acts.",
    habit=True,
)
def no_health_check(facts: Facts) -> Iterable[Finding]:
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
            yield found(service, f"{service.name} has no health check", edits=edits)


@rule(
    "DC006",
    WARNING,
    risk="The dependent service starts only when the engine is healthy, and not at all when it never is.",
)
def started_is_not_ready(facts: Facts) -> Iterable[Finding]:
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


def loading_s(weight_bytes: int | None) -> float:
    """What loading takes at the very least: two minutes, or a minute and the weights at 2 GB/s, a fast disk."""
    return max(120.0, 60 + weight_bytes / 2e9) if weight_bytes is not None else 120.0


@rule("DC007", ERROR, risk=SAFE)
def short_start_period(facts: Facts) -> Iterable[Finding]:
    for _, service in engines(facts):
        check = service.get("healthcheck")
        if check is None or not service.has_healthcheck:
            continue
        start = seconds_of(check.get("start_period"), 0.0)
        interval = seconds_of(check.get("interval"), 30.0)
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


@rule("DC022", INFO, risk="nginx starts while engines are down, and answers 502 for those.", habit=True)
def waits_for_all(facts: Facts) -> Iterable[Finding]:
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


@rule("DC023", ERROR, risk=SAFE)
def number_for_duration(facts: Facts) -> Iterable[Finding]:
    for project in facts.projects:
        for service in project.services if project.origin == "compose" else ():
            places = {name: service.get("healthcheck", name) for name in _DURATIONS}
            places["stop_grace_period"] = service.get("stop_grace_period")
            for name, node in places.items():
                if node is not None and node.tag in {"int", "float"}:
                    yield found(node, f"{name}: {node.text} has no unit", edits=replace_value(node, f"{node.text}s"))
