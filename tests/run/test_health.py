"""Each real log becomes a sentence with what to do; waiting ends as soon as the answer is known."""

import asyncio
from pathlib import Path

import pytest

from atoll.errors import StartFailed
from atoll.outside.clock import SystemClock
from atoll.run.health import Watched, explain_log, failure_sentence, log_tail, wait_until_healthy
from stand_ins.clock import ManualClock
from stand_ins.openai_server import Manners, OpenAiServer
from stand_ins.patience import PATIENCE_S

LOGS = Path(__file__).parents[1] / "data" / "engine_logs"

SAID = {
    "port_taken": "its port is taken by another program",
    "nginx_port_taken": "127.0.0.1:8080 is taken by another program",
    "unknown_option": "this engine version does not know --use-v2-block-manager",
    "model_name_offline": "the model is not on this machine and the hub cannot be reached",
    "no_such_folder": "the model was not found",
    "model_not_found_dir": "the model was not found",
    "no_weights": "/models/tiny holds no model weights",
    "context_above_model": "max_model_len 99999 is above the model's own 2048",
    "heads_not_divisible": "4 attention heads cannot be split over 3 GPUs",
    "kv_too_small": "one request of 1000000 tokens needs 1.91 GiB of KV cache and 1.0 GiB are left",
    "out_of_memory_cpu": "main memory is exhausted (46.1 GB were asked for)",
    "memory_not_free": "4000.0 GiB of main memory are wanted for the KV cache and 12.9 are free",
    "gpu_memory_taken": "only 19.77 of 22.05 GiB are free on its GPU",
    "gpu_kv_too_small": "one request of 262144 tokens needs 24.0 GiB of KV cache and 3.18 GiB are left",
    "gpu_kv_too_small_v0": "one request may have 32768 tokens and the KV cache holds 7344",
    "gpu_no_cache_memory": "no memory is left for the KV cache",
    "gpu_out_of_memory": "the GPU is out of memory",
}


def test_every_kept_log_is_explained():
    assert {path.stem for path in LOGS.glob("*.log")} == set(SAID)


@pytest.mark.parametrize("name", SAID)
def test_a_log_becomes_a_cause_and_a_remedy(name):
    reason = explain_log((LOGS / f"{name}.log").read_text())
    assert reason.cause == SAID[name]
    assert reason.remedy.endswith(".")


def test_an_unknown_log_is_shown_instead(tmp_path):
    log = tmp_path / "replica-0.log"
    log.write_text("\n".join(f"line {n}" for n in range(50)) + "\n\x1b[31mSomething odd\x1b[0m\n")
    sentence = failure_sentence(watched(log=log), how="ended with exit code 3")
    assert sentence.startswith("replica-0 (GPUs 0, 1) ended with exit code 3. The end of ")
    assert sentence.endswith("Something odd")
    assert "line 10\n" not in sentence


def test_no_log_at_all(tmp_path):
    assert log_tail(tmp_path / "none", lines=5) == ""
    assert failure_sentence(watched(log=tmp_path / "none"), how="ended").endswith("it printed nothing")


def test_our_own_sentence_is_passed_on(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("atoll: the KV cache holds 10 tokens; lower max_model_len.\n")
    assert failure_sentence(watched(log=log), how="ended with exit code 1") == (
        f"replica-0 (GPUs 0, 1) ended with exit code 1: the KV cache holds 10 tokens. Lower max_model_len."
        f" Its log: {log}"
    )


def watched(*, url: str = "http://127.0.0.1:9/health", log: Path = Path("/nowhere")) -> Watched:
    return Watched(name="replica-0", where="GPUs 0, 1", health_url=url, log=log)


def test_an_answer_ends_the_wait():
    said = []
    with OpenAiServer() as server:
        one = watched(url=f"{server.url}/health")
        asyncio.run(
            wait_until_healthy([one], clock=SystemClock(), timeout_s=PATIENCE_S, end_of=lambda _: None, say=said.append)
        )
    assert said[0].startswith("replica-0 answers after ")


def test_an_end_is_noticed_before_any_answer():
    with pytest.raises(StartFailed, match=r"replica-0 \(GPUs 0, 1\) was killed by signal 9"):
        asyncio.run(wait_until_healthy([watched()], clock=ManualClock(), timeout_s=5, end_of=lambda _: -9))


def test_one_failure_ends_the_wait_for_all():
    with OpenAiServer(Manners(unhealthy=True)) as server:
        stuck = watched(url=f"{server.url}/health")
        ended = Watched(name="router", where="", health_url="http://127.0.0.1:9/", log=Path("/nowhere"))
        codes = {"replica-0": None, "router": 1}
        with pytest.raises(StartFailed, match="router ended with exit code 1"):
            asyncio.run(wait_until_healthy([stuck, ended], clock=SystemClock(), timeout_s=PATIENCE_S, end_of=codes.get))


def test_patience_ends_with_what_was_last_heard():
    clock = ManualClock(flows=True)
    patience = pytest.raises(StartFailed, match=r"did not become healthy in time \(.*answered 503")
    with OpenAiServer(Manners(unhealthy=True)) as server, patience:
        one = watched(url=f"{server.url}/health")
        asyncio.run(wait_until_healthy([one], clock=clock, timeout_s=30, end_of=lambda _: None))
    assert sum(clock.slept) == pytest.approx(30)
