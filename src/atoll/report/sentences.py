"""Sentences of the planner and the doctor in another language: one table of what they say, with its holes.

Those stages speak English, as the commands do. A sentence that the table does not have stays English; `untold` names
it, so that a test finds what is missing.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources

LONGEST = 2000  # characters of a text that is told; the planner's longest has some 700
_HOLE = re.compile(r"\{(\w+)\}")
_PARTICLES = {"을(를)": ("을", "를"), "은(는)": ("은", "는"), "이(가)": ("이", "가"), "(으)로": ("으로", "로")}
_PARTICLE = re.compile(r"(\w)(을\(를\)|은\(는\)|이\(가\)|\(으\)로)")
_RIEUL = 8  # the final consonant after which it is `로`
# The final consonant with which a digit ends when it is read: 영 일 이 삼 사 오 육 칠 팔 구. A B as in 80GB: 비.
_FINALS = {"0": 21, "1": _RIEUL, "2": 0, "3": 16, "4": 0, "5": 0, "6": 1, "7": _RIEUL, "8": _RIEUL, "9": 0, "B": 0}
_SENTENCE = re.compile(r".*?[.:](?= |$)|.+", re.DOTALL)  # what is skipped where nothing matches


@dataclass(frozen=True)
class _Sentence:
    pattern: re.Pattern[str]
    said: str


def tell(text: str, lang: str) -> str:
    """The text in a language, sentence by sentence."""
    if lang == "en":
        return text
    return " ".join(said if said is not None else english for english, said in _told(text, lang))


def tell_words(words: str, lang: str) -> str:
    """What is no sentence, such as `30 users`."""
    return words if lang == "en" else with_particles(_phrased(words, _table(lang)[1]))


def untold(text: str, lang: str) -> list[str]:
    """The sentences of a text that the table does not have."""
    return [english for english, said in _told(text, lang) if said is None]


def _told(text: str, lang: str) -> list[tuple[str, str | None]]:
    """Each sentence with what it is in the language."""
    sentences, phrases = _table(lang)
    found: list[tuple[str, str | None]] = []
    rest = text.strip()
    if len(rest) > LONGEST:  # a name in it is somebody's; matching holes against all of it could take for ever
        return [(rest, None)]
    while rest:
        english, said = _first(rest, sentences, phrases)
        found.append((english, said))
        rest = rest[len(english) :].lstrip()
    return found


def _first(rest: str, sentences: tuple[_Sentence, ...], phrases: dict[str, str]) -> tuple[str, str | None]:
    """The sentence that a text begins with, and what it is in the language."""
    for one in sentences:
        got = one.pattern.match(rest)
        if got is not None:
            return got[0], _filled(one.said, got.groupdict(), phrases)
    skipped = _SENTENCE.match(rest)
    return (skipped[0] if skipped else rest), None


def _filled(said: str, holes: dict[str, str], phrases: dict[str, str]) -> str:
    return with_particles(_HOLE.sub(lambda hole: _phrased(holes[hole[1]], phrases), said))


def with_particles(text: str) -> str:
    """Korean particles by the sound before them, where that is known: `8을(를)` is `8을`, `2을(를)` is `2를`."""
    return _PARTICLE.sub(lambda found: found[1] + _particle(found[1], found[2]), text)


def _particle(before: str, both: str) -> str:
    closed, opened = _PARTICLES[both]
    if "가" <= before <= "힣":
        final = (ord(before) - ord("가")) % 28
    elif before in _FINALS:
        final = _FINALS[before]
    else:
        return both  # a foreign word may be read either way
    return opened if final == 0 or (both == "(으)로" and final == _RIEUL) else closed


def _phrased(words: str, phrases: dict[str, str]) -> str:
    """What stands in a hole, with the words in it that have others in the language."""
    for english, other in phrases.items():
        words = words.replace(english, other)
    return words


@cache
def _table(lang: str) -> tuple[tuple[_Sentence, ...], dict[str, str]]:
    """The longest sentences first, so that one that says more is not taken for one that says less."""
    text = resources.files("atoll.report").joinpath("templates/sentences.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    rows = sorted(table["sentence"], key=lambda row: -len(_HOLE.sub("", row["en"])))
    phrases = {row["en"]: row[lang] for row in sorted(table["phrase"], key=lambda row: -len(row["en"]))}
    return tuple(_Sentence(_pattern(row["en"]), row[lang]) for row in rows), phrases


def _pattern(english: str) -> re.Pattern[str]:
    """A hole takes as little as it may; a sentence ends before a blank or the end."""
    parts = _HOLE.split(english)
    words = [re.escape(part) if place % 2 == 0 else f"(?P<{part}>.+?)" for place, part in enumerate(parts)]
    return re.compile("".join(words) + r"(?= |$)")
