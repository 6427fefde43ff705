"""Every room shows the band of what it predicts, in one shape and alike; what was measured or emulated has none."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

MODEL = "Qwen/Qwen2.5-32B-Instruct"
STUDY = """
name: two
box: {{gpu: {gpu}, gpus: 4}}
model: Qwen/Qwen2.5-32B-Instruct
workload: {{users: 30, requests: 200, prompt: 1500, output: 300}}
variants:
  - {{name: 1xTP4, tensor_parallel: 4}}
  - {{name: 2xTP2, tensor_parallel: 2, replicas: 2}}
  - {{name: 1xTP2, tensor_parallel: 2}}
"""
SHAPE = {"ttft_s", "tpot_s", "e2e_s", "output_tokens_per_s", "coverage", "family", "borrowed", "one_source"}


def atoll(*words, folder):
    done = subprocess.run(
        [sys.executable, "-m", "atoll", *words], capture_output=True, text=True, timeout=120, cwd=folder, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in words else " ".join(done.stdout.split())  # lines are folded


def check(band, summary, *, family):
    """The shape, and that each mean lies inside its interval."""
    assert set(band) == SHAPE
    assert (band["coverage"], band["family"]) == (0.8, family)
    for measure in ("ttft_s", "tpot_s", "e2e_s"):
        low, high = band[measure]
        assert 0 < low < summary[measure]["mean"] < high
    low, high = band["output_tokens_per_s"]
    assert 0 < low < high


def test_plan_shows_a_band_with_every_choice_and_the_ratio_to_the_best(tmp_path):
    words = ("plan", "--gpu", "H100-SXM-80GB", "--gpus", "2", "--model", MODEL, "--users", "8", "--prompt", "500")
    plan = atoll(*words, "--output", "200", "--json", folder=tmp_path)
    best, *others = plan["choices"]
    for choice in plan["choices"]:
        check(choice["band"], choice["predicted"], family="hopper-measured dense")
        assert "error_band" not in choice
    assert best["ratio"] is None
    for choice in others:
        low, high = choice["ratio"]["e2e_s"]
        assert low < choice["predicted"]["e2e_s"]["mean"] / best["predicted"]["e2e_s"]["mean"] < high
    assert any(sentence.startswith(f"Band of {best['name']}") for sentence in plan["verdict"])


SIMULATED = ("--gpus", "4", "--tp", "2", "--replicas", "2", "--model", MODEL, "--users", "8", "--prompt", "500")


def test_simulate_shows_the_band_or_that_none_is_known(tmp_path):
    load = (*SIMULATED, "--output", "100", "--requests", "50")
    known = atoll("simulate", "--gpu", "H100-NVL-94GB", *load, "--json", folder=tmp_path)
    check(known["band"], known, family="hopper-scaled dense")
    assert known["source"] == "simulated"
    words = atoll("simulate", "--gpu", "H100-NVL-94GB", *load, folder=tmp_path)
    assert (
        "Band of 2xTP2 (hopper-scaled dense, one source alone): TTFT -30/+43 %, TPOT -21/+27 %, E2E -18/+21 %, "
        in words
    )
    assert "80% of measurements lie inside the band of a predicted mean." in words
    unknown = atoll("simulate", "--gpu", "L40S-48GB", *load, "--json", folder=tmp_path)
    assert unknown["band"] is None
    assert "2xTP2: no band is known" in atoll("simulate", "--gpu", "L40S-48GB", *load, folder=tmp_path)


def test_a_simulated_study_ranks_by_the_bands_too_and_compare_says_the_same(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.format(gpu="H100-NVL-94GB"))
    found = atoll("study", "run", "study.yaml", "--engine", "simulated", "-o", "out", "--json", folder=tmp_path)
    assert found["source"] == "simulated"
    for variant in found["variants"]:
        check(variant["band"], variant["summary"], family="hopper-scaled dense")
    by_name = {place["name"]: place for place in found["ranking"]}
    for name in ("2xTP2", "1xTP2"):
        low, high = by_name[name]["against_baseline"]["ratio"]["e2e_s"]
        assert 0 < low < high
    compared = atoll("compare", "out/1xTP4", "out/2xTP2", "--json", folder=tmp_path)
    (comparison,) = compared["comparisons"]
    assert comparison["ratio"] == by_name["2xTP2"]["against_baseline"]["ratio"]
    assert compared["runs"][0]["band"] == found["variants"][0]["band"]
    page = (tmp_path / "out").joinpath("report.html").read_text()
    assert "Bands: the small figures" in page
    shown = atoll("study", "show", "out", folder=tmp_path)
    assert "Band of" in shown


def test_a_study_of_cards_that_nobody_measured_says_so(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY.format(gpu="L40S-48GB"))
    found = atoll("study", "run", "study.yaml", "--engine", "simulated", "-o", "out", "--json", folder=tmp_path)
    assert [variant["band"] for variant in found["variants"]] == [None] * 3
    assert {place["against_baseline"]["ratio"] for place in found["ranking"] if place["against_baseline"]} == {None}
    assert "no band is known" in atoll("study", "show", "out", folder=tmp_path)
    assert "no band is known" in (tmp_path / "out/report.html").read_text()
    page = atoll("report", "out", "--lang", "ko", "-o", "ko.html", folder=tmp_path)
    assert "알려진 오차 범위 없음" in (tmp_path / "ko.html").read_text(), page


@pytest.mark.parametrize("source", ["emulated", "measured"])
def test_what_was_measured_or_emulated_has_no_band_but_what_was_said_beforehand_has(source):
    from atoll.analyse.summary import Distribution, RequestCounts, Summary
    from atoll.cost.band import relative_band
    from atoll.inventory.catalog import make_box
    from atoll.layout.layout import Layout, Replica
    from atoll.model.read import read_model
    from atoll.store.folder import Run, RunInfo
    from atoll.traffic.record import RecordTable
    from atoll.workflows.study import VariantResult

    box = make_box("H100-SXM-80GB", 1)
    layout = Layout(name="a", model=MODEL, box=box, replicas=(Replica(gpus=(0,), tensor_parallel=1),))
    said = Summary(
        requests=RequestCounts(sent=1, ok=1, failed=0, cancelled=0),
        duration_s=1.0,
        **{name: Distribution(mean=0.1) for name in ("ttft_s", "itl_s", "tpot_s", "e2e_s")},
        output_tokens_per_s=10.0,
        total_tokens_per_s=10.0,
        requests_per_s=1.0,
    )
    info = RunInfo(name="a", engine="vllm", source=source, atoll_version="0")
    table = RecordTable.from_records([])
    run = Run(path=Path(), info=info, layout=layout, workload=None, table=table, summary=said)
    band = relative_band(layout, read_model(MODEL))
    variant = VariantResult(name="a", layout=layout, run=run, predicted=said, relative_band=band)
    assert variant.band is None
    assert variant.predicted_band == band.around_means(said)
