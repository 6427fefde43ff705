"""Keys that a door lends to whoever comes."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import WARNING, rule

_GUARDS = ("auth_basic", "auth_request", "auth_jwt", "allow", "deny", "if", "ssl_verify_client")


@rule("NG041", WARNING)
def lends_its_key(facts: Facts) -> Iterable[Finding]:
    for route in facts.answering:
        key = route.location.headers().get("authorization", "")
        blocks = (route.location.directive, *route.location.around)
        guarded = any(block.child(name) is not None for block in blocks for name in _GUARDS)
        if key and "$" not in key and not guarded:
            line = next(
                (one for block in blocks for one in block.children("proxy_set_header") if key in one.args), None
            )
            yield found(line or route.location.directive, "nginx adds a key to every request and asks nobody for one")
