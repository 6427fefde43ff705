"""Engines that are not vLLM: how many GPUs their flags ask for, where they listen."""

import re
from collections.abc import Mapping, Sequence

from atoll.doctor.words import Word

# Options that multiply to the number of GPUs: SGLang's server_args.py, TGI's launcher, LMDeploy's api_server.
_SPLITS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "sglang": (("--tp", "--tp-size", "--tensor-parallel-size"), ("--pp-size", "--pipeline-parallel-size")),
    "tgi": (("--num-shard",),),
    "lmdeploy": (("--tp",),),
}
_DEFAULT_HOSTS = {"sglang": "127.0.0.1"}  # the others listen on all of their container's addresses


def given_options(words: Sequence[Word]) -> dict[str, tuple[str, Word]]:
    """`--name value` and `--name=value`: the last value of each, and its option's word."""
    made: dict[str, tuple[str, Word]] = {}
    for place, word in enumerate(words):
        name, equals, value = word.text.partition("=")
        if re.match(r"--[a-z]", name):
            following = words[place + 1].text if place + 1 < len(words) else ""
            made[name] = (value if equals else "" if following.startswith("--") else following, word)
    return made


def asked_gpus(kind: str, words: Sequence[Word]) -> tuple[int, Word] | None:
    """The GPUs that an engine of this kind is told to use, and the word that says so; None where nothing does."""
    options = given_options(words)
    size, place = 1, None
    for names in _SPLITS.get(kind, ()):
        for value, word in (options[name] for name in names if name in options):
            if not re.fullmatch(r"[1-9]\d{0,3}", value):
                return None
            size, place = size * int(value), place or word
    return (size, place) if place is not None and "--nnodes" not in options else None


def listens_at(kind: str, words: Sequence[Word], default: int | None) -> tuple[str | None, int | None, Word | None]:
    """Host, port and the word of the host; None for what is not known."""
    options = given_options(words)
    host, place = options.get("--host", options.get("--hostname", (_DEFAULT_HOSTS.get(kind), None)))
    port, _ = options.get("--port", (str(default) if default is not None else "", None))
    return host, int(port) if re.fullmatch(r"\d{1,5}", port) else None, place
