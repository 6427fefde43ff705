"""What the pages say, in English and Korean: one file a page in words/, both languages side by side."""

import tomllib
from functools import cache
from importlib import resources

LANGUAGES = ("en", "ko")
DEFAULT = "en"
Words = dict[str, str]


@cache
def words_of(page: str, lang: str) -> Words:
    """The sentences of a page over those that all pages share."""
    found = dict(_read("common")[lang])
    if page != "common":
        found |= _read(page)[lang]
    return found


def choose_language(asked: str | None, accepted: str) -> str:
    """What the reader chose, else the first of what the browser accepts, else English."""
    if asked in LANGUAGES:
        return str(asked)
    offers = [part.split(";")[0].strip().lower()[:2] for part in accepted.split(",")]
    return next((offer for offer in offers if offer in LANGUAGES), DEFAULT)


@cache
def _read(page: str) -> dict[str, Words]:
    text = resources.files("atoll.web").joinpath(f"words/{page}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
