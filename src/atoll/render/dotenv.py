"""The .env of a bundle: what belongs to one machine and must outlive a second rendering."""


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
    return _values(text)


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
