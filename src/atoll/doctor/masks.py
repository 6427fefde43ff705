"""Keys and passwords in what is shown: dots in their place."""

import re

# Tokens that are known by their form: Hugging Face, OpenAI and its kin, GitHub, AWS.
TOKEN = re.compile(
    r"\b(hf_[A-Za-z0-9]{30,}|sk-(?:proj-|ant-)?[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16})\b"
)
# What htpasswd and crypt make of a password, its dollars doubled in Compose: $apr1$salt$hash, $2y$05$hash.
_HASH = re.compile(r"(\${1,2})(?:apr1|2[abxy]|[156]|y)\1[\w./=]+(?:\1[\w./]+)*\1[\w./]{20,}")
# Names of variables and options whose value is one.
SECRET_NAME = re.compile(r"(PASSWORD|PASSWD|PASSPHRASE|SECRET|SECRET_KEY|API_KEY|ACCESS_KEY|MASTER_KEY|TOKEN)$")
_WORD = r"(?:PASSWORD|PASSWD|PASSPHRASE|SECRET|API[_-]?KEY|ACCESS[_-]?KEY|MASTER[_-]?KEY|TOKEN)"
# Between quotes a value may hold blanks; elsewhere it ends at the first, but for YAML's `name: value`.
_QUOTED = r"""(?P<quote>["']?)(?P<value>(?<=")[^"\n]+|(?<=')[^'\n]+|"""
_VALUE = _QUOTED + r"""[^\s"',}\]]+)"""
_SCALAR = _QUOTED + r"""[^\s"',}\]]+(?:[ \t]+[^\s"',}\]#][^\s"',}\]]*)*)"""
_PAIR = re.compile(  # "NAME=value with blanks"
    rf"""(?P<name>(?P<outer>["'])[\w.-]*{_WORD})(?P<between>=)(?P<quote>)(?P<value>[^"'\n]+)(?=(?P=outer))""",
    re.IGNORECASE,
)
_ENTRY = re.compile(rf"""(?P<name>\b[\w.-]*{_WORD}["']?)(?P<between>[ \t]*:[ \t]+){_SCALAR}""", re.IGNORECASE)
_NAMED = re.compile(  # NAME=value, name: value
    rf"""(?P<name>\b[\w.-]*{_WORD}["']?)(?P<between>[ \t]*[=:][ \t]*){_VALUE}""",
    re.IGNORECASE,
)
_OPTION = re.compile(  # --name value, "--name", "value"
    rf"""(?P<name>--[\w-]*{_WORD})(?P<between>["']?,?\s+(?:-\s+)?){_VALUE}""",
    re.IGNORECASE,
)
_HEADER = re.compile(  # nginx: proxy_set_header X-Api-Key value; set $api_key value;
    rf"""(?P<name>\b(?:proxy_set_header|grpc_set_header|add_header|set)[ \t]+\$?[\w-]*{_WORD})(?P<between>[ \t]+)"""
    rf"""{_QUOTED}[^\s"';]+)""",
    re.IGNORECASE,
)
_DEFAULT = re.compile(  # ${NAME:-value}
    rf"""(?P<name>\$\{{\w*{_WORD})(?P<between>:?-)(?P<quote>)(?P<value>[^}}\n]+)""", re.IGNORECASE
)
_IN_URL = re.compile(r"(?P<head>\b[a-z][a-z0-9+.-]*://[^:/@\s]*:)(?P<value>[^@/\s]+)(?=@)")
_BEARER = re.compile(r"(?P<head>\b(?:Bearer|Basic)\s+)(?P<value>[^\s\"';$]+)")
_HARMLESS = re.compile(
    r"^(\$|\?|\||>|!|&|\*|-|none$|null$|true$|false$|empty$|required$|/|\d+$|\{)",
    re.IGNORECASE,
)
_DOTS = "•••"
_SHORTEST = 4  # characters; what is shorter is a word that stands anywhere


def mask_secrets(text: str) -> str:
    """The text with dots in place of keys, tokens and passwords; references to variables and files stay."""
    text = _HASH.sub(_DOTS, TOKEN.sub(_DOTS, text))
    text = _IN_URL.sub(lambda found: found["head"] + _dotted(found["value"]), text)
    text = _BEARER.sub(lambda found: found["head"] + _dotted(found["value"]), text)
    for form in (_DEFAULT, _HEADER, _PAIR, _ENTRY, _NAMED, _OPTION):
        text = form.sub(_named, text)
    return text


def _named(found: "re.Match[str]") -> str:
    return f"{found['name']}{found['between']}{found['quote']}{_dotted(found['value'])}"


def _dotted(value: str) -> str:
    return value if len(value) < _SHORTEST or _HARMLESS.match(value) or value == _DOTS else _DOTS
