"""Text edits that mend a file and leave its comments, its order and its blanks alone."""

import re
from collections.abc import Sequence
from dataclasses import replace

from atoll.doctor.finding import Edit
from atoll.doctor.nginx import Directive
from atoll.doctor.tree import Node, Source
from atoll.doctor.vllm import GivenOption
from atoll.doctor.words import Word

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
    end = _end_of_line(text, _last_character(mapping.source, [entry.value for entry in own], own[-1].key.end))
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


def _end_of_line(text: str, offset: int) -> int:
    found = text.find("\n", offset)
    end = len(text) if found < 0 else found
    return end - 1 if end > offset and text[end - 1] == "\r" else end


def _next_line(text: str, offset: int) -> int:
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
        return _remove_from_flow(replace(entry.key, end=entry.value.end))
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
        return _remove_from_flow(node)
    return _remove_lines(node.source, node.start, _leaf_end(node))


def _remove_from_flow(node: Node) -> Edits:
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
    first, stop = source.text.rfind("\n", 0, start) + 1, _next_line(source.text, end)
    while first == 0 and re.match(r"\r?\n", source.text[stop : stop + 2]):  # no blank line at the head of a file
        stop = _next_line(source.text, stop)
    return (Edit(file=source.path, start=first, end=stop, text=""),)


def remove_option(option: GivenOption) -> Edits:
    """Take an option and its value out of a command, in whatever way that is written."""
    return _remove_words(option.words)


def _remove_words(words: Sequence[Word]) -> Edits:
    made: list[Edit] = []
    for line in dict.fromkeys(word.line for word in words):
        here = [word for word in words if word.line == line]
        items = [word.item for word in here if word.item is not None]
        if items:
            made += _remove_items(items)
        else:
            made += _remove_span(here[0], here[-1])
    return tuple(made)


def _remove_items(items: Sequence[Node]) -> Edits:
    """List items that stand on one line: `- a` alone, or neighbours in `[a, b, c]`."""
    if len(items) == 1:
        return remove_item(items[0])
    first, last = items[0], items[-1]
    whole = replace(first, end=last.end)
    return _remove_from_flow(whole)


def _remove_span(first: Word, last: Word) -> Edits:
    """The words, the blanks before them, and their whole line when nothing else stands there."""
    if not first.source.fixable or not (first.direct and last.direct):
        return ()  # they came out of a variable
    text = first.source.text
    line_start = text.rfind("\n", 0, first.start) + 1
    line_end = _end_of_line(text, last.end)
    start, end = first.start, last.end
    before, after = text[line_start:start], text[end:line_end]
    if not before.strip() and after.strip() in {"", "\\"}:
        return (Edit(file=first.file, start=line_start, end=_next_line(text, line_end), text=""),)
    if before.strip():
        start = line_start + len(before.rstrip(" \t"))
    else:
        end += len(after) - len(after.lstrip(" \t"))
    return (Edit(file=first.file, start=start, end=end, text=""),)


def replace_option(option: GivenOption, name: str, value: str | None) -> Edits:
    """Another name and value in place of an option's; in a list, the words it already has are used."""
    first, rest = option.words[0], option.words[1:]
    if not first.source.fixable or not all(word.direct for word in option.words):
        return ()
    if value is None or option.joined or not rest:
        head = name if value is None else f"{name}={value}"
        return (_put(first, head), *_remove_words(rest))
    return (_put(first, name), _put(rest[0], value))


def _put(word: Word, text: str) -> Edit:
    return Edit(file=word.file, start=word.start, end=word.end, text=_quoted(text, word))


def _quoted(text: str, word: Word) -> str:
    """The text as a YAML list item or as a shell word."""
    if word.item is not None:
        if word.item.style == '"' and '"' not in text and "\\" not in text:
            return f'"{text}"'
        return text if re.fullmatch(r"[A-Za-z/.-][\w./=-]*", text) else "'" + text.replace("'", "''") + "'"
    return text if re.fullmatch(r"[\w./=:,@+-]+", text) else "'" + text + "'"


def split_item(word: Word, parts: Sequence[str]) -> Edits:
    """An item of a list that holds several words as that many items, of the style of the list."""
    item, text = word.item, word.source.text
    if item is None or not word.direct or not word.source.fixable or item.style in {"|", ">"}:
        return ()
    before = text[text.rfind("\n", 0, item.start) + 1 : item.start]
    quoted = [_quoted(part, word) for part in parts]
    between = f"\n{before}" if re.fullmatch(r"\s*-\s*", before) else ", "
    return (Edit(file=word.file, start=item.start, end=item.end, text=between.join(quoted)),)


def add_option(words: Sequence[Word], option: Sequence[str], command: Node | None) -> Edits:
    """Words after the last one of a command."""
    if not words or command is None or not words[-1].source.fixable:
        return ()
    if any(re.match(r"--?[\w-]+\s", word.text) for word in words):
        return ()  # `- --dtype auto`: what is one word today must become two first (VL040)
    last = words[-1]
    if last.item is None:
        if not last.direct:
            return ()
        return (Edit(file=last.file, start=last.end, end=last.end, text=" " + " ".join(option)),)
    quoted = [_quoted(text, last) for text in option]
    text = last.source.text
    head = text[text.rfind("\n", 0, last.start) + 1 : last.start]
    if not re.fullmatch(r"\s*(?:-\s+)+", head):  # between brackets
        return (Edit(file=last.file, start=last.end, end=last.end, text="".join(f", {text}" for text in quoted)),)
    end = _end_of_line(text, last.end)
    body = "".join(f"\n{head}{part}" for part in quoted)
    return (Edit(file=last.file, start=end, end=end, text=body),)


# nginx ------------------------------------------------------------------------------------------------------------


def span_of(directive: Directive) -> tuple[int, int] | None:
    """Where a simple directive stands, its semicolon included; None when it cannot be found for certain."""
    text = directive.source.text
    start = directive.source.start(directive.line)
    stop = _end_of_line(text, start)  # several may stand on its line: `server a; server b;`
    for found in re.compile(rf"(?<![\w$-]){re.escape(directive.name)}(?![\w-])").finditer(text, start, stop):
        end = _end_of_directive(text, found.end())
        if end and _plain_words(text[found.end() : end - 1]) == list(directive.args):
            return found.start(), end
    return None


def _end_of_directive(text: str, at: int) -> int | None:
    quote = ""
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "$" and text[at + 1 : at + 2] == "{":
            at = text.find("}", at)
            if at < 0:
                return None
        elif char in ";{":
            return at + 1
        at += 1
    return None


def _plain_words(text: str) -> list[str]:
    return [a or b or c for a, b, c in re.findall(r'"([^"]*)"|\'([^\']*)\'|([^\s"\';]+)', text)]


def replace_directive(directive: Directive, text: str) -> Edits:
    """`name args;` in place of what stands there."""
    span = span_of(directive)
    if span is None or not directive.source.fixable:
        return ()
    return (Edit(file=directive.file, start=span[0], end=span[1], text=text),)


def remove_directive(directive: Directive) -> Edits:
    """Take a directive out, with its line when it stands there alone."""
    span = span_of(directive)
    if span is None or not directive.source.fixable:
        return ()
    text = directive.source.text
    first = text.rfind("\n", 0, span[0]) + 1
    last = _end_of_line(text, span[1])
    alone = not text[first : span[0]].strip() and not re.sub(r"#.*", "", text[span[1] : last]).strip()
    if alone:
        return (Edit(file=directive.file, start=first, end=_next_line(text, last), text=""),)
    return (Edit(file=directive.file, start=span[0], end=span[1], text=""),)


def add_directives(block: Directive, lines: Sequence[str], *, first: bool = False) -> Edits:
    """Lines at the end of a block (or right after its opening brace), indented as its other lines are."""
    if not block.source.fixable or block.block is None:
        return ()
    inner = [directive for directive in block.block if directive.source.path == block.file]
    text = block.source.text
    if not inner or first or inner[-1].block is not None:
        return _after_brace(block, inner, lines)
    span = span_of(inner[-1])
    if span is None:
        return _after_brace(block, inner, lines)
    indent, end = _indent_at(text, span[0]), _end_of_line(text, span[1])
    if re.sub(r"#.*", "", text[span[1] : end]).strip():  # the block ends on this very line
        return (Edit(file=block.file, start=span[1], end=span[1], text=" " + " ".join(lines)),)
    return (Edit(file=block.file, start=end, end=end, text="".join(f"\n{indent}{line}" for line in lines)),)


def _after_brace(block: Directive, inner: Sequence[Directive], lines: Sequence[str]) -> Edits:
    brace = opening_brace(block)
    if brace is None:
        return ()
    text = block.source.text
    own = _indent_at(text, brace)
    indent = own + "    "
    if inner and inner[0].line != block.line:
        start = block.source.start(inner[0].line)
        indent = _indent_at(text, start)
    return (Edit(file=block.file, start=brace + 1, end=brace + 1, text="".join(f"\n{indent}{line}" for line in lines)),)


def opening_brace(block: Directive) -> int | None:
    text = block.source.text
    start = block.source.start(block.line)
    found = re.compile(rf"(?<![\w$-]){re.escape(block.name)}(?![\w-])").search(text, start)
    if found is None:
        return None
    end = _end_of_directive(text, found.end())
    return end - 1 if end and text[end - 1] == "{" else None


def _indent_at(text: str, offset: int) -> str:
    line = text[text.rfind("\n", 0, offset) + 1 :]
    return line[: len(line) - len(line.lstrip(" \t"))]


def add_parameter(directive: Directive, parameter: str) -> Edits:
    """A further argument before the semicolon."""
    span = span_of(directive)
    if span is None or not directive.source.fixable:
        return ()
    return (Edit(file=directive.file, start=span[1] - 1, end=span[1] - 1, text=f" {parameter}"),)


def put_in_block(block: Directive, name: str, text: str) -> Edits:
    """Set `name` in this very block: replaced when it stands there, added otherwise."""
    found = block.child(name)
    return replace_directive(found, text) if found is not None else add_directives(block, (text,))


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
    end = _end_of_line(source, _leaf_end(last))
    return (Edit(file=listed.file, start=end, end=end, text=f"\n{head}{text}"),)
