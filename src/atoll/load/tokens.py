"""How many tokens a text has: by the model's own tokenizer when it is on disk, else by what the server says, else by
counting words.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.errors import InputError, MissingProgram
from atoll.load.prompts import WORDS
from atoll.load.scripts import is_english, letters_a_word, words_of_script
from atoll.outside.files import read_text

_FEWEST_WORDS = 20
Counter = Callable[[str], int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Vocabulary:
    """Words of one token each, and what else a prompt has."""

    words: tuple[str, ...]
    overhead: int  # tokens that the chat template adds to a prompt
    tokens_per_word: float
    how: str  # for the report


BY_WORDS = Vocabulary(
    words=tuple(WORDS),
    overhead=0,
    tokens_per_word=1.0,
    how="one common English word a token; the model's tokenizer was not at hand",
)


def find_tokenizer(model: str | None, *, given: str | None, home: str | None) -> Path | None:
    """A tokenizer.json on this disk.

    Args:
        model: a folder, or a Hugging Face name that may be in the local cache.
        given: a folder or file that the user named; it must be there.
        home: the Hugging Face cache, the folder that holds `hub`.

    Raises:
        InputError: `given` holds no tokenizer.json.
    """
    if given is not None:
        place = Path(given)
        found = place if place.is_file() else place / "tokenizer.json"
        if not found.is_file():
            raise InputError(f"{given} holds no tokenizer.json. Give the model's folder.")
        return found
    if model is None:
        return None
    folder = Path(model)
    if (folder / "tokenizer.json").is_file():
        return folder / "tokenizer.json"
    if home is None or "/" not in model or model.startswith("/"):
        return None
    cached = Path(home) / "hub" / f"models--{model.replace('/', '--')}" / "snapshots"
    return next(iter(sorted(cached.glob("*/tokenizer.json"))), None)


def read_vocabulary(path: Path, *, chat: bool, script: str = "english") -> tuple[Vocabulary, Counter]:
    """The words that this tokenizer has as one token each, what its chat template adds, and a counter of tokens.

    Args:
        path: of tokenizer.json; tokenizer_config.json or chat_template.jinja beside it gives the chat template.
        chat: prompts go through the chat template.
        script: of the words; in other scripts than English a word is several tokens, and the count right on average.

    Raises:
        MissingProgram: the `tokenizers` package is not installed.
        InputError: the file is no tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise MissingProgram(
            "Exact prompt lengths need the tokenizers package. Install it with `pip install atoll[tokens]`."
        ) from None
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - tokenizers raises its own bare Exception
        raise InputError(f"{path} is no tokenizer: {error}.") from None

    def count(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    template = _chat_template(path.parent) if chat else None
    if not is_english(script):
        overhead = _overhead(template, count) if template else _special_tokens(tokenizer)
        return _of_script(script, count, overhead, path), count
    words = _single_tokens((word for word in WORDS if count(word) == 1), count)
    if len(words) < _FEWEST_WORDS:  # a tokenizer of another language, or a small one: its own words
        words = _single_tokens(_own_words(tokenizer), count)
    if len(words) < _FEWEST_WORDS:
        return _by_local_count(count, path), count
    overhead = _overhead(template, count) if template else _special_tokens(tokenizer)
    overhead += count(" ".join(words)) - len(words)  # a first word without a blank before it may be several
    how = (
        f"exact, by {path}" if template or not chat else f"exact by {path} but for the chat template, which is missing"
    )
    return Vocabulary(words=words, overhead=overhead, tokens_per_word=1.0, how=how), count


def _of_script(script: str, count: Counter, overhead: int, path: Path) -> Vocabulary:
    """Words of a script, and how many tokens they are on average between others."""
    words = tuple(words_of_script(script))
    long = words * 4
    tokens = (count(" ".join(long)) - count(" ".join(words))) / (len(long) - len(words))
    return Vocabulary(
        words=words,
        overhead=overhead,
        tokens_per_word=max(tokens, 0.1),
        how=f"{script}: on average {tokens:.2f} tokens a word, {tokens / letters_a_word(words):.2f} a letter; {path}",
    )


def by_letters(script: str) -> Vocabulary:
    """Words of a script whose tokens nobody was there to count: one a letter is reckoned."""
    words = tuple(words_of_script(script))
    return Vocabulary(
        words=words,
        overhead=0,
        tokens_per_word=letters_a_word(words),
        how=f"{script}, one token a letter is reckoned; no tokenizer was at hand, the server's usage tells",
    )


def _single_tokens(words: Iterable[str], count: Counter) -> tuple[str, ...]:
    """Those that add one token between others: a text has then as many tokens as words, but for its first word."""
    pair = count("the of")
    kept = tuple(word for word in words if count(f"the {word} of") == pair + 1)
    joined, twice = count(" ".join(kept)), count(" ".join(kept + kept))
    return kept if twice - joined == len(kept) else ()


def _own_words(tokenizer: object) -> list[str]:
    """What the tokenizer's single tokens say, where that is a word or a piece of one; in the order of their numbers."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()  # type: ignore[attr-defined]
    said = (tokenizer.decode([number]).strip() for number in sorted(vocabulary.values()))  # type: ignore[attr-defined]
    return [word for word in dict.fromkeys(said) if len(word) > 1 and word.isalpha()]


def _by_local_count(count: Counter, path: Path) -> Vocabulary:
    """English words, and how many tokens they are on average."""
    return replace(
        BY_WORDS,
        tokens_per_word=max(count(" ".join(WORDS)) / len(WORDS), 0.1),
        how=f"about right: {path} has no words of one token, so its tokens a word are taken on average",
    )


def _special_tokens(tokenizer: object) -> int:
    """What the tokenizer itself adds to every text, such as a begin-of-text token."""
    encode = tokenizer.encode  # type: ignore[attr-defined]
    return len(encode("the", add_special_tokens=True).ids) - len(encode("the", add_special_tokens=False).ids)


def _overhead(template: str, count: Counter) -> int:
    """Tokens of a rendered chat of one word, less that word."""
    return count(render_chat(template, [{"role": "user", "content": "the"}])) - count("the")


def render_chat(template: str, messages: Sequence[Mapping[str, str]]) -> str:
    """A chat as the model sees it, ending where the assistant begins; raises InputError for a template that fails."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> str:
        raise jinja2.TemplateError(message)

    room = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    room.globals["raise_exception"] = refuse
    room.globals["strftime_now"] = lambda _: "01 Jan 2026"
    try:
        return room.from_string(template).render(
            messages=list(messages), add_generation_prompt=True, bos_token="", eos_token=""
        )
    except jinja2.TemplateError as error:
        raise InputError(f"The model's chat template cannot be used: {error}.") from None


def _chat_template(folder: Path) -> str | None:
    """From chat_template.jinja or tokenizer_config.json; None when there is none."""
    if (folder / "chat_template.jinja").is_file():
        return read_text(folder / "chat_template.jinja")
    try:
        config = json.loads(read_text(folder / "tokenizer_config.json"))
    except (InputError, ValueError):
        return None
    template = config.get("chat_template") if isinstance(config, dict) else None
    if isinstance(template, list):  # several by name
        named = {item.get("name"): item.get("template") for item in template if isinstance(item, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def calibrated(short: tuple[int, int], long: tuple[int, int], *, words: Sequence[str] = WORDS) -> Vocabulary:
    """From two counts of the server's own tokenizer: (words, tokens) of a short and of a long prompt of these words."""
    slope = (long[1] - short[1]) / (long[0] - short[0])
    overhead = max(0, round(short[1] - slope * short[0]))
    return Vocabulary(
        words=tuple(words),
        overhead=overhead,
        tokens_per_word=max(slope, 0.1),
        how=f"calibrated on the server's own count: {slope:.3f} tokens a word and {overhead} for the chat template",
    )
