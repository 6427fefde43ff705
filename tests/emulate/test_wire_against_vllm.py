"""Every recorded answer of a real vLLM 0.32, field by field: only ids, times, texts and the prompt's length may differ.

Where the content is the model's own (tokens, probabilities, JSON that it made up), the answers are compared in shape: the
same fields in the same order with values of the same type; in streams, events of the same shapes in the same order.
"""

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("record_vllm_wire", ROOT / "live" / "record_vllm_wire.py")
recorder = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(recorder)
RECORDED = json.loads((ROOT / "data" / "vllm_wire" / "answers.json").read_text())["answers"]

# Our prompts have no chat template, so only these questions have prompts of the same length.
MASKS = [
    (r'"id":"(chatcmpl|cmpl|modelperm)-[0-9a-f]{16}"', r'"id":"\1-ID"'),
    (r'"created":\d+', '"created":0'),
    (r'"content":"((?:[^"\\]|\\.)*)"', '"content":"T"'),
    (r'"text":"((?:[^"\\]|\\.)*)"', '"text":"T"'),
    (r'"system_fingerprint":"[^"]+"', '"system_fingerprint":"F"'),
    (r'"prompt_tokens":\d+', '"prompt_tokens":0'),
    (r'"stop_reason":\d+', '"stop_reason":0'),
    (r'"total_tokens":\d+', '"total_tokens":0'),
    (r"\b(?:chatcmpl|cmpl)-my-id\b", "MY-ID"),
]


# What it says of a chat's messages comes from OpenAI's own types, branch by branch; ours are single sentences.
OWN_WORDS = {"message without a role", "content is a number", "content of unknown type", "grammar is none"}
# A model of random weights calls a tool with arguments that are none or without coming to an end, and its tokenizer makes
# four tokens of a word that is one here.
OWN_CONTENT = {"messages tool", "responses tool", "text echo alone"}


def shape(value: object) -> object:
    """Fields in their order and the types of their values; of a list the first item's, of an object by id its values'."""
    if isinstance(value, dict):
        if value and all(key.isdecimal() for key in value):  # token ids
            return {"id": shape(next(iter(value.values())))}
        if "token_logprobs" in value or "text_offset" in value:
            return list(value)
        return [(key, shape(inner)) for key, inner in value.items()]
    if isinstance(value, list):
        return ["list", *[shape(item) for item in value if item is not None][:1]]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def shapes(body: str) -> list[object]:
    """That of a document, or those of a stream's events, each where it comes up first."""
    if not body.startswith(("data:", "event:")):
        return [shape(json.loads(body))] if body else []
    found: list[object] = []
    for event in body.split("\n\n"):
        name, _, data = event.rpartition("data: ")
        plain = json.loads(data) if data.startswith("{") else data
        seen = (name, shape(_without_content(plain)))
        if seen not in found:
            found.append(seen)
    return found


def _without_content(plain: object) -> object:
    """A delta that carries text may be any of the answer's, so what differs from one to the next is left out."""
    if isinstance(plain, dict) and plain.get("choices"):
        delta = plain["choices"][0].get("delta", {})
        if delta.get("content") == "":
            delta.pop("content")
    return plain


def masked(body: str) -> str:
    for pattern, by in MASKS:
        body = re.sub(pattern, by, body)
    return body


@pytest.fixture
def emulated(replica):
    return replica(step_s=0.0005, max_num_seqs=4, max_num_queued_reqs=4, served={"vocab_size": 164})


def test_every_recorded_answer_is_given_again(emulated):
    for name, (path, body, headers) in recorder.QUESTIONS.items():
        if name in OWN_CONTENT:
            continue
        real = RECORDED[name]
        ours = recorder.ask(emulated.url, path, body, headers)
        assert ours["status"] == real["status"], name
        assert ours["headers"].get("content-type") == real["headers"].get("content-type"), name
        assert ours["headers"].get("transfer-encoding") == real["headers"].get("transfer-encoding"), name
        assert ours["headers"].get("allow") == real["headers"].get("allow"), name
        if name in recorder.FREE:
            assert shapes(ours["body"]) == shapes(real["body"]), name
        elif name not in OWN_WORDS:
            assert masked(ours["body"]) == masked(real["body"]), name


def test_the_recording_covers_every_question():
    assert set(recorder.QUESTIONS) == set(RECORDED)


def families(text: str) -> dict[str, tuple[str, frozenset[str]]]:
    """Metric -> its type and the names of its labels."""
    found: dict[str, tuple[str, frozenset[str]]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE vllm:"):
            _, _, name, kind = line.split()
            found[name] = (kind, frozenset())
        elif line.startswith("vllm:"):
            name, _, rest = line.partition("{")
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            name = name if name in found else base
            labels = frozenset(re.findall(r'(\w+)="', rest))
            found[name] = (found[name][0], found[name][1] | labels)
    return found


def test_metrics_have_vllms_names_types_labels_and_buckets(emulated):
    recorder.ask(emulated.url, *recorder.QUESTIONS["chat"])
    real_text = (ROOT / "data" / "vllm_wire" / "metrics.txt").read_text()
    ours_text = str(recorder.ask(emulated.url, "/metrics", None, {})["body"])
    real, ours = families(real_text), families(ours_text)
    assert set(ours) == set(real)
    for name, (kind, labels) in ours.items():
        assert real[name][0] == kind, name
        if name != "vllm:cache_config_info":
            assert real[name][1] == labels, name
        assert buckets(ours_text, name) == buckets(real_text, name), name


def buckets(text: str, name: str) -> list[str]:
    return [re.search(r'le="([^"]+)"', line)[1] for line in text.splitlines() if line.startswith(f"{name}_bucket{{")]
