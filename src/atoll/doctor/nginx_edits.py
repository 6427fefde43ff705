"""Text edits of nginx's directives."""

import re
from collections.abc import Sequence

from atoll.doctor.edits import Edits, end_of_line, next_line
from atoll.doctor.finding import Edit
from atoll.doctor.nginx import Directive


def span_of(directive: Directive) -> tuple[int, int] | None:
    """Where a simple directive stands, its semicolon included; None when it cannot be found for certain."""
    text = directive.source.text
    start = directive.source.start(directive.line)
    stop = end_of_line(text, start)  # several may stand on its line: `server a; server b;`
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
    last = end_of_line(text, span[1])
    alone = not text[first : span[0]].strip() and not re.sub(r"#.*", "", text[span[1] : last]).strip()
    if alone:
        return (Edit(file=directive.file, start=first, end=next_line(text, last), text=""),)
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
    indent, end = _indent_at(text, span[0]), end_of_line(text, span[1])
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
