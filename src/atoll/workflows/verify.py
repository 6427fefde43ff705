"""The same answers after a change? Greedy prompts to every replica, held against each other and an earlier time.

At temperature 0 an engine takes the likeliest token each time, so replicas with the same weights agree but for ties
that another order of additions breaks in another way (another batch, another tensor-parallel size, other kernels).
Prompts go out one at a time for that reason. A broken quantisation or a cache that mixes up requests shows as answers
that part early and everywhere.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from atoll.documents import Document
from atoll.errors import InputError, NoMeasurement, RunFailed
from atoll.load.target import Endpoint, models_in, parse_target
from atoll.outside.files import read_text
from atoll.outside.http import get_json, post_stream
from atoll.run.door_tls import door_certificate
from atoll.workflows.deploy import deployment_status, find_deployable
from atoll.workflows.door import names_a_server

MOST_TOKENS = 64
_SHOWN = 40  # characters from where two answers part


class Answers(Document):
    """What was answered to the prompts, by who was asked. Kept, it is what a later time is held against."""

    model: str
    tokens: int
    prompts: tuple[str, ...]
    answers: dict[str, tuple[str, ...]]  # `replica 0` -> an answer a prompt, in their order


class Parting(Document):
    """One answer that is not the one it is held against."""

    source: str
    against: str
    number: int  # of the prompt, from 1
    prompt: str
    common: int  # characters that are the same
    length: int  # ... of so many of the longer answer
    got: str  # from there on, its beginning
    expected: str


class Verification(Document):
    """How many answers differ, and where."""

    model: str
    sources: tuple[str, ...]
    prompts: int
    compared: int  # answers that were held against another
    same: int
    partings: tuple[Parting, ...]

    @property
    def different(self) -> int:
        return self.compared - self.same


def read_prompts(path: Path | None) -> tuple[str, ...]:
    """One prompt a line of a file; those that atoll brings when there is none.

    Raises:
        InputError: no file, or nothing in it.
    """
    text = read_text(path) if path else resources.files("atoll").joinpath("data/verify_prompts.txt").read_text("utf-8")
    prompts = tuple(line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#"))
    if not prompts:
        raise InputError(f"{path} has no prompt. Write one a line.")
    return prompts


def read_answers(path: Path) -> Answers:
    """Answers of an earlier time; raises BadDocument where the file holds none."""
    return Answers.parse(read_text(path), origin=str(path))


async def ask(
    servers: Mapping[str, str],
    *,
    prompts: Sequence[str],
    tokens: int = MOST_TOKENS,
    api_key: str | None = None,
    certificate: Path | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> Answers:
    """Ask each server all prompts: one after the other, at temperature 0.

    Args:
        servers: URLs by what they are called.
        prompts: what to ask.
        tokens: the most that an answer has.
        api_key: sent along, if any.
        certificate: that they show where they are asked by https; None: one that is known here.
        say: is told who is being asked.

    Raises:
        RunFailed: one does not answer, or not with text.
        NoMeasurement: all that they answer is nothing.
    """
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    model = await _model_of(next(iter(servers.values())), headers, certificate)
    answers = {}
    for name, url in servers.items():
        say(f"{name}: {len(prompts)} prompts")
        answers[name] = tuple(
            [await _answer(url, model, prompt, tokens, headers, certificate=certificate) for prompt in prompts]
        )
    if all(not text for texts in answers.values() for text in texts):
        raise NoMeasurement("All answers are empty: there is nothing to compare.")
    return Answers(model=model, tokens=tokens, prompts=tuple(prompts), answers=answers)


def hold_against(now: Answers, before: Answers | None = None) -> Verification:
    """Each replica's answers against the first replica's; or all of them against those of an earlier time.

    Raises:
        InputError: the earlier time had other prompts or lengths.
    """
    if before is not None and (before.prompts, before.tokens) != (now.prompts, now.tokens):
        raise InputError(
            f"Those answers are to {len(before.prompts)} prompts of up to {before.tokens} tokens, these to"
            f" {len(now.prompts)} of {now.tokens}, or to others. Ask the same again."
        )
    reference, texts = next(iter((before or now).answers.items()))
    label = f"{reference} before" if before is not None else reference
    asked = {name: found for name, found in now.answers.items() if before is not None or name != reference}
    partings = [
        _part((name, label), (number, prompt), got, expected)
        for name, found in asked.items()
        for number, (prompt, got, expected) in enumerate(zip(now.prompts, found, texts, strict=True), start=1)
        if got != expected
    ]
    compared = len(asked) * len(now.prompts)
    return Verification(
        model=now.model,
        sources=tuple(now.answers),
        prompts=len(now.prompts),
        compared=compared,
        same=compared - len(partings),
        partings=tuple(partings),
    )


def _part(who: tuple[str, str], asked: tuple[int, str], got: str, expected: str) -> Parting:
    pairs = zip(got, expected, strict=False)
    common = next((place for place, (one, other) in enumerate(pairs) if one != other), min(len(got), len(expected)))
    return Parting(
        source=who[0],
        against=who[1],
        number=asked[0],
        prompt=asked[1],
        common=common,
        length=max(len(got), len(expected)),
        got=got[common : common + _SHOWN],
        expected=expected[common : common + _SHOWN],
    )


def _servers(targets: Sequence[str]) -> dict[str, str]:
    """Who is asked, by name: each replica that answers by itself, else the door that stands before them."""
    if all(names_a_server(target) for target in targets):
        return {target: target for target in targets}
    if len(targets) > 1:
        raise InputError("Give one BUNDLE_DIR, whose replicas are all asked, or URLs.")
    found = asyncio.run(deployment_status(find_deployable(Path(targets[0]))))
    if found.state == "down":
        raise RunFailed(f"{targets[0]} is not up; `atoll up {targets[0]}` starts it.")
    replicas = {f"replica {one.number}": one.url for one in found.services if one.number is not None and one.url}
    return replicas or {"the door": found.url}


def _certificate(targets: Sequence[str]) -> Path | None:
    return None if names_a_server(targets[0]) else door_certificate(find_deployable(Path(targets[0])).folder)


async def _model_of(url: str, headers: Mapping[str, str], certificate: Path | None) -> str:
    target, _ = parse_target(url, Endpoint.COMPLETIONS)
    models = models_in(await get_json(target.origin + target.models_path, headers=headers, certificate=certificate))
    if not models or not models[0].get("id"):
        raise RunFailed(f"{url} names no model in {target.models_path}.")
    return str(models[0]["id"])


async def _answer(
    url: str, model: str, prompt: str, tokens: int, headers: Mapping[str, str], *, certificate: Path | None
) -> str:
    target, _ = parse_target(url, Endpoint.COMPLETIONS)
    body = {"model": model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, "seed": 0}
    asked = post_stream(target.origin + target.path, body, headers=headers, certificate=certificate)
    lines = [line async for _, line in asked]
    try:
        answer: Any = json.loads("\n".join(lines))
        return str(answer["choices"][0]["text"])
    except (ValueError, KeyError, IndexError, TypeError):
        raise RunFailed(f"{urlsplit(url).netloc or url} did not answer with a completion: {lines[:1]}") from None


def verify(
    targets: Sequence[str],
    *,
    prompts: Sequence[str],
    tokens: int = MOST_TOKENS,
    api_key: str | None = None,
    before: Answers | None = None,
    say: Callable[[str], None] = lambda _line: None,
) -> tuple[Answers, Verification]:
    """Ask every replica of a deployment, or every URL, and hold the answers against each other or an earlier time.

    Args:
        targets: one bundle's folder or layout's file, or URLs.
        prompts: what to ask.
        tokens: the most that an answer has.
        api_key: sent along, if any.
        before: answers of an earlier time.
        say: is told who is being asked.

    Raises:
        InputError: the targets cannot be understood, or the earlier time had other prompts.
        RunFailed: a deployment is down, or a server does not answer.
    """
    servers, certificate = _servers(targets), _certificate(targets)
    asking = ask(servers, prompts=prompts, tokens=tokens, api_key=api_key, certificate=certificate, say=say)
    now = asyncio.run(asking)
    return now, hold_against(now, before)
