"""Takes off what a paste puts around and into a tool's output: colours, mark-up, prefixes, wrapping."""

import html
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

_ANSI = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|(?:\x1b\[|\x9b|\^\[\[)[0-9;?]*[A-Za-z]|\x1b[@-_]")
_ANSI_WITHOUT_ESCAPE = re.compile(r"\[[0-9;]{1,8}m")
_BLANKS = dict.fromkeys(
    map(
        ord,
        "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000*`\"'[];{}",
    ),
    " ",
)
_NOTHING = dict.fromkeys(map(ord, "\u200b\u200c\u200d\u2060\ufeff\u00ad"), None)
_BARS = dict.fromkeys(map(ord, "\u2502\u2503\u2551\u00a6\uff5c\u254e\u2506"), "|")
_RULES = {code: " " for code in range(0x2500, 0x2580) if code not in _BARS}
_WIDE = {code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F) if code not in _BARS}
_LINE_ENDS = dict.fromkeys(map(ord, "\u000b\u000c\u0085\u2028\u2029"), "\n")
_DASHES = dict.fromkeys(map(ord, "\u2010\u2011\u2012\u2013\u2014\u2212"), "-")
_LETTERS = {ord("\u2026"): "...", ord("\u00d7"): "X", ord("\t"): "\t"}
_SIGNS = _RULES | _WIDE | _BARS | _BLANKS | _NOTHING | _LINE_ENDS | _DASHES | _LETTERS

_CODE = r"(?:NV[0-9]{1,2}|NODE|PIX|PXB|PHB|SYS|SOC|X)"
_COMMA_TABLE = re.compile(rf"(?:^|[\s,])(?:{_CODE}|GPU[0-9]{{1,3}})\s*,|,\s*{_CODE}\s*(?:,|$)", re.IGNORECASE)
_COMMA_OF_TABLE = re.compile(rf"\b({_CODE}|GPU[0-9]{{1,3}}),|^,|,$|,(?=\s)|(?<=\s),", re.IGNORECASE)
_ROW = re.compile(rf"\s*GPU ?[0-9]{{1,3}}[\s|:]+{_CODE}(?:[\s|]|$)", re.IGNORECASE)
_ROW_STARTS = re.compile(rf"(?<=\S)\s+(?=GPU ?[0-9]{{1,3}}[\s|:]+{_CODE}(?:[\s|]|$))", re.IGNORECASE)
_NARROWEST_TERMINAL = 40
_FEWEST_PREFIXES = 3  # fewer lines with a prefix prove nothing
_NUMBER = re.compile(r"^\s*([0-9]{1,5})(?:[.:|)]| ?\||(?=\s)|$) ?")
_HOST = re.compile(r"(?:\[[\w.@-]+\]|[A-Za-z][\w.@-]*)(?: *[:|>](?: |$)|(?<=\])(?: |$))")
_LINE_BREAK_TAGS = re.compile(r"<\s*(?:br|/tr|/p|/div|/pre|/li)\b[^<>]{0,200}>", re.IGNORECASE)
_CELL_TAGS = re.compile(
    r"<\s*/?\s*(?:t[drh]|th?ead|tbody|table|pre|code|span|b|i|p|div|strong|em|li|ul)\b[^<>]{0,200}>", re.IGNORECASE
)


def clean_lines(text: str) -> list[str]:
    """Lines without colours, mark-up, odd blanks, prefixes and commas between cells; rows on one line are parted."""
    return _parted(_drop_prefixes(_plain_lines(text)))


def unwrap(text: str) -> list[str] | None:
    """The clean lines with those joined again that a terminal cut at its width, mid-word too; None if it cut none."""
    lines = _plain_lines(text)
    width = max((len(line) for line in lines), default=0)
    if width < _NARROWEST_TERMINAL or sum(len(line) == width for line in lines) < 2:
        return None
    joined = [""]
    for line, after in pairwise([*lines, ""]):
        joined[-1] += line
        if len(line) < width or _ROW.match(after):
            joined.append("")
    return _parted(_drop_prefixes(joined))


def _plain_lines(text: str) -> list[str]:
    plain = _ANSI_WITHOUT_ESCAPE.sub("", _ANSI.sub("", _read_escapes(text)))
    if "<" in plain or "&" in plain:
        plain = html.unescape(_CELL_TAGS.sub("\t", _LINE_BREAK_TAGS.sub("\n", plain)))
    return plain.replace("\r\n", "\n").replace("\r", "\n").translate(_SIGNS).split("\n")


def _parted(lines: Sequence[str]) -> list[str]:
    return [part.rstrip() for line in lines for part in _part_rows(_part_cells(line))]


def _drop_prefixes(lines: Sequence[str]) -> list[str]:
    """Lines without an editor's numbers, and without the host or service that parallel shells write before each."""
    return _drop_hosts(_drop_numbers(lines))


def _drop_numbers(lines: Sequence[str]) -> list[str]:
    numbered = [_NUMBER.match(line) for line in lines if line.strip()]
    numbers = [int(match[1]) for match in numbered if match is not None]
    if len(numbers) < _FEWEST_PREFIXES or len(numbers) != len(numbered):
        return list(lines)
    if any(after <= before for before, after in pairwise(numbers)):
        return list(lines)
    return [_NUMBER.sub("", line, count=1) for line in lines]


def _drop_hosts(lines: Sequence[str]) -> list[str]:
    """A host named gpu01 would read as a card. Lines of several hosts are put together host by host."""
    found = [(_HOST.match(line), line) for line in lines if line.strip()]
    hosts = Counter(match[0].strip() for match, _ in found if match is not None)
    if sum(hosts.values()) < len(found) or min(hosts.values(), default=0) < _FEWEST_PREFIXES:
        return list(lines)
    return [line[match.end() :] for host in hosts for match, line in found if match and match[0].strip() == host]


def _read_escapes(text: str) -> str:
    """The text behind a string literal or a JSON value, when one was pasted."""
    if "\\t" not in text and "\\n" not in text:
        return text
    signs = {"t": "\t", "n": "\n", "r": ""}
    return re.sub(r"\\(?:([tnr])|x1b|u001b|033|e(?=\[))", lambda sign: signs.get(sign[1], "\x1b"), text)


def _part_cells(line: str) -> str:
    """Blanks for the commas between cells; the commas within an affinity stay."""
    return _COMMA_OF_TABLE.sub(lambda comma: f"{comma[1] or ''} ", line) if _COMMA_TABLE.search(line) else line


def _part_rows(line: str) -> list[str]:
    """One line into the rows that run on in it; what stands before the first row stays with it, a header does not."""
    cuts = [0]
    for match in _ROW_STARTS.finditer(line):
        before = line[cuts[-1] : match.start()]
        if re.search(r"GPU ?[0-9]|Affinity", before, re.IGNORECASE):
            cuts.append(match.end())
    return [line[start:stop] for start, stop in pairwise([*cuts, len(line)])]
