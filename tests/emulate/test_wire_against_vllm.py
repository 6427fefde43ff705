"""Every recorded answer of a real vLLM 0.32, field by field: only ids, times, texts and the prompt's length may differ."""

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
    (r'"total_tokens":\d+', '"total_tokens":0'),
    (r"\b(?:chatcmpl|cmpl)-my-id\b", "MY-ID"),
]


def masked(body: str) -> str:
    for pattern, by in MASKS:
        body = re.sub(pattern, by, body)
    return body


@pytest.fixture
def emulated(replica):
    return replica(step_s=0.0005, max_num_seqs=4, max_num_queued_reqs=4)


def test_every_recorded_answer_is_given_again(emulated):
    for name, (path, body, headers) in recorder.QUESTIONS.items():
        real = RECORDED[name]
        ours = recorder.ask(emulated.url, path, body, headers)
        assert ours["status"] == real["status"], name
        assert ours["headers"].get("content-type") == real["headers"].get("content-type"), name
        assert ours["headers"].get("transfer-encoding") == real["headers"].get("transfer-encoding"), name
        assert ours["headers"].get("allow") == real["headers"].get("allow"), name
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
    assert len(ours) >= 22
    for name, (kind, labels) in ours.items():
        assert real[name][0] == kind, name
        if name != "vllm:cache_config_info":
            assert real[name][1] == labels, name
        assert buckets(ours_text, name) == buckets(real_text, name), name


def buckets(text: str, name: str) -> list[str]:
    return [re.search(r'le="([^"]+)"', line)[1] for line in text.splitlines() if line.startswith(f"{name}_bucket{{")]
