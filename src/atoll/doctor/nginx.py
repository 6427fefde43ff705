"""nginx's syntax: directives with their lines, includes in their place.

crossplane's lexer reads the text; includes are followed by whoever hands in `read`.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossplane.errors import NgxParserSyntaxError
from crossplane.lexer import _balance_braces, _lex_file_object  # lex() itself opens the file; ours is in memory

from atoll.doctor.tree import Source
from atoll.errors import BadDocument

_DEEPEST = 40  # nested blocks; real files have five


@dataclass(frozen=True, kw_only=True, eq=False)
class Directive:
    """One directive; `block` is None for one that ends with a semicolon."""

    name: str
    args: tuple[str, ...]
    source: Source
    line: int
    block: tuple["Directive", ...] | None = None

    @property
    def file(self) -> str:
        return self.source.path

    def child(self, name: str) -> "Directive | None":
        """The last directive of this name directly in the block."""
        found = self.children(name)
        return found[-1] if found else None

    def children(self, name: str) -> tuple["Directive", ...]:
        return tuple(directive for directive in self.block or () if directive.name == name)

    @property
    def arg(self) -> str:
        return self.args[0] if self.args else ""


def parse_nginx(source: Source) -> tuple[Directive, ...]:
    """The directives of one file, includes not followed.

    Raises:
        BadDocument: not nginx's syntax; the sentence carries the line.
    """
    try:
        tokens = list(_balance_braces(_lex_file_object(io.StringIO(source.text)), source.path))
    except NgxParserSyntaxError as error:
        raise BadDocument(f"line {error.lineno or 1}: this is not an nginx configuration: {error.strerror}.") from None
    except (RuntimeError, StopIteration, IndexError):  # the lexer runs out of characters in a quote or an escape
        raise BadDocument("line 1: this is not an nginx configuration: it ends inside a quoted string.") from None
    kept = [token for token in tokens if token[2] or not token[0].startswith("#")]
    directives, rest = _block(kept, 0, source, 0)
    assert rest == len(kept)
    return directives


def _block(
    tokens: Sequence[tuple[str, int, bool]], at: int, source: Source, depth: int
) -> tuple[tuple[Directive, ...], int]:
    made: list[Directive] = []
    if depth > _DEEPEST:
        raise BadDocument(f"line {tokens[at - 1][1]}: this is not an nginx configuration: it is nested too deeply.")
    while at < len(tokens):
        name, line, quoted = tokens[at]
        if name == "}" and not quoted:
            return tuple(made), at + 1
        if name in {"{", ";"} and not quoted:
            raise BadDocument(f"line {line}: this is not an nginx configuration: unexpected {name!r}.")
        at += 1
        args: list[str] = []
        while at < len(tokens) and (tokens[at][2] or tokens[at][0] not in {"{", "}", ";"}):
            args.append(tokens[at][0])
            at += 1
        if at >= len(tokens) or tokens[at][0] == "}":
            raise BadDocument(f"line {line}: this is not an nginx configuration: {name!r} has no ';' after it.")
        block = None
        if tokens[at][0] == "{":
            block, at = _block(tokens, at + 1, source, depth + 1)
        else:
            at += 1
        made.append(Directive(name=name, args=tuple(args), source=source, line=line, block=block))
    return tuple(made), at


def looks_like_nginx(directives: Sequence[Directive]) -> bool:
    """Whether a text that happens to parse is one: it has a block or a directive that only nginx has."""
    blocks = {"events", "http", "server", "upstream", "location", "stream", "map", "geo"}
    words = {"worker_processes", "proxy_pass", "include", "listen", "server_name", "proxy_set_header"}
    named = {directive.name for directive in directives if directive.block is not None}
    return bool(named & blocks) or len({directive.name for directive in directives} & words) > 0


Include = Callable[[str, Source], Sequence[Source]]  # (pattern, file that includes) -> the files, in order


def with_includes(
    directives: Sequence[Directive], include: Include, seen: tuple[str, ...] = ()
) -> tuple[Directive, ...]:
    """The directives with those of included files in their place; a damaged included file counts as empty here."""
    made: list[Directive] = []
    for directive in directives:
        if directive.name == "include" and directive.block is None:
            for source in include(directive.arg, directive.source):
                if source.path not in seen and len(seen) < 20:
                    made += with_includes(_parse_or_nothing(source), include, (*seen, source.path))
            continue
        block = with_includes(directive.block, include, seen) if directive.block is not None else None
        made.append(
            Directive(
                name=directive.name, args=directive.args, source=directive.source, line=directive.line, block=block
            )
        )
    return tuple(made)


def _parse_or_nothing(source: Source) -> tuple[Directive, ...]:
    try:
        return parse_nginx(source)
    except BadDocument:
        return ()
