"""Text edits of YAML that leave comments, order and blanks alone, and how edits are put into a text."""

import re
from collections.abc import Sequence
from dataclasses import replace

from atoll.doctor.finding import Edit
from atoll.doctor.tree import Node, Source

Edits = tuple[Edit, ...]


def replace_value(node: Node, text: str) -> Edits:
    """Another text in place of a scalar (quotes are the caller's); none where a variable would be overwritten."""
    if not node.source.fixable or node.style in {"|", ">"} or _loses_a_variable(node, text):
        return ()
    return (Edit(file=node.file, start=node.start, end=node.end, text=text),)


def _loses_a_variable(node: Node, text: str) -> bool:
    """Whether `${VLLM_IMAGE:-...}` stands there, which somebody sets from outside, and would be gone."""
    variables = re.findall(r"(?<!\$)\$\{?[A-Za-z_]\w*", node.raw or "") if node.variables is not None else []
    return any(name not in text for name in variables)


def add_key(mapping: Node | None, lines: Sequence[str]) -> Edits:
    """Lines of YAML at the end of a mapping, at its own indentation; the first is `key: value`.

    A key that came in by `<<` belongs to the anchor; a mapping with no keys of its own is left alone.
    """
    if mapping is None or not mapping.is_map or not mapping.source.fixable:
        return ()
    own = [entry for entry in mapping.entries.values() if not entry.merged and _inside(entry.key, mapping)]
    if not own:
        return ()
    if mapping.style == "flow":
        return _add_to_flow(mapping, lines)
    text = mapping.source.text
    indent = " " * _column(text, own[0].key.start)
    end = end_of_line(text, _last_character(mapping.source, [entry.value for entry in own], own[-1].key.end))
    body = "".join(f"\n{indent}{line}" if line else "\n" for line in lines)
    return (Edit(file=mapping.file, start=end, end=end, text=body),)


def _inside(key: Node, mapping: Node) -> bool:
    return key.source.path == mapping.source.path and mapping.start <= key.start < mapping.end


def _add_to_flow(mapping: Node, lines: Sequence[str]) -> Edits:
    if len(lines) != 1:
        return ()
    end = mapping.end - 1
    return (Edit(file=mapping.file, start=end, end=end, text=f", {lines[0]}"),)


def _column(text: str, offset: int) -> int:
    return offset - (text.rfind("\n", 0, offset) + 1)


def end_of_line(text: str, offset: int) -> int:
    found = text.find("\n", offset)
    end = len(text) if found < 0 else found
    return end - 1 if end > offset and text[end - 1] == "\r" else end


def next_line(text: str, offset: int) -> int:
    """Where the line after this place begins; the end of the text after the last."""
    found = text.find("\n", offset)
    return len(text) if found < 0 else found + 1


def _last_character(source: Source, values: Sequence[Node], least: int) -> int:
    """Where the last value that stands in this file ends, aliases and trailing blanks not counted."""
    here = (value for value in values if value.source.path == source.path and value.end > least)
    return max([least, *map(_leaf_end, here)])


def _leaf_end(node: Node) -> int:
    if node.style == "flow" or node.is_scalar:
        return len(node.source.text[: node.end].rstrip())  # the end of `key:` for a value that is not there
    inner = [entry.value for entry in node.entries.values() if not entry.merged] or list(node.items)
    keys = [entry.key.end for entry in node.entries.values() if not entry.merged]
    inside = [child for child in inner if node.start <= child.start and child.end <= node.end]
    return max([*keys, *(_leaf_end(child) for child in inside), node.start])


def remove_key(mapping: Node, name: str) -> Edits:
    """Take a key and all that belongs to it out of a block mapping."""
    entry = mapping.entries.get(name)
    if entry is None or entry.merged or not entry.key.source.fixable:
        return ()
    if mapping.style == "flow":
        return remove_from_flow(replace(entry.key, end=entry.value.end))
    end = entry.key.end if _is_alias(entry.key, entry.value) else _leaf_end(entry.value)
    return _remove_lines(entry.key.source, entry.key.start, max(end, entry.key.end))


def _is_alias(key: Node, value: Node) -> bool:
    """Whether the value stands elsewhere: `key: *anchor`."""
    return value.source.path != key.source.path or value.start < key.start


def remove_item(node: Node) -> Edits:
    """Take an item out of a block list, with its line."""
    text = node.source.text
    before = text[text.rfind("\n", 0, node.start) + 1 : node.start]
    if not node.source.fixable or not re.fullmatch(r"\s*-\s*", before):
        return remove_from_flow(node)
    return _remove_lines(node.source, node.start, _leaf_end(node))


def remove_from_flow(node: Node) -> Edits:
    if not node.source.fixable:
        return ()
    text = node.source.text
    after = re.compile(r"\s*,\s*").match(text, node.end)
    if after is not None:
        return (Edit(file=node.file, start=node.start, end=after.end(), text=""),)
    before = re.compile(r",\s*$").search(text[: node.start])
    start = before.start() if before is not None else node.start
    return (Edit(file=node.file, start=start, end=node.end, text=""),)


def _remove_lines(source: Source, start: int, end: int) -> Edits:
    first, stop = source.text.rfind("\n", 0, start) + 1, next_line(source.text, end)
    while first == 0 and re.match(r"\r?\n", source.text[stop : stop + 2]):  # no blank line at the head of a file
        stop = next_line(source.text, stop)
    return (Edit(file=source.path, start=first, end=stop, text=""),)


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """The text with these edits of one file, none of which may touch another; its line ends stay of one kind."""
    made, position = [], 0
    line_end = "\r\n" if "\r\n" in text else "\n"
    for edit in sorted(edits, key=lambda edit: (edit.start, edit.end)):
        made += [text[position : edit.start], edit.text.replace("\n", line_end)]
        position = edit.end
    return "".join(made) + text[position:]


def add_volume(service: Node, roots: Sequence[Node], name: str, target: str) -> Edits:
    """A named volume for a service, declared at the end of the file that uses it when it is not yet.

    The other files of a project may be left out of `docker compose -f`: one that uses a volume holds it.

    Args:
        service: the service's mapping.
        roots: the project's files, the one first that stands in for files which `extends` names.
        name: the volume's name.
        target: where it is mounted.
    """
    listed = service.get("volumes")
    user = (listed if listed is not None else service).file
    root = next((one for one in roots if one.file == user), roots[0])
    declared = root.get("volumes")
    edits = add_item(listed, f"{name}:{target}") if listed is not None else ()
    if listed is None:
        edits = add_key(service, ("volumes:", f"  - {name}:{target}"))
    if not edits:
        return ()
    if declared is None:
        return (*edits, *add_key(root, ("", "volumes:", f"  {name}: {{}}")))
    return edits if name in declared.entries else (*edits, *add_key(declared, (f"{name}: {{}}",)))


def add_item(listed: Node, text: str) -> Edits:
    """One more item at the end of a list."""
    if not listed.is_list or not listed.items or not listed.source.fixable:
        return ()
    last = listed.items[-1]
    if listed.style == "flow":
        return (Edit(file=listed.file, start=last.end, end=last.end, text=f', "{text}"'),)
    source = listed.source.text
    head = source[source.rfind("\n", 0, last.start) + 1 : last.start]
    if not re.fullmatch(r"\s*-\s*", head):
        return ()
    end = end_of_line(source, _leaf_end(last))
    return (Edit(file=listed.file, start=end, end=end, text=f"\n{head}{text}"),)
