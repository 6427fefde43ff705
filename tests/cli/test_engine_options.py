"""One list of the engine's options, with one meaning, in four commands."""

import json

import pytest
import typer
from typer.testing import CliRunner

from atoll.cli.main import make_app
from atoll.errors import InputError
from atoll.workflows.engine_options import EngineOptions, fill_rows

OPTIONS = [
    "--gpu-memory-utilization",
    "--max-model-len",
    "--max-num-seqs",
    "--max-num-batched-tokens",
    "--kv-cache-dtype",
    "--quantization",
    "--pp",
    "--enforce-eager",
    "--engine-version",
]
QWEN = ("--model", "Qwen/Qwen2.5-7B-Instruct", "--gpu", "L40S-48GB")
LOAD = ("--users", "4", "--prompt", "200", "--output", "20", "--requests", "20", "--start", "at_once")


def run(*words):
    return CliRunner().invoke(make_app(), words)


@pytest.mark.parametrize("command", ["model", "plan", "simulate", "validate"])
def test_every_command_takes_all_of_them(command):
    commands = {one.name: one for one in typer.main.get_group(make_app()).commands.values()}
    taken = {word for parameter in commands[command].params for word in parameter.opts}
    assert [option for option in OPTIONS if option not in taken] == []


def test_a_share_of_the_memory_is_the_versions_own_where_none_is_given():
    def kv_bytes(*words):
        plain = json.loads(run("model", "Qwen/Qwen2.5-7B-Instruct", "--gpu", "L40S", "--json", *words).output)
        return plain["gpu_memory_utilization"], plain["fits"][0]["kv_bytes"]

    assert kv_bytes("--engine-version", "0.19.0")[0] == 0.9
    assert kv_bytes()[0] == 0.92
    assert kv_bytes("--gpu-memory-utilization", "0.5")[1] < kv_bytes()[1] / 2


def test_simulate_and_plan_reckon_with_the_same_memory():
    words = ("--gpu-memory-utilization", "0.6", "--max-num-seqs", "16", "--max-num-batched-tokens", "4096")
    simulated = json.loads(run("simulate", *QWEN, *LOAD, *words, "--json").output)
    planned = json.loads(run("plan", *QWEN, "--gpus", "1", "--formula", *words, "--json").output)
    assert simulated["kv_tokens"] == [planned["choices"][0]["memory"]["kv_tokens"]]
    assert planned["choices"][0]["flags"]["gpu_memory_utilization"] == 0.6


def test_stages_are_planned_and_simulated_where_they_are_asked_for():
    words = ("--model", "Qwen/Qwen2.5-7B-Instruct", "--gpu", "L40S-48GB", "--gpus", "2", "--pp", "2")
    planned = json.loads(run("plan", *words, "--formula", "--json").output)
    assert [choice["name"] for choice in planned["choices"]] == ["1xTP1PP2"]
    simulated = json.loads(run("simulate", *words, *LOAD, "--json").output)
    assert simulated["name"] == "1xTP1PP2"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--gpu-memory-utilization", "1.5"), "--gpu-memory-utilization: 1 or less is expected, this is 1.5."),
        (("--engine-version", "newest"), "'newest' is no vLLM version; write it like"),
        (("--engine-version", "0.99"), "vLLM 0.99 is not known; known are the releases up to 0.33.0"),
        (("--kv-cache-dtype", "int3"), "kv_cache_dtype int3 is not one of auto, "),
    ],
)
def test_what_vllm_would_not_take_is_one_sentence(words, sentence):
    for command in (("model", "Qwen/Qwen3-8B"), ("plan", *QWEN), ("simulate", *QWEN)):
        found = run(*command, *words)
        assert isinstance(found.exception, InputError)
        assert sentence in str(found.exception)


def test_rows_that_say_it_themselves_stay():
    rows = [{"id": "a", "notes": "max-num-seqs 32"}, {"id": "b", "notes": ""}]
    filled = fill_rows(rows, EngineOptions(max_num_seqs=64, gpu_memory_utilization=0.8))
    assert [row["notes"] for row in filled] == [
        "max-num-seqs 32; gpu-memory-utilization 0.8",
        "gpu-memory-utilization 0.8; max-num-seqs 64",
    ]
    starts = [{"measured_kv_tokens": "", "measured_weights_gib": "", "max_num_seqs": "8", "vllm_version": ""}]
    (start,) = fill_rows(starts, EngineOptions(max_num_seqs=64, engine_version="0.19.0"))
    assert (start["max_num_seqs"], start["vllm_version"]) == ("8", "0.19.0")
