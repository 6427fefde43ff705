"""How a container ends and comes back; what it writes meanwhile."""

import re
from collections.abc import Iterable

from atoll.doctor.checks.places import found, seconds_of, serving
from atoll.doctor.compose import Project, Service
from atoll.doctor.edits import add_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import INFO, SAFE, WARNING, rule


@rule("DC008", WARNING)
def nobody_heals(facts: Facts) -> Iterable[Finding]:
    healers = re.compile(r"autoheal|watchdog")
    for project, service in serving(facts):
        labels = service.get("labels")
        marked = labels is not None and (
            labels.get("autoheal") is not None or any("autoheal" in (item.text or "") for item in labels.items)
        )
        present = any(other.image is not None and healers.search(other.image.path) for other in project.services)
        if labels is not None and marked and not present:
            yield found(labels, f"{service.name} is labelled for an autoheal service, and there is none")


def _must_end(project: Project, service: Service) -> bool:
    """Whether another service waits for its end: a download that is restarted never comes to one."""
    waits = (other.depends_on.get(service.name) for other in project.services)
    conditions = (node.get("condition") for node in waits if node is not None and node.is_map)
    return any(node is not None and node.text == "service_completed_successfully" for node in conditions)


@rule("DC009", WARNING, risk="The service comes back by itself after a crash and when the machine starts.", habit=True)
def stays_down(facts: Facts) -> Iterable[Finding]:
    for project, service in serving(facts):
        node = service.get("restart")
        on_demand = bool(service.profiles) or _must_end(project, service)  # a profile: started when it is wanted
        if node is None and not on_demand and service.get("deploy", "restart_policy") is None:
            yield found(
                service,
                f"{service.name} stays down after a crash",
                edits=add_key(service.node, ("restart: unless-stopped",)),
            )


_SHORTEST_GRACE_S = 30.0  # the shortest of the answers (30 to 150 s) in the load that atoll comes from


@rule("DC016", WARNING, risk=SAFE, habit=True)
def killed_in_mid_answer(facts: Facts) -> Iterable[Finding]:
    for _, service in serving(facts):
        if service.kind not in {"vllm", "nginx"}:
            continue
        node = service.get("stop_grace_period")
        grace = seconds_of(node, 10.0)
        if node is not None and grace is not None and node.tag == "str" and grace < _SHORTEST_GRACE_S:
            edits = replace_value(node, "130s")
            yield found(node, f"{service.name} is killed {grace:g} s after it is told to stop", edits=edits)
        elif node is None:
            lines = ["stop_grace_period: 130s"]
            if service.kind == "nginx" and service.get("stop_signal") is None:
                lines.insert(0, "stop_signal: SIGQUIT")
            edits = add_key(service.node, lines) if service.node.style != "flow" or len(lines) == 1 else ()
            yield found(service, f"{service.name} is killed 10 s after it is told to stop", edits=edits)


@rule(
    "DC017",
    INFO,
    risk="The log is written by json-file, whatever driver Docker has as its default, and its oldest parts go.",
    habit=True,
)
def endless_log(facts: Facts) -> Iterable[Finding]:
    for project, service in serving(facts):
        driver = service.string("logging", "driver") or "json-file"
        limited = service.get("logging", "options", "max-size") or service.get("logging", "max-size")
        if service.kind in {"vllm", "nginx"} and driver == "json-file" and limited is None:
            lines = ("logging:", "  driver: json-file", '  options: {max-size: "50m", max-file: "3"}')
            edits = (
                add_key(service.node, lines) if service.get("logging") is None and project.origin == "compose" else ()
            )
            yield found(service, f"the log of {service.name} has no size limit", edits=edits)
