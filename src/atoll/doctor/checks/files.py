"""Files that cannot be read. The findings are made while gathering; the pages stand here."""

from collections.abc import Iterable

from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, rule


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
    """A file that the doctor does not know, may not read, or that a link leads to out of the folder.

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
