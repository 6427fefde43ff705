"""Rows of measurements become predictions, or a reason why not; never a traceback."""

import csv
import io
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.errors import InputError
from atoll.layout.layout import Policy, Router
from atoll.model.catalog import find_card
from atoll.traffic.workload import Start
from atoll.workflows.measured_rows import Case, Measures, cases_or_reasons, read_rows
from atoll.workflows.validate import PredictedRow, group_errors, predict_case, validate_rows

TABLE = Path(__file__).parents[1] / "data/validation/measured.csv"
ROWS = {row["id"]: row for row in read_rows(TABLE.read_text(), origin="measured.csv")}
QWEN = ROWS["aic-h100-qwen3-32b-002"]
SMALL = {
    "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_size": 256, "intermediate_size": 512,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
    "max_position_embeddings": 4096, "torch_dtype": "bfloat16",
}  # fmt: skip


def case_of(**changes):
    ((_, case),) = cases_or_reasons([{**QWEN, **changes}])
    return case


def test_a_dense_row_on_h100_is_predicted_within_its_aim():
    (row,) = validate_rows([QWEN]).rows
    assert row.measured.tpot_s == pytest.approx(0.0117584)
    assert row.predicted.tpot_s == pytest.approx(row.measured.tpot_s, rel=0.06)
    assert row.predicted.output_tokens_per_s > 0


def test_tensor_parallel_sizes_come_out_in_the_measured_order():
    rows = [
        row
        for name, row in ROWS.items()
        if name.startswith("aic-h100-qwen3-32b-") and row["concurrency"] in {"8", "64"}
    ]
    (group, *_) = validate_rows(rows).groups
    assert (group.order_by_latency.right, group.order_by_latency.cases) == (2, 2)
    assert group.order_by_gpu_throughput.right == 2
    assert group.tpot.mean_abs < 0.06


def test_lengths_are_drawn_as_their_column_says():
    def lengths(spread, prompt="1024", **changes):
        load = case_of(length_spread=spread, input_tokens=prompt, **changes).workload
        return load.prompt.kind, load.output.kind, load.prompt.low, load.prompt.high

    assert lengths("0.8-1.0") == ("uniform", "uniform", 819, 1024)
    assert lengths("0.8-1.0 fixed") == ("uniform", "fixed", 819, 1024)
    assert lengths("fixed")[:2] == ("fixed", "fixed")
    assert lengths("sharegpt", "217") == ("lognormal", "lognormal", 4, 1024)
    assert lengths("")[:2] == ("uniform", "uniform")  # a sweep's nominal lengths
    assert lengths("", "205.8")[:2] == ("fixed", "uniform")  # a measured mean
    assert lengths("", concurrency="1")[:2] == ("fixed", "fixed")
    assert lengths("", "217", notes="ShareGPT")[:2] == ("lognormal", "lognormal")


def test_the_number_of_prompts_is_its_columns_or_ten_a_user():
    assert case_of().workload.requests == 80
    assert case_of(prompts="100").workload.requests == 100
    assert case_of(prompts="100", concurrency="", request_rate="inf").workload.users == 100
    assert case_of(prompts="100", concurrency="", request_rate="2").workload.requests == 100


def test_several_engines_stand_behind_the_router_that_a_row_names():
    def router(words):
        found = case_of(router=words, replicas="2", tp="2")
        return found if isinstance(found, str) else found.layout.router

    assert router("") == router("vllm data parallel") == Router()
    assert router("round_robin") == Router(policy=Policy.ROUND_ROBIN)
    alone = Router(policy=Policy.LEAST_CONN, workers=4, shared_zone=False)
    assert router("least_conn; workers 4; shared zone no") == alone
    assert router("least_conn; workers auto; shared zone yes") == Router(workers=64)
    assert "does not model" in router("litellm simple-shuffle")
    assert "not understood" in router("least_conn; workers many")


def test_users_start_as_their_column_says():
    assert case_of(start="at_once").workload.start == case_of(start="").workload.start == Start.AT_ONCE
    assert case_of(start="ramp 45s").workload.start == 45
    assert case_of(start="spread", ttft_ms_mean="100", tpot_ms_mean="10").workload.start == pytest.approx(
        0.1 + 128 * 0.01
    )
    assert "known are at_once" in case_of(start="whenever")


def test_a_warm_cache_has_seen_every_prompt_and_one_that_is_off_none():
    warm = case_of(prefix_cache="warm", prompts="20")
    assert (warm.workload.distinct_prompts, warm.warm_up_rounds) == (20, 3)  # 8 users: 24 requests before
    assert not case_of(prefix_cache="off").layout.flags.enable_prefix_caching
    assert case_of(prefix_cache="cold").layout.flags.enable_prefix_caching
    hot, cold = (
        validate_rows([{**QWEN, "length_spread": "fixed", "prompts": "8", "prefix_cache": words}])
        for words in ("warm", "cold")
    )
    assert hot.rows[0].predicted.ttft_s < 0.5 * cold.rows[0].predicted.ttft_s


def test_a_config_is_found_beside_the_table(tmp_path):
    card = find_card("Qwen/Qwen3-32B")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.json").write_text(json.dumps(SMALL))
    header, row = (
        "id,model,gpu,n_gpu,engine,config,input_tokens,output_tokens,concurrency,tpot_ms_mean\n",
        "a,{},H100 SXM 80GB,1,vllm,{},100,100,1,9\n",
    )
    rows = read_rows(
        header + row.format("own/tiny", "c/config.json") + row.format("own/tiny", "none.json"),
        origin="t.csv",
        folder=tmp_path,
    )
    found = [case for _, case in cases_or_reasons(rows)]
    assert found[0].card.layers == 2 != card.layers
    assert found[1] == "unknown model 'own/tiny'"


def test_all_at_once_and_poisson():
    burst = case_of(concurrency="", request_rate="inf", notes="100 prompts at once")  # words, where there is no column
    assert (burst.workload.users, burst.workload.requests) == (100, 100)
    assert case_of(concurrency="", request_rate="4", notes="200 prompts").workload.rate == 4


def test_engine_settings_are_read_from_the_notes():
    case = case_of(notes="max-num-seqs 128, max-num-batched-tokens 2048, KV blocks 19251, enforce-eager")
    flags = case.layout.flags
    assert (flags.max_num_seqs, flags.max_num_batched_tokens, flags.enforce_eager) == (128, 2048, True)
    assert case.kv_blocks == 19251


def test_prompts_that_come_again_are_counted_in_their_column():
    assert ROWS["aic-h200-llama-3.1-8b-instruct-fp8-010"]["distinct_prompts"] == "100"
    assert case_of(distinct_prompts="40").workload.distinct_prompts == 40
    assert case_of().workload.distinct_prompts is None


def test_aiperf_warms_up_with_a_request_a_user():
    """The counted run begins for all at once, with the first prompts in the cache: no user waits for all the others."""
    row = ROWS["aic-h200-llama-3.1-8b-instruct-fp8-010"]
    ((_, case),) = cases_or_reasons([row])
    assert (case.warm_up_rounds, case.workload.requests) == (1, 1280)
    assert case_of().warm_up_rounds == 0
    warm, cold = predict_case(case), predict_case(replace(case, warm_up_rounds=0))
    assert warm.ttft_s == pytest.approx(case.measured.ttft_s, rel=0.25)
    assert cold.ttft_s > 2 * warm.ttft_s
    assert warm.output_tokens_per_s == pytest.approx(128_000 / 22.1, rel=0.05)  # 128 users, TTFT + 999 x TPOT


def test_inference_perf_goes_through_its_prompts_in_a_loop():
    ((_, case),) = cases_or_reasons([ROWS["blis-62-s0"]])
    load = case.workload
    assert (load.rate, load.requests, load.distinct_prompts) == (2.5, 1500, 45)  # 600 s; 9 prompts x 5 users


def test_a_script_that_goes_through_its_rates_finds_its_prompts_cached():
    """run_benchmark.sh of the source: seed 42, rates 32, 16, 8, 4, 1, the same 200 prompts for each."""
    row = ROWS["iog-1qps_acemath-7b-instruct_1xh100-pcie"]
    ((_, case),) = cases_or_reasons([row])
    assert (case.arrivals.seed, case.arrivals.rates_before) == (42, (32, 16, 8, 4))
    (found,) = validate_rows([row]).rows
    # 200 requests in 187.6 s and the last answer's 1.7 s: the source's 189.3 s.
    assert found.predicted.output_tokens_per_s == pytest.approx(found.measured.output_tokens_per_s, rel=0.02)
    (alone,) = validate_rows([{**row, "arrival_seed": "", "rates_before": ""}]).rows
    assert found.predicted.ttft_s < 0.9 * alone.predicted.ttft_s


def test_expert_parallel_cuts_no_blocks_of_weights():
    (row,) = validate_rows([ROWS["gpustack-qwen3-235b-a22b-h100-02"]]).rows
    assert row.predicted.output_tokens_per_s == pytest.approx(row.measured.output_tokens_per_s, rel=0.3)


def test_cards_without_peer_access_take_longer():
    pair = {"gpu": "H100 PCIe 80GB", "n_gpu": "2", "tp": "2", "interconnect": "PCIe"}
    (plain, without) = validate_rows([{**QWEN, **pair}, {**QWEN, **pair, "interconnect": "PCIe (no P2P)"}]).rows
    assert without.predicted.tpot_s > 1.1 * plain.predicted.tpot_s


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"engine": "sglang"}, "engine sglang"),
        ({"model": "no/such-model"}, "unknown model"),
        ({"gpu": "MI250X"}, "unknown GPU"),
        ({"gpu": ""}, "no GPU"),
        ({"input_tokens": "many"}, "not a number"),
        ({"tpot_ms_mean": "", "ttft_ms_mean": ""}, "was measured"),
        ({"concurrency": ""}, "concurrency nor request rate"),
        ({"notes": "MTP n=3 speculative decoding"}, "speculative"),
        ({"interconnect": "200 GbE CX7"}, "nodes"),
        ({"output_tokens": ""}, "length"),
        ({"tpot_ms_mean": "-3"}, "cannot be"),
        ({"tp": "", "n_gpu": ""}, "neither tp nor n_gpu"),
        ({"tp": "64"}, "64 GPUs"),
        ({"doubt": "concurrency"}, "planned"),
        ({"length_spread": "zipf"}, "length_spread"),
        ({"prompts": "many"}, "not a number"),
        ({"concurrency": "", "request_rate": "4", "arrival_seed": "1", "rates_before": "8, 4"}, "rates_before"),
    ],
)
def test_what_cannot_be_expressed_is_skipped_with_its_reason(changes, reason):
    found = case_of(**changes)
    assert isinstance(found, str)
    assert reason in found


CELLS = st.one_of(
    st.sampled_from(
        ["", "-", "nan", "inf", "-1", "0", "1e999", "١٢", "1,024", "NULL", "8", "1024", "0.5", "\x00", "a\nb"]
    ),
    st.text(max_size=12),
    st.floats().map(str),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(QWEN)), CELLS, max_size=6))
def test_any_row_becomes_a_case_or_a_reason(changes):
    found = case_of(**changes)
    assert isinstance(found, Case) or found


def test_every_row_of_the_table_becomes_a_case_or_a_reason():
    found = [case for _, case in cases_or_reasons(list(ROWS.values()))]
    assert len(found) == 384
    assert sum(isinstance(case, Case) for case in found) > 250


def test_a_table_without_the_needed_columns_is_refused():
    with pytest.raises(InputError, match="column model is missing"):
        read_rows("id,gpu\n1,H100\n", origin="table.csv")


def test_errors_of_a_family():
    case = case_of()
    twice = Measures(ttft_s=case.measured.ttft_s * 2, tpot_s=case.measured.tpot_s * 0.9)
    (group,) = group_errors(
        [PredictedRow(case=case, predicted=twice), PredictedRow(case=case, predicted=case.measured)]
    )
    assert (group.ttft.mean_abs, group.ttft.bias) == (pytest.approx(0.5), pytest.approx(0.5))
    assert (group.tpot.mean_abs, group.tpot.median_abs, group.tpot.bias) == pytest.approx((0.05, 0.05, -0.05))


def test_the_command_prints_one_document(tmp_path):
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(QWEN))
    writer.writeheader()
    writer.writerows([QWEN, {**QWEN, "id": "odd", "engine": "trt"}])
    (tmp_path / "table.csv").write_text(text.getvalue())
    done = subprocess.run(
        [sys.executable, "-m", "atoll", "validate", str(tmp_path / "table.csv"), "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert set(found["rows"][0]) >= {"id", "measured", "predicted"}
    assert set(found["rows"][0]["predicted"]) == {"ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s"}
    assert found["rows"][1] == {"id": "odd", "skipped": "engine trt: only vLLM's scheduler is modelled"}
    assert found["groups"][0]["n"] == 1
