"""The bounds of what is asked for: vLLM's SamplingParams._verify_args and verify (vllm/sampling_params.py, 0.32)."""

import math
from typing import Any

from atoll.emulate.refusal import bad, refused

MOST_LOGPROBS = 20  # vLLM's --max-logprobs, unless a layout says another
MOST_SEQUENCES = 16384  # vLLM: VLLM_MAX_N_SEQUENCES
MOST_LOGPROB_IDS = 128


def check_sampling(fields: Any, *, max_tokens: int | None, n: int, logprobs: int | None) -> None:
    """The numbers, in vLLM's order; `max_tokens` is what is left of the request's own limit."""
    if n < 1:
        raise refused(f"n must be at least 1, got {n}.")
    if n > MOST_SEQUENCES:
        words = f"n must be at most {MOST_SEQUENCES}, got {n}. To increase this limit, set the VLLM_MAX_N_SEQUENCES"
        raise refused(f"{words} environment variable.")
    _check_penalties(fields)
    _check_draw(fields)
    if max_tokens is not None and max_tokens < 1:
        raise bad(f"max_tokens must be at least 1, got {max_tokens}.", "max_tokens", max_tokens)
    least = getattr(fields, "min_tokens", 0)
    if least < 0:
        raise refused(f"min_tokens must be greater than or equal to 0, got {least}.")
    if max_tokens is not None and least > max_tokens:
        raise refused(f"min_tokens must be less than or equal to max_tokens={max_tokens}, got {least}.")
    if logprobs is not None and logprobs < -1:
        raise bad(f"logprobs must be non-negative or -1, got {logprobs}.", "logprobs", logprobs)
    if "" in stops_of(fields):
        raise refused("stop cannot contain an empty string.")
    words_not = getattr(fields, "bad_words", [])
    if "" in words_not:
        raise refused(f"bad_words cannot contain an empty string. Got bad_words={list(dict.fromkeys(words_not))}")
    if n > 1 and is_greedy(fields) and not getattr(fields, "use_beam_search", False):
        raise refused(f"n must be 1 when using greedy sampling, got {n}.")


def _check_penalties(fields: Any) -> None:
    for name in ("presence_penalty", "frequency_penalty"):
        value = getattr(fields, name)
        if value is not None and not -2.0 <= value <= 2.0:
            raise refused(f"{name} must be in [-2, 2], got {value}.")
    repetition = fields.repetition_penalty
    if repetition is not None and not math.isfinite(repetition):
        raise refused(f"repetition_penalty must be a finite number, got {repetition}.")
    if repetition is not None and repetition <= 0:
        raise refused(f"repetition_penalty must be greater than zero, got {repetition}.")


def _check_draw(fields: Any) -> None:
    temperature, top_p, top_k, min_p = fields.temperature, fields.top_p, fields.top_k, fields.min_p
    if temperature is not None and not math.isfinite(temperature):
        raise bad(f"temperature must be a finite number, got {temperature}.", "temperature", temperature)
    if temperature is not None and temperature < 0:
        raise bad(f"temperature must be non-negative, got {temperature}.", "temperature", temperature)
    if temperature is not None and temperature > 2:
        raise bad(f"temperature must be in [0, 2], got {temperature}.", "temperature", temperature)
    if top_p is not None and not 0 < top_p <= 1:
        raise bad(f"top_p must be in (0, 1], got {top_p}.", "top_p", top_p)
    if top_k is not None and top_k < -1:
        raise refused(f"top_k must be 0 (disable), or at least 1, got {top_k}.")
    if min_p is not None and not 0 <= min_p <= 1:
        raise refused(f"min_p must be in [0, 1], got {min_p}.")


def check_vocabulary(
    fields: Any, *, logprobs: int | None, prompt_logprobs: int | None, vocabulary: int, most: int = MOST_LOGPROBS
) -> None:
    """What depends on the model: how many probabilities, and that token ids are some of its own."""
    most = vocabulary if most == -1 else most
    for name, words, asked in (
        ("logprobs", "sample logprobs", logprobs),
        ("prompt_logprobs", "prompt logprobs", prompt_logprobs),
    ):
        count = vocabulary if asked == -1 else asked or 0
        if count > most:
            sentence = f"Requested {words} of {count}, which is greater than max allowed: {most}"
            raise bad(sentence, name, count)
    ids = getattr(fields, "logprob_token_ids", None) or []
    if len(ids) > MOST_LOGPROB_IDS:
        words = f"Requested logprob_token_ids of length {len(ids)}, which is greater than max allowed:"
        raise bad(f"{words} {MOST_LOGPROB_IDS}", "logprob_token_ids", len(ids))
    _check_ids(ids, "logprob_token_ids", vocabulary)
    _check_ids(bias_of(fields), "logit_bias", vocabulary)
    _check_ids(fields.stop_token_ids or [], "stop_token_ids", vocabulary)
    allowed = getattr(fields, "allowed_token_ids", None)
    if allowed is not None and not allowed:
        raise bad("allowed_token_ids is not None and empty!", "allowed_token_ids", allowed)
    if outside := [number for number in allowed or [] if not 0 <= number < vocabulary]:
        raise bad("allowed_token_ids contains out-of-vocab token id!", "allowed_token_ids", outside)


def _check_ids(ids: list[int], name: str, vocabulary: int) -> None:
    outside = [number for number in ids if not 0 <= number < vocabulary]
    if outside:
        words = f"token_id(s) {outside} in {name} contain out-of-vocab token ids. Vocabulary size: {vocabulary}"
        raise bad(words, name, outside)


def bias_of(fields: Any) -> list[int]:
    """The token ids of `logit_bias`.

    Raises:
        Refusal: keys that are no numbers.
    """
    ids, wrong = [], []
    for key in fields.logit_bias or {}:
        try:
            ids.append(int(key))
        except ValueError:
            wrong.append(key)
    if wrong:
        words = f"logit_bias contains key(s) that cannot be converted to integer token IDs: {wrong!r}"
        raise bad(words, "logit_bias", wrong)
    return ids


def is_greedy(fields: Any) -> bool:
    return fields.temperature is not None and fields.temperature < 1e-5


def stops_of(fields: Any) -> list[str]:
    stop = fields.stop
    return [stop] if isinstance(stop, str) else list(stop or [])
