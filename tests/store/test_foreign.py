"""Runs of other load generators: read as they come, written and read back, compared with ours."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from atoll.analyse.summary import summarise
from atoll.errors import BadRun, InputError
from atoll.store.folder import read_run
from atoll.store.foreign import READERS, WRITERS, read_foreign
from atoll.store.foreign.shape import Kept
from atoll.traffic.record import Outcome, Record, RecordTable, TokenSource
from atoll.workflows.compare import compare_folders
from atoll.workflows.exchange import export_run, import_run

DATA = Path(__file__).parents[1] / "data" / "foreign"


def read(name, tool=None):
    (found,) = read_foreign((DATA / name).read_text(), origin=name, tool=tool)
    return found


def table():
    """Twelve requests of two replicas, one failed and one cut short."""
    records = []
    for number in range(12):
        sent = 0.1 * number
        times = tuple(sent + 0.2 + 0.02 * k + 0.001 * (number % 3) for k in range(10))
        records.append(
            Record(
                number=number,
                user=number % 3,
                sent_s=sent,
                first_byte_s=sent + 0.1,
                token_s=times,
                done_s=times[-1] + 0.001,
                prompt_tokens=100 + number,
                output_tokens=10,
                status=200,
                replica=str(number % 2),
            )
        )
    records[4] = replace(
        records[4],
        token_s=(),
        outcome=Outcome.FAILED,
        error="http_503",
        detail="overloaded",
        status=503,
        output_tokens=0,
    )
    records[9] = replace(
        records[9],
        token_s=records[9].token_s[:3],
        outcome=Outcome.CANCELLED,
        error="interrupted",
        output_tokens=3,
        token_source=TokenSource.CHUNKS,
    )
    return RecordTable.from_records(records)


def kept():
    records = table()
    return Kept(
        name="mine",
        model="m",
        url="http://h",
        started_at=1.7e9,
        table=records,
        summary=summarise(records),
        users=3,
    )


def test_a_detailed_result_of_vllm_has_its_requests():
    found = read("vllm-detailed.json")
    assert found.tool == "vllm bench serve"
    assert found.summary.requests.ok == 60
    # The file's own figures: median_ttft_ms 201.5414955, mean_e2el_ms 1182.3337, mean_tpot_ms 20.0098.
    assert found.summary.ttft_s.p50 == pytest.approx(0.2015414955)
    assert found.summary.tpot_s.mean == pytest.approx(0.0200098, rel=2e-3)
    assert found.summary.itl_s.mean == pytest.approx(0.0196096315, rel=1e-6)
    assert found.table is not None
    assert found.table.sent_s.min() == 0


def test_a_result_of_vllm_without_requests_has_its_figures():
    found = read("vllm.json")
    assert found.table is None
    assert found.summary.ttft_s.p50 == pytest.approx(0.2015414955)
    assert found.summary.ttft_s.p95 is None
    assert found.summary.requests.ok == 60


def test_guidellm():
    found = read("guidellm.json")
    assert found.tool == "guidellm"
    counts = found.summary.requests
    assert (counts.sent, counts.ok, counts.cancelled) == (10, 8, 2)
    assert found.summary.ttft_s.p50 == pytest.approx(0.206, abs=0.008)
    assert found.summary.itl_s.mean is None
    assert found.table.output_tokens[0] == 50


def test_aiperf_figures_from_json_and_csv():
    from_json, from_csv = read("profile_export_aiperf.json"), read("profile_export_aiperf.csv")
    assert from_json.model == "truth"
    for found in (from_json, from_csv):
        assert found.tool == "aiperf"
        assert found.summary.requests.ok == 25
        assert found.summary.ttft_s.mean == pytest.approx(0.2056109, abs=1e-5)
        assert found.summary.itl_s.p50 == pytest.approx(0.019985, abs=1e-5)
        assert found.summary.output_tokens_per_s == pytest.approx(208.97, abs=0.01)


def test_aiperfs_figures_are_by_the_servers_usage_where_its_own_recount_differs():
    for name in ("aiperf-figures-recounted.json", "aiperf-figures-recounted.csv"):
        found = read(name)
        assert found.summary.tpot_s.mean == pytest.approx(0.0031, rel=0.01)  # 1.3 ms by AIPerf's 46 tokens an answer
        assert found.summary.output_tokens_per_s == pytest.approx(1027, rel=0.01)  # 2,379 by them
        assert "20 tokens an answer; AIPerf's own recount is 46" in found.notes[1]


def test_rates_of_requests_whose_chunks_are_not_told_are_by_the_time_between_their_ends():
    found = read("guidellm-concurrent.json")
    assert found.summary.requests_per_s == pytest.approx(16 / 0.325, rel=0.02)
    assert found.summary.output_tokens_per_s == pytest.approx(20 * 16 / 0.325, rel=0.02)


def test_aiperf_records():
    found = read("profile_export.jsonl")
    assert found.summary.requests.ok == 8
    assert len(found.table.token_times(0)) == 50
    assert found.summary.ttft_s.mean == pytest.approx(0.2056, abs=0.006)


# Files of one and the same load, which other tools wrote: mean TPOT near 12.8 ms, 50 tokens an answer.
OTHERS = {
    "aiperf-recounted.jsonl": ("aiperf", 4, 0.0127, 50),  # its own tokenizer counts 84; the usage goes first
    "per_request_lifecycle_metrics.json": ("inference-perf", 3, 0.0128, 50),
    "benchmark_summary.json": ("evalscope", 64, 0.0127, None),
    "D128_50_text-to-text_num_concurrency_8_time_7s.json": ("genai-bench", 73, 0.0135, 50),
    "guidellm.csv": ("guidellm", 64, 0.0126, None),
    "loc_stats.csv": ("locust", 56, None, None),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_other_tools_are_imported_with_what_they_hold(tmp_path, name):
    tool, count, tpot, tokens = OTHERS[name]
    ((place, found),) = import_run(DATA / name, folder=tmp_path / "run")
    assert (found.tool, found.summary.requests.ok) == (tool, count)
    assert found.summary.tpot_s.mean == (tpot if tpot is None else pytest.approx(tpot, rel=0.02))
    assert found.summary.e2e_s.p50 > 0
    if tokens is not None:
        assert set(found.table.output_tokens.tolist()) == {tokens}
    assert read_run(place).summary == found.summary
    assert found.notes or tool in {"aiperf", "inference-perf"}


def test_a_tools_folder_is_taken_by_the_file_that_has_most(tmp_path):
    for name in ("profile_export.jsonl", "profile_export_aiperf.json"):
        (tmp_path / "artifacts" / "m").mkdir(parents=True, exist_ok=True)
        (tmp_path / "artifacts" / "m" / name).write_text((DATA / name).read_text())
    ((_, found),) = import_run(tmp_path / "artifacts", folder=tmp_path / "run")
    assert len(found.table) == 8
    for name in ("D128_50_text-to-text_num_concurrency_8_time_7s.json", "loc_stats.csv"):
        folder = tmp_path / name.partition("_")[0]
        folder.mkdir()
        (folder / name).write_text((DATA / name).read_text())
        import_run(folder, folder=tmp_path / f"run of {name}")
    (tmp_path / "artifacts" / "profile_export.jsonl").write_text("")
    with pytest.raises(InputError, match=r"has 2 results, .*Name one"):
        import_run(tmp_path / "artifacts", folder=tmp_path / "run3")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no result of another load generator"):
        import_run(tmp_path / "empty", folder=tmp_path / "run2")


def test_a_count_of_the_clients_own_is_told_of():
    found = read("summary_lifecycle_metrics.json")
    assert "its client counted other tokens than the server" in found.notes[1]


def test_completions_of_vllm_have_no_role_chunk():
    plain = json.loads((DATA / "vllm-detailed.json").read_text())
    for kind, notes in (("openai", ()), ("openai-chat", ("the role chunk counts as the first token there",))):
        told = json.dumps({key: value for key, value in plain.items() if key != "backend"} | {"endpoint_type": kind})
        assert read_foreign(told, origin="x")[0].notes == notes


@pytest.mark.parametrize("tool", sorted(set(READERS) & set(WRITERS)))
def test_what_is_written_is_read_back(tool):
    ours = kept()
    (found,) = read_foreign(WRITERS[tool](ours), origin="x", tool=tool)
    counts = found.summary.requests
    assert counts.ok == 10
    assert counts.sent == counts.ok + counts.failed + counts.cancelled == 12
    for measure in ("e2e_s",) if tool == "locust" else ("ttft_s", "tpot_s", "e2e_s"):
        for figure in ("mean", "p50", "p99"):
            wanted = getattr(getattr(ours.summary, measure), figure)
            assert getattr(getattr(found.summary, measure), figure) == pytest.approx(wanted, rel=1e-4), (
                measure,
                figure,
            )
    if found.table is not None:
        assert found.table.output_tokens.tolist() == ours.table.output_tokens.tolist()
        if tool != "genai-bench":  # which does not keep when a request was sent
            assert found.table.sent_s == pytest.approx(ours.table.sent_s, abs=1e-6)


@pytest.mark.parametrize("tool", ["vllm", "aiperf-records", "inference-perf"])
def test_formats_with_every_gap_keep_every_gap(tool):
    ours = kept()
    (found,) = read_foreign(WRITERS[tool](ours), origin="x")
    assert found.summary.itl_s.mean == pytest.approx(ours.summary.itl_s.mean, rel=1e-6)
    assert found.table.token_times(0) == pytest.approx(ours.table.token_times(0), abs=1e-6)


@pytest.mark.parametrize("tool", sorted(set(READERS)))
def test_a_written_file_is_recognised_without_being_told(tool):
    found = read_foreign(WRITERS[tool](kept()), origin="x")[0]
    told = read_foreign(WRITERS[tool](kept()), origin="x", tool=tool)[0]
    assert found.tool == told.tool
    assert found.summary == told.summary


@pytest.mark.parametrize("text", ["", "{}", "[]", "nope", '{"benchmarks": 5}', "a,b\n1,2\n", '{"completed": 3}'])
def test_anything_else_is_refused_in_one_sentence(text):
    with pytest.raises(BadRun, match="is no result of"):
        read_foreign(text, origin="x.json")


def test_prometheus_text_is_read_by_its_own_library():
    from prometheus_client.parser import text_string_to_metric_families

    families = {family.name: family for family in text_string_to_metric_families(WRITERS["prometheus"](kept()))}
    ok = [sample for sample in families["atoll_requests"].samples if sample.labels["outcome"] == "ok"]
    assert ok[0].value == 10
    assert families["atoll_ttft_seconds"].samples[0].labels["quantile"] == "0.5"
    assert families["atoll_failures"].samples[0].labels["class"] == "http_503"


def test_a_foreign_run_is_compared_with_one_of_ours(tmp_path):
    for name, tool in (("theirs", "vllm"), ("others", "guidellm")):
        (tmp_path / f"{name}.json").write_text(WRITERS[tool](kept()))
        import_run(tmp_path / f"{name}.json", folder=tmp_path / name)
    result = compare_folders([tmp_path / "theirs", tmp_path / "others"])
    assert [run.name for run in result.runs] == ["theirs", "others"]
    assert {difference.measure for difference in result.comparisons[0].differences} >= {"ttft_s"}
    again = export_run(tmp_path / "theirs", "vllm")
    assert read_foreign(again, origin="x")[0].summary.requests.ok == 10


def test_figures_alone_are_kept_too(tmp_path):
    import_run(DATA / "profile_export_aiperf.json", folder=tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert run.summary.requests.ok == 25
    assert len(run.table) == 0
    with pytest.raises(InputError, match="already holds"):
        import_run(DATA / "profile_export_aiperf.json", folder=tmp_path / "run")


def test_the_gaps_of_a_table_without_a_token_clock_are_none():
    found = read_foreign(WRITERS["csv"](kept()), origin="x")[0]
    values, counts = found.table.gaps(np.ones(len(found.table), dtype=bool))
    assert len(values) == len(counts) == 0


VLLM = {
    "completed": 2, "request_throughput": 1.0, "model_id": "m", "start_times": [0.0, 1.0], "latencies": [1.0, 1.0],
    "ttfts": [0.1, 0.1], "itls": [[0.1], [0.1]], "input_lens": [5, 5], "output_lens": [2, 2], "errors": ["", ""],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ttfts": ["x", None]}, "is no whole result of vllm"),
        ({"itls": [[0.1]]}, "is no whole result of vllm"),
        ({"output_lens": [[1], {}]}, "is no whole result of vllm"),
        ({"output_lens": [10**40, 1]}, "is no whole result of vllm"),
        ({"input_lens": None}, "is no whole result of vllm"),
        ({"ttfts": [3.2e7, 0.1]}, r"request 0 has the time 3.2e\+07 s for its first token"),
        ({"ttfts": [-5.0, 0.1]}, "request 0 has the time"),
        ({"output_lens": [10**12, 1]}, "request 0 has 1000000000000 output tokens"),
        ({"input_lens": [5, -1]}, "request 1 has -1 prompt tokens"),
    ],
)
def test_what_cannot_have_been_measured_is_refused_in_one_sentence(change, said):
    assert read_foreign(json.dumps(VLLM), origin="f.json")[0].summary.requests.ok == 2
    with pytest.raises(BadRun, match=said):
        read_foreign(json.dumps(VLLM | change), origin="f.json")


def test_bytes_of_any_kind_are_no_result():
    with pytest.raises(BadRun, match="f is no result of vllm, guidellm"):
        read_foreign("a\r\x00b\rc" * 50, origin="f")
