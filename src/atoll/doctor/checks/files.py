"""Files that cannot be read. The findings are made while gathering; the pages stand here."""

import re
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found
from atoll.doctor.compose import Service
from atoll.doctor.digest import SUMMARY, sum_up
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, rule
from atoll.doctor.tree import Node
from atoll.inventory.box import cpu_ranges

LAST_PORT = 65535


@rule("AT001", ERROR)
def unreadable(facts: Facts) -> Iterable[Finding]:
    yield from (problem for problem in facts.problems if problem.rule == "AT001")


@rule("AT002", INFO)
def unknown(facts: Facts) -> Iterable[Finding]:
    yield from (problem for problem in facts.problems if problem.rule == "AT002")


@rule("AT003", INFO)
def careless_silence(facts: Facts) -> Iterable[Finding]:
    yield from (problem for problem in facts.problems if problem.rule == "AT003")


@rule("AT004", ERROR)
def impossible_figure(facts: Facts) -> Iterable[Finding]:
    for service in facts.services:
        node = service.get("cpuset")
        if node is not None and node.known and node.text:
            try:
                cpu_ranges(node.text)
            except ValueError as error:
                yield found(node, f"cpuset of {service.name}: {error}")
        ports = service.get("ports")
        for item in ports.items if ports is not None else ():
            for said in [item] if not item.is_map else [item.get("published"), item.get("target")]:
                yield from _no_port(service, item, (said.text or "") if said is not None and said.known else "")


def _no_port(service: Service, item: Node, text: str) -> Iterator[Finding]:
    figures = re.findall(r"\d{5,}", text.partition("/")[0])
    wrong = next((figure for figure in figures if int(figure[:9]) > LAST_PORT), None)
    if wrong is not None:
        yield found(item, f"ports of {service.name}: there is no port {wrong[:20]}")


@rule("AT005", INFO)
def small_habits(facts: Facts) -> Iterable[Finding]:
    from atoll.doctor.checks import all_rules  # which finds this module

    habits = [one for one in all_rules() if one.habit]
    parts = [finding for one in habits for finding in one.run(facts)]
    yield from (one for one in sum_up(parts, {habit.id for habit in habits}) if one.rule == SUMMARY)
