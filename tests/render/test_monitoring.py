"""What watches a deployment: rules that fire when they should, a dashboard of metrics that there are, a door that counts."""

import json
import re
import shutil
import subprocess
from itertools import combinations

import pytest

from atoll.documents import parse_yaml, write_yaml
from atoll.emulate.meters import Meters
from atoll.emulate.metrics import CacheFacts, Gauges, show_metrics
from atoll.errors import InputError
from atoll.render import RenderSettings, render_bundle
from atoll.render.alerts import layout_alerts
from atoll.render.dashboard import dashboard, queries
from atoll.render.monitoring import check_extras
from atoll.traffic.slo import SLO
from stand_ins.patience import PATIENCE_S

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="no promtool on PATH (Debian: prometheus)")
WATCHED = RenderSettings(extras=("monitoring",), secrets={"GRAFANA_PASSWORD": "x"})


@pytest.fixture
def watched(two_pairs):
    return two_pairs.replace(slo=SLO(ttft_s=0.8))


def promtool(*words: str) -> str:
    done = subprocess.run([PROMTOOL, *words], capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_dashboard_has_its_panels_side_by_side(watched):
    made = dashboard(watched, cards=True, host=True)
    panels = made["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    boxes = [panel["gridPos"] for panel in panels]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"]
        assert apart or b["y"] + b["h"] <= a["y"]
    assert ("Time to first token", "vector(0.8)") in queries(made)


def metrics_of(expressions):
    return {name for text in expressions for name in re.findall(r"(?:vllm:|DCGM_FI_|node_|atoll_)[A-Za-z0-9_]+", text)}


def test_every_metric_is_one_that_somebody_shows(watched, card_of):
    """vLLM's are on the page of the emulator, which is vLLM's; the cards' in the list that their exporter gets."""
    cache = CacheFacts(blocks=10, block_tokens=16, prefix_caching=True, max_model_len=1024)
    gauges = Gauges(running=2, waiting=1, kv_usage=0.25)
    page = show_metrics(Meters(max_model_len=1024), gauges, cache, model="m")
    shown = {re.split(r"[{ ]", line)[0] for line in page.splitlines() if not line.startswith("#")}
    files = render_bundle(watched, card_of(watched), to="compose", settings=WATCHED).files
    shown |= set(re.findall(r"^DCGM_FI_[A-Z0-9_]+", files["monitoring/dcgm.csv"], re.MULTILINE))
    shown |= set(re.findall(r"atoll_door_[a-z_]+", files["door.js"]))
    older = {
        "vllm:gpu_cache_usage_perc",
        "vllm:time_per_output_token_seconds_bucket",
        "vllm:gpu_prefix_cache_hits_total",
        "vllm:gpu_prefix_cache_queries_total",
    }
    rules = parse_yaml(files["monitoring/alerts.yml"], origin="alerts.yml")["groups"][0]["rules"]
    board = json.loads(files["monitoring/grafana/dashboards/atoll.json"])
    asked = metrics_of([text for _, text in queries(board)] + [rule["expr"] for rule in rules])
    assert {name for name in asked - older if not name.startswith("node_")} <= shown
    assert all(rule["annotations"]["source"] for rule in rules)


def test_what_there_is_not_is_not_watched(watched, card_of):
    """An emulated layout has no cards; one without a target has no burning budget; another word is refused."""
    bare = watched.replace(engine="emulated", slo=None)
    files = render_bundle(bare, card_of(bare), to="compose", settings=WATCHED).files
    assert "DCGM" not in "".join(files.values())
    assert "TtftTarget" not in files["monitoring/alerts.yml"]
    assert "dcgm-exporter" not in parse_yaml(files["compose.yaml"], origin="c")["services"]
    with pytest.raises(InputError, match="--with 'grafana' is nothing"):
        check_extras(["grafana"])


def test_a_target_beyond_every_bucket_has_no_rule(watched):
    rules = layout_alerts(watched.replace(slo=SLO(ttft_s=5000)), cards=False, host=False)["groups"][0]["rules"]
    assert not any(rule["alert"].startswith("Ttft") for rule in rules)


@needs_promtool
@pytest.mark.parametrize("form", ["compose", "process"])
def test_prometheus_takes_the_files(form, watched, card_of, tmp_path):
    files = render_bundle(watched, card_of(watched), to=form, settings=WATCHED).files
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    promtool("check", "config", str(tmp_path / "monitoring" / "prometheus.yml"))
    board = json.loads(files["monitoring/grafana/dashboards/atoll.json"])
    rows = [(f"panel:{n}", text.replace("$__rate_interval", "1m")) for n, (_, text) in enumerate(queries(board))]
    rules = [{"record": name, "expr": text} for name, text in rows]
    (tmp_path / "panels.yml").write_text(write_yaml({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", str(tmp_path / "panels.yml"))


UP = {'up{job="engine",replica="0"}': "1x120", 'up{job="engine",replica="1"}': "1x120"}
TTFT = "vllm:time_to_first_token_seconds"
# What is seen (one value a minute) -> the alert that it raises at that minute, and at no time before `quiet`.
SCENES = {
    "a replica is gone": ({'up{job="engine",replica="1"}': "1x9 0x110"}, "ReplicaDown", "12m"),
    "requests wait": ({'vllm:num_requests_waiting{replica="0"}': "0x9 11x110"}, "Queueing", "16m"),
    "the cache is full": ({'vllm:kv_cache_usage_perc{replica="0"}': "0.5x9 0.97x110"}, "KvCacheFull", "16m"),
    "requests are thrown out": ({'vllm:num_preemptions_total{replica="0"}': "0x9 0+10x110"}, "Preempting", "20m"),
    "one runs all": (
        {'vllm:num_requests_running{replica="0"}': "20x120", 'vllm:num_requests_running{replica="1"}': "2x120"},
        "ReplicasUneven",
        "12m",
    ),
    "first tokens are late": (
        {TTFT + '_bucket{le="1.0"}': "0+10x110", TTFT + "_count": "0+100x110"},
        "TtftTargetMissed1h",
        "70m",
    ),
    "the door fails": (
        {
            'atoll_door_requests_total{job="door",status="5xx",replica="0"}': "0+3x110",
            'atoll_door_requests_total{job="door",status="2xx",replica="0"}': "0+100x110",
        },
        "DoorFails",
        "12m",
    ),
    "nginx is gone": ({'up{job="door"}': "0x110"}, "DoorDown", "3m"),
    "a card reports an error": ({'DCGM_FI_DEV_XID_ERRORS{gpu="2"}': "0x5 79x110"}, "GpuError", "7m"),
    "a card is lost": ({f'DCGM_FI_DEV_GPU_TEMP{{gpu="{n}"}}': "60x110" for n in range(3)}, "GpuLost", "5m"),
    "a card is hot": ({'DCGM_FI_DEV_THERMAL_VIOLATION{gpu="1"}': "0+100x110"}, "GpuThrottledByHeat", "9m"),
    "a link recovers": (
        {'DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL{gpu="1"}': "0x5 1x110"},
        "NvlinkErrors",
        "7m",
    ),
    "the disk is full": (
        {
            'node_filesystem_avail_bytes{mountpoint="/",fstype="ext4"}': "4x110",
            'node_filesystem_size_bytes{mountpoint="/",fstype="ext4"}': "100x110",
        },
        "DiskNearlyFull",
        "17m",
    ),
    "memory is gone": (
        {"node_memory_MemAvailable_bytes": "1x110", "node_memory_MemTotal_bytes": "100x110"},
        "MemoryNearlyFull",
        "7m",
    ),
}
HEALTHY = {
    **UP,
    'up{job="door"}': "1x120",
    **{f'DCGM_FI_DEV_GPU_TEMP{{gpu="{n}"}}': "60x120" for n in range(4)},
    'DCGM_FI_DEV_XID_ERRORS{gpu="0"}': "0x120",
    'vllm:num_requests_waiting{replica="0"}': "3x120",
    'vllm:num_requests_running{replica="0"}': "20x120",
    'vllm:num_requests_running{replica="1"}': "18x120",
    'vllm:kv_cache_usage_perc{replica="0"}': "0.9x120",
    TTFT + '_bucket{le="1.0"}': "0+99x120",
    TTFT + "_count": "0+100x120",
    'atoll_door_requests_total{job="door",status="2xx",replica="0"}': "0+100x120",
}


@needs_promtool
def test_each_alert_fires_in_its_scene_and_none_on_a_healthy_box(watched, tmp_path):
    """By promtool's own unit tests of rules."""
    rules = layout_alerts(watched, cards=True, host=True)
    (tmp_path / "alerts.yml").write_text(write_yaml(rules))
    known = {rule["alert"] for rule in rules["groups"][0]["rules"]}
    raised = {name for _, name, _ in SCENES.values()} | {"TtftTargetMissed6h", "TtftTargetMissed3d"}
    assert raised == known
    cases = [
        _case("healthy", HEALTHY, [{"expr": 'ALERTS{alertstate="firing"}', "eval_time": "110m", "exp_samples": []}])
    ]
    for words, (seen, name, when) in SCENES.items():
        ask = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) > bool 0'
        expected = [{"expr": ask, "eval_time": when, "exp_samples": [{"labels": "{}", "value": 1}]}]
        cases.append(_case(words, (UP if "up" not in str(seen) else {}) | seen, expected))
    path = tmp_path / "tests.yml"
    path.write_text(write_yaml({"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": cases}))
    assert "SUCCESS" in promtool("test", "rules", str(path))


def _case(name, seen, expected):
    series = [{"series": metric, "values": values} for metric, values in seen.items()]
    return {"name": name, "interval": "1m", "input_series": series, "promql_expr_test": expected}
