"""The .env of a bundle: what belongs to one machine and must outlive a second rendering."""

import re

from atoll.errors import InputError

_PLAIN = re.compile(r"[A-Za-z0-9_./:@%+,=\[\]~^-]*")  # no blank, quote, #, $ or backslash: read as it stands


def show_value(value: str) -> str:
    """A value as Compose reads back what was given: in single quotes nothing is replaced.

    Raises:
        InputError: .env cannot hold it: a line end, or a backslash before a quote or at the end.
    """
    if _PLAIN.fullmatch(value):
        return value
    if any(not letter.isprintable() for letter in value) or re.search(r"\\(?='|$)", value):
        raise InputError(f".env cannot hold {value!r}; give a value in one line, without a backslash before a quote.")
    return "'" + value.replace("'", "\\'") + "'"


def read_value(text: str) -> str:
    """What Compose reads of a value in single quotes; others are as they stand."""
    text = text.strip()
    if len(text) >= 2 and text[0] == text[-1] == "'":
        return text[1:-1].replace("\\'", "'")
    return text


def keep_settings(made: str, there: str) -> str:
    """The newly made text with the values that stand in the file already there, and that file's further lines.

    So rendering again changes neither a password that a database was created with nor a port somebody chose.
    """
    old = _values(there)
    lines = [_with_old_value(line, old) for line in made.splitlines()]
    known = _values(made)
    extra = [line for line in there.splitlines() if (key := _key(line)) is not None and key not in known]
    return "\n".join([*lines, *extra]) + "\n"


def read_settings(text: str) -> dict[str, str]:
    """Variable -> value; comments and lines that set nothing are left out."""
    return {key: read_value(value) for key, value in _values(text).items()}


def _with_old_value(line: str, old: dict[str, str]) -> str:
    key = _key(line)
    return f"{key}={old[key]}" if key is not None and old.get(key) else line


def _values(text: str) -> dict[str, str]:
    pairs = ((_key(line), line.partition("=")[2]) for line in text.splitlines())
    return {key: value for key, value in pairs if key is not None}


def _key(line: str) -> str | None:
    name, sign, _ = line.partition("=")
    name = name.strip()
    return name if sign and name.replace("_", "a").isalnum() and not name[0].isdigit() else None
