"""A text that a regular expression matches, in the syntax that vLLM's grammars know: no look-around, no references.

What is no regular expression is refused in the words of Rust's regex parser, which is what vLLM answers with
(llguidance behind vllm/v1/structured_output/backend_guidance.py).
"""

import re
import string
from dataclasses import dataclass
from random import Random

MOST_REPEATS = 3  # of what may come up without end
DEEPEST = 60
LONGEST = 100_000  # letters of a text
_PRINTABLE = string.ascii_letters + string.digits + " _-.,:;!?()[]{}@#%&*+=<>/\\|'\"~^$"
_CLASSES = {
    "d": string.digits,
    "w": string.ascii_lowercase + string.ascii_uppercase + string.digits + "_",
    "s": " ",
    "D": string.ascii_lowercase,
    "W": " -.",
    "S": string.ascii_lowercase + string.digits,
}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "a": "\a", "0": "\0"}
_SCRIPTS = {"L": string.ascii_letters, "Lu": string.ascii_uppercase, "Ll": string.ascii_lowercase, "N": string.digits}
_SCRIPTS |= {"Nd": string.digits, "P": ".,-!", "Letter": string.ascii_letters, "Hangul": "가나다라마", "Han": "一二三"}
_POSIX = {"alpha": string.ascii_letters, "digit": string.digits, "alnum": string.ascii_letters + string.digits}
_POSIX |= {"lower": string.ascii_lowercase, "upper": string.ascii_uppercase, "space": " ", "punct": ".,-!"}


class BadPattern(ValueError):
    """No regular expression; the sentence is Rust's. `pattern` is the whole of it."""

    pattern = ""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of these characters."""

    letters: str


@dataclass(frozen=True, slots=True)
class Repeat:
    """`low` to `high` times; `high` None is without end."""

    what: "Node"
    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Row:
    """One after the other."""

    parts: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Either:
    """One of these."""

    options: "tuple[Node, ...]"


Node = Choice | Repeat | Row | Either


def parse_pattern(pattern: str) -> Node:
    """The tree of a regular expression.

    Raises:
        BadPattern: it is none, or uses what vLLM's grammars do not know.
    """
    try:
        return _Parser(pattern).whole()
    except BadPattern as error:
        error.pattern = pattern
        raise


def text_of_pattern(pattern: str, dice: Random) -> str:
    """A text that the whole pattern matches.

    Raises:
        BadPattern: as `parse_pattern`.
    """
    tree = parse_pattern(pattern)
    if _least(tree) > LONGEST:
        error = BadPattern(f"Compiled regex exceeds size limit of {LONGEST} bytes.")
        error.pattern = pattern
        raise error
    return _say(tree, dice)


def matches(pattern: str, text: str) -> bool | None:
    """Whether the pattern is found in the text; None where that cannot be told, or not in a bounded time."""
    try:
        return re.search(pattern, text) is not None if _is_tame(parse_pattern(pattern), repeated=False) else None
    except (BadPattern, re.error):
        return None


def _is_tame(node: Node, *, repeated: bool) -> bool:
    """Whether Python's backtracking cannot run away: nothing endless or ambiguous within something endless."""
    match node:
        case Choice():
            return True
        case Row(parts):
            return all(_is_tame(part, repeated=repeated) for part in parts)
        case Either(options):
            return not repeated and all(_is_tame(option, repeated=False) for option in options)
    endless = node.high is None or node.high > MOST_REPEATS
    return not (repeated and node.low != node.high) and _is_tame(node.what, repeated=repeated or endless)


def _least(node: Node) -> int:
    """Letters of the shortest text."""
    match node:
        case Choice():
            return 1
        case Row(parts):
            return sum(map(_least, parts))
        case Either(options):
            return max(map(_least, options))
    return node.low * _least(node.what)


def _say(node: Node, dice: Random) -> str:
    match node:
        case Choice(letters):
            return dice.choice(letters)
        case Row(parts):
            return "".join(_say(part, dice) for part in parts)
        case Either(options):
            return _say(dice.choice(options), dice)
    low, high = node.low, node.high
    most = low + MOST_REPEATS if high is None else min(high, low + MOST_REPEATS)
    return "".join(_say(node.what, dice) for _ in range(dice.randint(low, most)))


class _Parser:
    """Recursive descent over the pattern; `place` is where it stands."""

    def __init__(self, pattern: str) -> None:
        self.pattern = pattern
        self.place = 0

    def _peek(self) -> str:
        return self.pattern[self.place : self.place + 1]

    def _take(self) -> str:
        letter = self._peek()
        self.place += 1
        return letter

    def whole(self) -> Node:
        node = self.either(0)
        if self.place < len(self.pattern):
            raise BadPattern("unopened group")
        return node

    def either(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise BadPattern("exceeded the maximum number of nested parentheses/brackets")
        options = [self._row(depth)]
        while self._peek() == "|":
            self.place += 1
            options.append(self._row(depth))
        return options[0] if len(options) == 1 else Either(tuple(options))

    def _row(self, depth: int) -> Node:
        parts: list[Node] = []
        while (letter := self._peek()) and letter not in "|)":
            if letter in "*+?":
                raise BadPattern("repetition operator missing expression")
            part = self._atom(depth)
            if part is not None:
                parts.append(self._repeated(part))
        return Row(tuple(parts))

    def _atom(self, depth: int) -> Node | None:
        letter = self._take()
        match letter:
            case "^" | "$":
                return None
            case ".":
                return Choice(string.ascii_lowercase)
            case "(":
                return self._group(depth)
            case "[":
                return Choice(self._class())
            case "\\":
                return self._escape()
            case _:
                return Choice(letter)

    def _group(self, depth: int) -> Node:
        if self.pattern.startswith("?", self.place):
            if self.pattern.startswith(("?=", "?!", "?<=", "?<!"), self.place):
                raise BadPattern("look-around, including look-ahead and look-behind, is not supported")
            opened = self.place
            while self._peek() not in {":", ">", ")", ""}:
                self.place += 1
            if self._take() == ")" and opened:  # flags for what follows: (?i)
                return Row(())
        inner = self.either(depth + 1)
        if self._take() != ")":
            raise BadPattern("unclosed group")
        return inner

    def _repeated(self, part: Node) -> Node:
        while (letter := self._peek()) and letter in "*+?{":
            if letter == "{":
                bounds = self._bounds()
            else:
                self.place += 1
                bounds = {"*": (0, None), "+": (1, None), "?": (0, 1)}[letter]
            part = Repeat(part, *bounds)
            if self._peek() in {"?", "+"} and self._peek():  # lazy or possessive: the same texts
                self.place += 1
        return part

    def _bounds(self) -> tuple[int, int | None]:
        end = self.pattern.find("}", self.place)
        if end < 0:
            raise BadPattern("unclosed counted repetition")
        low, comma, high = self.pattern[self.place + 1 : end].partition(",")
        self.place = end + 1
        if not low.strip().isdecimal() or (high.strip() and not high.strip().isdecimal()):
            raise BadPattern("repetition quantifier expects a valid decimal")
        least, most = int(low), (int(high) if high.strip() else None) if comma else int(low)
        if most is not None and most < least:
            raise BadPattern("invalid repetition count range, the start must be <= the end")
        return least, most

    def _escape(self) -> Node:
        letter = self._take()
        if letter == "":
            raise BadPattern("incomplete escape sequence, reached end of pattern prematurely")
        if letter in _CLASSES:
            return Choice(_CLASSES[letter])
        if letter in "bBAzZ":
            return Row(())
        if letter in "123456789":
            raise BadPattern("backreferences are not supported")
        return Choice(self._escaped(letter))

    def _escaped(self, letter: str) -> str:
        """The characters that an escape other than a class stands for."""
        if letter in "pP":
            name = self._take()
            if name == "{":
                end = self.pattern.find("}", self.place)
                name, self.place = self.pattern[self.place : end], end + 1
            letters = _SCRIPTS.get(name.partition("=")[2] or name, string.ascii_lowercase)
            return letters if letter == "p" else "-"
        if letter in "xu":
            return self._code(2 if letter == "x" else 4)
        if letter in _ESCAPES:
            return _ESCAPES[letter]
        if letter.isalnum() and letter.isascii():
            raise BadPattern("unrecognized escape sequence")
        return letter

    def _code(self, digits: int) -> str:
        if self._peek() == "{":
            end = self.pattern.find("}", self.place)
            code, self.place = self.pattern[self.place + 1 : end], end + 1
        else:
            code, self.place = self.pattern[self.place : self.place + digits], self.place + digits
        try:
            return chr(int(code, 16))
        except (ValueError, OverflowError):
            raise BadPattern("invalid hexadecimal digit") from None

    def _class(self) -> str:
        """The characters of [...], those of a negated one among the printable."""
        negated = self._peek() == "^"
        self.place += negated
        letters: list[str] = []
        first = True
        while (letter := self._take()) != "]" or first:
            if letter == "":
                raise BadPattern("unclosed character class")
            first = False
            if letter == "[" and self._peek() == ":":
                letters.extend(self._posix())
                continue
            start = self._member(letter)
            if (
                self._peek() == "-"
                and self.pattern[self.place + 1 : self.place + 2] not in {"]", ""}
                and len(start) == 1
            ):
                self.place += 1
                end = self._member(self._take())
                if len(end) != 1 or end < start:
                    raise BadPattern("invalid character class range, the start must be <= the end")
                letters.extend(chr(code) for code in range(ord(start), min(ord(end), ord(start) + 4000) + 1))
            else:
                letters.extend(start)
        chosen = set(letters)
        kept = [letter for letter in _PRINTABLE if letter not in chosen] if negated else sorted(chosen)
        if not kept:
            raise BadPattern("empty character class" if not negated else "this class holds no character that we know")
        return "".join(kept)

    def _member(self, letter: str) -> str:
        if letter != "\\":
            return letter
        escaped = self._take()
        return _CLASSES.get(escaped) or ("\b" if escaped == "b" else self._escaped(escaped))

    def _posix(self) -> str:
        end = self.pattern.find(":]", self.place)
        name = self.pattern[self.place + 1 : end]
        if end < 0 or name.lstrip("^") not in _POSIX:
            raise BadPattern("unclosed character class")
        self.place = end + 2
        return _POSIX[name.lstrip("^")]
