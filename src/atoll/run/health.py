"""Wait until each replica answers; say which does not, and why, in a sentence with what to do.

The reasons are read from the engine's own log. Each pattern below was seen in a real log of the program it names;
tests/data/engine_logs keeps them.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import AtollError, RunFailed, StartFailed
from atoll.outside.clock import Clock
from atoll.outside.files import read_text
from atoll.outside.http import get_text
from atoll.units import show_bytes

FIRST_LOOK_S, LONGEST_PAUSE_S = 0.05, 1.0
TAIL_LINES = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class Watched:
    """A process that should come to answer."""

    name: str  # replica-0, router
    where: str  # "GPUs 0, 1", for the sentence
    health_url: str
    log: Path
    certificate: Path | None = None  # that it shows, where it is asked by https


@dataclass(frozen=True, kw_only=True, slots=True)
class Reason:
    """What a log says went wrong, and what to do about it."""

    cause: str
    remedy: str


async def wait_until_healthy(
    watched: Sequence[Watched],
    *,
    clock: Clock,
    timeout_s: float,
    end_of: Callable[[str], int | None],
    say: Callable[[str], None] = lambda _: None,
) -> None:
    """Return when all of them answer.

    Args:
        watched: who should answer.
        clock: time and sleep.
        timeout_s: how long all of them together may take.
        end_of: the exit code of a process that has ended, by name; None while it runs.
        say: told when one answers.

    Raises:
        StartFailed: one ended, or did not answer in time; the sentence has the reason from its log.
    """
    ends = clock.now() + timeout_s
    tasks = [asyncio.ensure_future(_wait_for_one(one, clock=clock, ends=ends, end_of=end_of)) for one in watched]
    try:
        for task in asyncio.as_completed(tasks):
            say(await task)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait_for_one(one: Watched, *, clock: Clock, ends: float, end_of: Callable[[str], int | None]) -> str:
    began, pause, last = clock.now(), FIRST_LOOK_S, "no answer yet"
    while True:
        code = end_of(one.name)
        if code is not None:
            raise StartFailed(failure_sentence(one, how=_how_it_ended(code)))
        try:
            await get_text(one.health_url, timeout_s=5.0, certificate=one.certificate)
        except RunFailed as error:
            last = str(error)
        else:
            return f"{one.name} answers after {clock.now() - began:.1f} s"
        if clock.now() >= ends:
            raise StartFailed(failure_sentence(one, how=f"did not become healthy in time ({last})"))
        await clock.sleep(min(pause, max(0.0, ends - clock.now())))
        pause = min(LONGEST_PAUSE_S, pause * 1.5)


def failure_sentence(one: Watched, *, how: str) -> str:
    """`replica-1 (GPUs 2, 3) ended with exit code 1: CUDA is out of memory. Lower ... Its log: logs/replica-1.log.`"""
    text = log_tail(one.log, lines=400)
    reason = explain_log(text)
    where = f" ({one.where})" if one.where else ""
    if reason is not None:
        return f"{one.name}{where} {how}: {reason.cause}. {reason.remedy} Its log: {one.log}"
    words = "\n  ".join(text.splitlines()[-TAIL_LINES:]) or "it printed nothing"
    return f"{one.name}{where} {how}. The end of {one.log}:\n  {words}"


def _how_it_ended(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def log_tail(log: Path, *, lines: int) -> str:
    """The last lines of a log, without colours; nothing when there is no log."""
    try:
        text = read_text(log)
    except AtollError:
        return ""
    return _COLOUR.sub("", "\n".join(text.splitlines()[-lines:]))


def explain_log(text: str) -> Reason | None:
    """The most telling known reason in a log; None when no line is known."""
    for pattern, explain in _REASONS:
        match = pattern.search(text)
        if match is not None:
            return explain(match)
    return None


_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _always(cause: str, remedy: str) -> Callable[[re.Match[str]], Reason]:
    return lambda _: Reason(cause=cause, remedy=remedy)


def _filled(cause: str, remedy: str) -> Callable[[re.Match[str]], Reason]:
    return lambda match: Reason(cause=match.expand(cause), remedy=match.expand(remedy))


def _own_words(match: re.Match[str]) -> Reason:
    """An error of ours is a sentence with its remedy already."""
    cause, _, remedy = match[1].rpartition("; ")
    return Reason(cause=cause or match[1].rstrip("."), remedy=f"{remedy[:1].upper()}{remedy[1:]}" if cause else "")


# Most telling first: what comes up only as a consequence stands lower.
_REASONS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], Reason]], ...] = (
    (re.compile(r"^atoll: (.+)$", re.MULTILINE), _own_words),
    (
        re.compile(r"bind\(\) to (\S+) failed \(98: (?:Address already in use|Address in use)\)"),
        _filled(r"\1 is taken by another program", "End that program or give the router another port."),
    ),
    (
        re.compile(r"bind\(\) to (\S+) failed \(13: Permission denied\)"),
        _filled(r"\1 may not be listened on by this user", "Choose a router port above 1023."),
    ),
    (
        re.compile(r"Errno 98\][^\n]*address already in use", re.IGNORECASE),
        _always("its port is taken by another program", "End that program or give the replica another port."),
    ),
    (
        re.compile(r"max seq len \((\d+)\)[^\n]*?([\d.]+) GiB KV cache is needed[^\n]*?\(([\d.]+) GiB\)"),
        _filled(
            r"one request of \1 tokens needs \2 GiB of KV cache and \3 GiB are left",
            "Lower max_model_len or raise gpu_memory_utilization.",
        ),
    ),
    (
        re.compile(r"max seq len \((\d+)\) is larger than the maximum number of tokens [^\n]*KV cache \((\d+)\)"),
        _filled(
            r"one request may have \1 tokens and the KV cache holds \2",
            "Lower max_model_len or raise gpu_memory_utilization.",
        ),
    ),
    (
        re.compile(r"User-specified max_model_len \((\d+)\) is greater than the derived max_model_len \([^=\n]*=(\d+)"),
        _filled(r"max_model_len \1 is above the model's own \2", r"Lower max_model_len to \2."),
    ),
    (
        re.compile(r"attention heads \((\d+)\) must be divisible by tensor parallel size \((\d+)\)"),
        _filled(
            r"\1 attention heads cannot be split over \2 GPUs", "`atoll model` names the splits that are possible."
        ),
    ),
    (
        re.compile(r"No available memory for the cache blocks"),
        _always("no memory is left for the KV cache", "Raise gpu_memory_utilization or use more GPUs for a replica."),
    ),
    (
        re.compile(r"Free memory on device[^\n]*?\(([\d.]+)/([\d.]+) GiB\)[^\n]*?desired GPU memory utilization"),
        _filled(
            r"only \1 of \2 GiB are free on its GPU",
            "Another program uses this GPU: see `nvidia-smi`, end it, or lower gpu_memory_utilization.",
        ),
    ),
    (
        re.compile(
            r"Available memory on node[^\n]*?\(([\d.]+)/([\d.]+) GiB\)[^\n]*?requested memory for kv \(([\d.]+) GiB\)"
        ),
        _filled(
            r"\3 GiB of main memory are wanted for the KV cache and \1 are free",
            "Lower VLLM_CPU_KVCACHE_SPACE or end other programs.",
        ),
    ),
    (
        re.compile(r"DefaultCPUAllocator: can't allocate memory: you tried to allocate (\d+) bytes"),
        lambda m: Reason(
            cause=f"main memory is exhausted ({show_bytes(int(m[1]))} were asked for)",
            remedy="Lower max_model_len or VLLM_CPU_KVCACHE_SPACE, or end other programs.",
        ),
    ),
    (
        re.compile(r"(?:torch\.(?:cuda\.)?OutOfMemoryError|CUDA out of memory|CUDA error: out of memory)"),
        _always("the GPU is out of memory", "Use more GPUs for a replica, or lower max_num_batched_tokens."),
    ),
    (
        re.compile(
            r"(?:Can't load the configuration of|does not appear to have a file named config\.json"
            r"|Repo id must be in the form|is not a local folder and is not a valid model identifier"
            r"|Invalid repository ID or local directory)[^\n]*"
        ),
        _always("the model was not found", "Give a folder with config.json and the weights, or a name that is cached."),
    ),
    (
        re.compile(r"(?:LocalEntryNotFoundError|OfflineModeIsEnabled|Cannot (?:find|reach)[^\n]*(?:hub|huggingface))"),
        _always(
            "the model is not on this machine and the hub cannot be reached",
            "Copy the model here and name its folder in the layout.",
        ),
    ),
    (
        re.compile(r"Cannot find any model weights with `([^`\n]+)`"),
        _filled(r"\1 holds no model weights", "Copy the *.safetensors files there."),
    ),
    (
        re.compile(r"unrecognized arguments: ([^\n]+)"),
        _filled(r"this engine version does not know \1", "Remove it from the flags, or set engine_version."),
    ),
)
