"""Images of Compose services: whether a version is pinned."""

from collections.abc import Iterable

from atoll.doctor.checks.places import found, serving
from atoll.doctor.compose import Service
from atoll.doctor.edits import Edits, remove_key, replace_value
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import INFO, SAFE, WARNING, rule
from atoll.doctor.tree import Node
from atoll.engines.vllm.images import is_official_image

VLLM = "v0.32.0"  # what corrected files are pinned to: the oldest release without a known hole (SE001)
NGINX = "1.31.3"  # the version that nginx's rules were tried with


@rule("DC001", INFO, risk=SAFE, habit=True)
def version_key(facts: Facts) -> Iterable[Finding]:
    for root in (root for project in facts.projects for root in project.roots):
        key = root.key("version")
        if key is not None:
            yield found(key, "`version:` is obsolete", edits=remove_key(root, "version"))


_MOVING = {"latest", "nightly", "main", "stable", "mainline", "alpine", "dev", "edge", "main-latest", "main-stable"}


def is_unpinned(service: Service) -> bool:
    image = service.image
    if image is None or image.digest is not None or (image.tag is None and "${" in image.path):
        return False
    return image.tag is None or image.tag in _MOVING


@rule("DC002", WARNING, risk="The image's version is fixed: what the service runs today may be another one.")
def unpinned_image(facts: Facts) -> Iterable[Finding]:
    clusters = (service for project in facts.projects if project.origin == "kubernetes" for service in project.services)
    composed = (service for project, service in serving(facts) if project.origin == "compose")
    for service in (*composed, *clusters):
        node = service.get("image")
        if node is not None and is_unpinned(service):
            what = f"{node.text} names no version: each pull may bring another one"
            yield found(node, what, edits=_pinned(service, node))


def _pinned(service: Service, node: Node) -> Edits:
    image = service.image
    assert image is not None
    if is_official_image(image.path) and image.tag in {None, "latest"}:
        return replace_value(node, f"{image.path}:{VLLM}")
    if image.path == "nginx":
        return replace_value(node, f"nginx:{NGINX}{'-alpine' if image.tag == 'alpine' else ''}")
    return ()
