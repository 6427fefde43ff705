"""atoll simulate, as a user runs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from atoll.store.catalog import Query
from atoll.workflows.runs import list_runs

STUDY = Path(__file__).parents[2] / "examples" / "four-h100-nvl" / "study.yaml"
PLAIN = (
    *("--gpu", "H100-SXM-80GB", "--gpus", "4", "--tp", "2", "--replicas", "2"),
    *("--model", "Qwen/Qwen2.5-32B-Instruct", "--users", "30", "--prompt", "2000", "--output", "1500"),
)


def atoll(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "atoll", "simulate", *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_plain_form_gives_one_summary():
    done = atoll(*PLAIN, "--requests", "300", "--json")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["requests"] == {"sent": 300, "ok": 300, "failed": 0, "cancelled": 0}
    assert set(summary["ttft_s"]) == {"mean", "p50", "p90", "p95", "p99", "max"}
    assert len(summary["per_replica"]) == 2
    assert summary["output_tokens_per_s"] > 1000
    assert summary["policy"] == "least_conn"


def test_tables_for_a_person(tmp_path):
    done = atoll(*PLAIN, "--requests", "60", "--fail", "1@20s-30s", "--slo-ttft", "2s", "-o", "kept", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2xTP2, simulated" in done.stdout
    assert "connection_reset" in done.stdout
    assert (tmp_path / "kept" / "records.parquet").is_file()
    (listed,) = list_runs(Query(), catalog=f"sqlite:{tmp_path / 'runs' / 'runs.db'}")
    assert (listed.name, listed.source, listed.model) == ("kept", "simulated", "Qwen/Qwen2.5-32B-Instruct")


def test_a_study_gives_one_row_a_variant():
    done = atoll(str(STUDY), "--only", "2xTP2", "--only", "1xTP4", "--json")
    assert done.returncode == 0, done.stderr
    runs = json.loads(done.stdout)["runs"]
    assert [run["name"] for run in runs] == ["2xTP2", "1xTP4"]
    assert all(run["summary"]["requests"]["ok"] > 200 for run in runs)


def test_a_study_may_lose_a_replica(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: outage\nbox: {gpu: H100-NVL-94GB, gpus: 2}\nmodel: Qwen/Qwen2.5-7B-Instruct\n"
        "workload: {users: 8, duration: 40s, prompt: 500, output: 200}\nvariants:\n"
        "  - {name: well, replicas: 2}\n  - {name: dead, replicas: 2, fail: [1@10s-20s]}\n"
    )
    done = atoll(str(study), "--json")
    assert done.returncode == 0, done.stderr
    failed = [run["summary"]["requests"]["failed"] for run in json.loads(done.stdout)["runs"]]
    assert failed[0] == 0
    assert failed[1] > 0
    words = atoll(str(study)).stdout
    assert "dead: replica 1 dies at 10 s and is back at 20 s." in words
    assert "well:" not in words
    run = [sys.executable, "-m", "atoll", "study", "run", str(study), "-o", str(tmp_path / "out")]
    ranked = subprocess.run(run, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert ranked.returncode == 0, ranked.stderr
    assert "dead: replica 1 dies at 10 s and is back at 20 s." in ranked.stdout
    refused = subprocess.run([*run[:-1], "x", "--engine", "vllm"], capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert "fail and slow are for virtual time only" in refused.stderr


def test_a_replayed_trace(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text("timestamp,prompt_tokens,output_tokens\n" + "".join(f"{n / 4},{100 + n},20\n" for n in range(40)))
    done = atoll("--gpu", "h100", "--model", "Qwen/Qwen2.5-7B-Instruct", "--trace", str(trace), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["requests"]["ok"] == 40


def test_a_study_may_name_a_trace(tmp_path):
    (tmp_path / "azure.csv").write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        + "".join(f"2023-11-16 18:17:{second:02}.9799600,{500 + second},40\n" for second in range(30))
    )
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: day\nbox: {gpu: H100-NVL-94GB, gpus: 2}\nmodel: Qwen/Qwen2.5-7B-Instruct\n"
        "workload: {trace: azure.csv}\nvariants: [{name: one}, {name: two, replicas: 2}]\n"
    )
    done = atoll(str(study), "--json")
    assert done.returncode == 0, done.stderr
    assert [run["summary"]["requests"]["ok"] for run in json.loads(done.stdout)["runs"]] == [30, 30]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((), "Say which model"),
        (("--model", "Qwen/Qwen2.5-7B-Instruct"), "Say which box"),
        ((*PLAIN, "--policy", "fastest"), "router: policy: 'round_robin', 'least_conn'"),
        ((*PLAIN, "--output", "some"), "'some' is no length in tokens"),
        ((*PLAIN, "--rate", "3"), "not both"),
        (("nowhere.yaml",), "There is no file nowhere.yaml"),
        ((*PLAIN, "--fail", "2@1m"), "there is no replica 2; they are 0-1."),
        ((*PLAIN, "--fail", "1"), "--fail 1: write REPLICA@TIME or REPLICA@TIME-BACK, such as 1@2m-3m."),
        ((*PLAIN, "--fail", "1@soon"), "--fail 1@soon: 'soon' is not a duration."),
        ((*PLAIN, "--slow", "1=0"), "--slow 1=0: write REPLICA=FACTOR, such as 1=1.5."),
        ((*PLAIN, "--kv-cache-dtype", "fp3"), "kv_cache_dtype fp3 is not one of auto, "),
        ((*PLAIN, "--gpus", "6", "--tp", "3"), "cannot be split over 3 GPUs"),
        ((*PLAIN, "--max-num-batched-tokens", "8", "--max-num-seqs", "64"), "8 is less than max_num_seqs 64"),
        ((*PLAIN, "--warmup", "20m", "--duration", "1m"), "leaves nothing of the 60 s"),
        ((*PLAIN, "--burstiness", "2"), "--burstiness is for requests that come at a rate"),
        ((*PLAIN, "--only", "2xTP2"), "--only chooses variants of a study"),
        ((str(STUDY), "--tp", "4"), "is a study with its own layouts, so --tp does not go with it."),
        ((*PLAIN, "--engine-version", "latest"), "'latest' is no vLLM version; write it like 0.32.0."),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_2(arguments, sentence):
    done = atoll(*arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
