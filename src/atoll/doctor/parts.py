"""Parts of a service: environment variables, published ports, mounts, each with its line."""

import re
from dataclasses import dataclass

from atoll.doctor.tree import Node
from atoll.doctor.words import Word


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An environment variable. `value` is None when it comes from outside."""

    name: str
    value: str | None
    node: Node

    @property
    def known(self) -> bool:
        return self.value is not None and "${" not in self.value


@dataclass(frozen=True, kw_only=True)
class Port:
    """A published port. Host and container may be ranges, as written; `published` None: Docker picks one."""

    host_ip: str | None
    published: str | None
    target: str
    protocol: str
    node: Node

    @property
    def open_to_all(self) -> bool:
        return self.published is not None and self.host_ip in {None, "", "0.0.0.0", "::", "[::]"}  # noqa: S104 - looked for, not bound

    def targets(self) -> tuple[int, ...]:
        return port_range(self.target)

    def hosts(self) -> tuple[int, ...]:
        return port_range(self.published or "")


def port_range(text: str) -> tuple[int, ...]:
    found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", text)
    if found is None:
        return ()
    first = int(found[1])
    return tuple(range(first, min(int(found[2] or first), first + 1000) + 1))


@dataclass(frozen=True, kw_only=True)
class Mount:
    """A volume or bind mount of a service; `source` is None for an anonymous volume."""

    kind: str  # bind, volume, tmpfs, config
    source: str | None
    target: str
    node: Node


def environment_nodes(node: Node | None) -> dict[str, Node]:
    """Name -> the value's node, or the whole item `NAME=value` of a list."""
    if node is None:
        return {}
    if node.is_map:
        return dict(node.pairs())
    return {(item.text or "").partition("=")[0]: item for item in node.items if item.is_scalar}


def read_setting(name: str, node: Node) -> Setting:
    text = node.text if node.is_scalar else None
    if text is not None and text.startswith(f"{name}="):
        text = text[len(name) + 1 :]
    elif text == name:
        text = None
    return Setting(name=name, value=text, node=node)


_SHORT_PORT = re.compile(
    r"^(?:(?P<ip>\[[0-9a-fA-F:]*\]|[0-9.]+|\$\{[^}]*\}|[A-Za-z][\w.-]*):(?=[^:]*:))?(?:(?P<host>[^:]*):)?(?P<target>[^:/]+)(?:/(?P<proto>\w+))?$"
)


def read_port(node: Node) -> Port | None:
    if node.is_map:
        target = node.string("target")
        if target is None:
            return None
        return Port(
            host_ip=node.string("host_ip"),
            published=node.string("published"),
            target=target,
            protocol=node.string("protocol") or "tcp",
            node=node,
        )
    found = _SHORT_PORT.match((node.text or "").strip())
    if found is None:
        return None
    return Port(
        host_ip=found["ip"],
        published=found["host"] or None,
        target=found["target"],
        protocol=found["proto"] or "tcp",
        node=node,
    )


def read_mount(node: Node) -> Mount | None:
    if node.is_map:
        target = node.string("target")
        if target is None:
            return None
        return Mount(kind=node.string("type") or "volume", source=node.string("source"), target=target, node=node)
    parts = (node.text or "").split(":")
    if len(parts) == 1:
        return Mount(kind="volume", source=None, target=parts[0], node=node) if parts[0] else None
    kind = "bind" if re.match(r"^[./~$]", parts[0]) else "volume"
    return Mount(kind=kind, source=parts[0], target=parts[1], node=node)


def word_node(word: Word) -> Node:
    return Node(
        source=word.source, line=word.line, start=word.start, end=word.end, tag="str", text=word.text, raw=word.text
    )


def assigned_setting(name: str, word: Word) -> Setting:
    return Setting(name=name, value=word.text.partition("=")[2], node=word_node(word))
