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
    """A file that cannot be parsed.

    Consequence: Nothing else in this file could be looked at, and the program that it is for will refuse it too.

    Evidence: the parsers that read it, ruamel.yaml and crossplane.

    Fix: Mend the line; then ask the doctor again.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: "vllm/vllm-openai:v0.32.0
    ```

    Passes:
    ```compose.yaml
    services:
      web:
        image: "ghcr.io/example/web:1.4.2"
    ```
    """
    yield from (problem for problem in facts.problems if problem.rule == "AT001")


@rule("AT002", INFO)
def unknown(facts: Facts) -> Iterable[Finding]:
    """A file that is not known, may not be read, or that a link leads to out of the folder; the rest of a huge folder.

    Consequence: It was not looked at; the rest was.

    Evidence: its content, or the system's refusal.

    Fix: Give compose, nginx, layout, topology or config.json files by name, to a doctor who may read them.

    Fails:
    ```notes.txt
    call the supplier on Monday
    ```

    Passes:
    ```compose.yaml
    services:
      web:
        image: "ghcr.io/example/web:1.4.2"
    ```
    """
    yield from (problem for problem in facts.problems if problem.rule == "AT002")


@rule("AT003", INFO)
def careless_silence(facts: Facts) -> Iterable[Finding]:
    """A comment `# atoll: ignore` without a rule that exists, or without a reason.

    Consequence: It silences nothing; or nobody can tell later whether it may go.

    Evidence: the comment.

    Fix: Write `# atoll: ignore RULE reason`, as in `# atoll: ignore DC003 the lab's own network`.

    Fails:
    ```compose.yaml
    services:
      web: {image: "ghcr.io/example/web:1.4.2"}  # atoll: ignore DC999 not ours
    ```

    Passes:
    ```compose.yaml
    services:
      web: {image: "ghcr.io/example/web:1.4.2"}  # atoll: ignore DC002 pinned by the mirror
    ```
    """
    yield from (problem for problem in facts.problems if problem.rule == "AT003")


@rule("AT004", ERROR)
def impossible_figure(facts: Facts) -> Iterable[Finding]:
    """A processor or a port that no machine has, or a range that runs backwards.

    Consequence: Docker refuses the service (`Requested CPUs are not available`, `invalid port`); nothing starts.

    Evidence: the figure; Linux knows at most 8192 processors, TCP 65535 ports.

    Fix: Write what `lscpu` or `nvidia-smi topo -m` shows, and a port up to 65535.

    Fails:
    ```compose.yaml
    services:
      web: {image: "ghcr.io/example/web:1.4.2", cpuset: "0-99999999999"}
    ```

    Passes:
    ```compose.yaml
    services:
      web: {image: "ghcr.io/example/web:1.4.2", cpuset: "0-31,64-95"}
    ```
    """
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
    """Small habits of stacks that run for long are missing: a restart policy, a limit of the log, a grace period.

    Consequence: None of them stops anything today; together they decide how a bad night ends.

    Evidence: the page of each rule that is named.

    Fix: `atoll doctor --all` tells each with its place, `--fix` puts in those that cannot change what serves.

    Fails:
    ```compose.yaml
    services:
      vllm: {image: "vllm/vllm-openai:v0.32.0", command: m/model}
    ```

    Passes:
    ```compose.yaml
    services:
      web: {image: "ghcr.io/example/web:1.4.2"}
    ```
    """
    from atoll.doctor.checks import all_rules  # which finds this module

    habits = [one for one in all_rules() if one.habit]
    parts = [finding for one in habits for finding in one.run(facts)]
    yield from (one for one in sum_up(parts, {habit.id for habit in habits}) if one.rule == SUMMARY)
