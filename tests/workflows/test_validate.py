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
from atoll.workflows.measured_rows import Case, Measures, cases_or_reasons, read_rows
from atoll.workflows.validate import PredictedRow, group_errors, predict_case, validate_rows

TABLE = Path(__file__).parents[1] / "data/validation/measured.csv"
ROWS = {row["id"]: row for row in read_rows(TABLE.read_text(), origin="measured.csv")}
QWEN = ROWS["aic-h100-qwen3-32b-002"]


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


def test_nominal_lengths_are_drawn_and_measured_ones_are_kept():
    assert (case_of().workload.prompt.low, case_of().workload.prompt.high) == (819, 1024)
    assert case_of(input_tokens="205.8").workload.prompt.mean == 205.8
    assert case_of().workload.requests == 80  # ten a user


def test_all_at_once_and_poisson():
    burst = case_of(concurrency="", request_rate="inf", notes="100 prompts at once")
    assert (burst.workload.users, burst.workload.requests) == (100, 100)
    assert case_of(concurrency="", request_rate="4", notes="200 prompts").workload.rate == 4


def test_engine_settings_are_read_from_the_notes():
    case = case_of(notes="max-num-seqs 128, max-num-batched-tokens 2048, KV blocks 19251, enforce-eager")
    flags = case.layout.flags
    assert (flags.max_num_seqs, flags.max_num_batched_tokens, flags.enforce_eager) == (128, 2048, True)
    assert case.kv_blocks == 19251


def test_aiperf_sends_a_hundred_prompts_over_and_over():
    """aiconfigurator's bench_run.sh gives aiperf lengths without spread, and no number of prompts."""
    workload = case_of(input_tokens="4000", output_tokens="500").workload
    assert (workload.prompt.kind, workload.prompt.mean, workload.output.mean) == ("fixed", 4000, 500)
    assert workload.distinct_prompts == 100
    assert case_of(input_tokens="8192", output_tokens="1024").workload.distinct_prompts is None
    assert case_of(input_tokens="4000", output_tokens="1000", source_url_or_title="a blog").workload.prompt.low == 3200
    assert case_of(notes="40 distinct prompts").workload.distinct_prompts == 40


def test_aiperf_warms_up_with_a_request_a_user():
    """The counted run begins for all at once, with the first prompts in the cache: no user waits for all the others."""
    row = ROWS["aic-h200-llama-3.1-8b-instruct-fp8-010"]
    ((_, case),) = cases_or_reasons([row])
    assert (case.warm_up_rounds, case.workload.requests) == (1, 1280)
    assert case_of(input_tokens="8192", output_tokens="1024").warm_up_rounds == 0
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
    (alone,) = validate_rows([{**row, "source_url_or_title": "elsewhere"}]).rows
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
        ({"gpu": "MI300X"}, "unknown GPU"),
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
        ({"notes": "concurrency column = batch_size of the row"}, "planned"),
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
    assert len(found) == 380
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
    assert set(found["rows"][0]["predicted"]) == {"ttft_s", "tpot_s", "output_tokens_per_s"}
    assert found["rows"][1] == {"id": "odd", "skipped": "engine trt: only vLLM's scheduler is modelled"}
    assert found["groups"][0]["n"] == 1
