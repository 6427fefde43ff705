"""How long nginx waits against how long an answer takes, read by several checks."""

from atoll.doctor.facts import Facts, Route
from atoll.doctor.nginx_values import nginx_seconds

# An answer that is not streamed is silent until its end: up to 150 s in the load that atoll comes from, and as long
# again in the queue.
USUAL_WAIT_S = 300.0


def read_timeout(route: Route) -> float | None:
    """Seconds of silence after which nginx cuts an answer; None for a variable."""
    return nginx_seconds(route.location.value("proxy_read_timeout", "60s"))


def needed_wait_s(facts: Facts, path: str) -> float:
    """How long a client of the engines in this file may wait in silence: the answer and as long in the queue.

    USUAL_WAIT_S where neither the asker nor a layout beside the file says how long answers are.
    """
    answer = facts.load_at(path).answer_s
    return 2 * answer if answer is not None else USUAL_WAIT_S


def cuts_answers(facts: Facts, route: Route) -> bool:
    timeout = read_timeout(route)
    return timeout is not None and timeout < needed_wait_s(facts, route.config.source.path)
