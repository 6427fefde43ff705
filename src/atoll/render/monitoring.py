"""What watches a deployment: Prometheus with alert rules, and Grafana with a dashboard."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import dedent
from typing import Any

from atoll.documents import write_yaml
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.render.alerts import DOOR_JOB, ENGINE_JOB, GPU_JOB, HOST_JOB, layout_alerts
from atoll.render.dashboard import dashboard
from atoll.render.parts import Part

MONITORING = "monitoring"  # the folder in a bundle, and the word of `--with`
EXTRAS = (MONITORING,)
PROMETHEUS_PORT = 9090
GRAFANA_PORT = 3000
GPU_PORT = 9400  # of DCGM exporter
HOST_PORT = 9100  # of node exporter
DOOR_PORT = 8081  # of the page on which the door counts; published to nobody
GRAFANA_PASSWORD = "${GRAFANA_PASSWORD:?is made by atoll render and stands in .env}"  # noqa: S105 - a reference
MONITORING_SECRETS = ("GRAFANA_PASSWORD",)
# Tags that others run in public: deepops #1348 (May 2026) for DCGM; below its 4.9, which renames metrics.
PROMETHEUS_IMAGE = "prom/prometheus:v2.54.1"
GRAFANA_IMAGE = "grafana/grafana:11.2.0"
GPU_IMAGE = "nvcr.io/nvidia/k8s/dcgm-exporter:4.5.3-4.8.2-distroless"
HOST_IMAGE = "prom/node-exporter:v1.7.0"
MONITORING_VOLUMES: dict[str, Any] = {"prometheus-data": {}, "grafana-data": {}}
# Prometheus and Grafana are published to this machine, for which Docker wants a network that is not internal.
MONITORING_NETWORKS: dict[str, Any] = {"watch": {}, "meters": {"internal": True}}
_FIELDS = """\
# DCGM field, kind, help. What the dashboard draws and the rules ask for.
DCGM_FI_DEV_GPU_TEMP, gauge, GPU temperature (in C).
DCGM_FI_DEV_POWER_USAGE, gauge, Power draw (in W).
DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION, counter, Total energy consumption since boot (in mJ).
DCGM_FI_DEV_GPU_UTIL, gauge, GPU utilization (in %).
DCGM_FI_DEV_FB_USED, gauge, Framebuffer memory used (in MiB).
DCGM_FI_DEV_FB_FREE, gauge, Framebuffer memory free (in MiB).
DCGM_FI_DEV_XID_ERRORS, gauge, Value of the last XID error encountered.
DCGM_FI_DEV_THERMAL_VIOLATION, counter, Throttling duration due to thermal constraints (in ns).
DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL, counter, Total number of NVLink data CRC errors.
DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL, counter, Total number of NVLink recovery errors.
DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL, counter, Total number of NVLink bandwidth counters for all lanes.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Where Prometheus reads, as host:port; None: there is none."""

    replicas: Sequence[str]  # in the layout's order
    door: str
    gpu: str | None = None
    host: str | None = None


def check_extras(extras: Sequence[str]) -> None:
    """Raises InputError for what there is not."""
    for one in extras:
        if one not in EXTRAS:
            raise InputError(f"--with {one!r} is nothing that atoll renders; there is {' and '.join(EXTRAS)}.")


def monitoring_files(layout: Layout, targets: Targets, *, grafana_reads: str) -> dict[str, str]:
    """Path in the bundle -> text.

    Args:
        layout: whose replicas, cards and targets are watched.
        targets: where.
        grafana_reads: the address of Prometheus as Grafana reaches it.
    """
    cards, host = targets.gpu is not None, targets.host is not None
    made: dict[str, Mapping[str, Any]] = {
        "prometheus.yml": _prometheus(layout, targets),
        "alerts.yml": layout_alerts(layout, cards=cards, host=host),
        "grafana/provisioning/datasources/prometheus.yaml": _data_source(grafana_reads),
        "grafana/provisioning/dashboards/atoll.yaml": _provider(),
    }
    files = {f"{MONITORING}/{path}": write_yaml(document) for path, document in made.items()}
    page = json.dumps(dashboard(layout, cards=cards, host=host), indent=1)
    files[f"{MONITORING}/grafana/dashboards/atoll.json"] = page + "\n"
    if cards:
        files[f"{MONITORING}/dcgm.csv"] = _FIELDS
    return files


def _prometheus(layout: Layout, targets: Targets) -> dict[str, Any]:
    replicas = [
        {"targets": [where], "labels": {"replica": str(number), "gpus": ",".join(map(str, replica.gpus))}}
        for number, (where, replica) in enumerate(zip(targets.replicas, layout.replicas, strict=True))
    ]
    jobs: list[dict[str, Any]] = [{"job_name": ENGINE_JOB, "static_configs": replicas}]
    for job, where in ((DOOR_JOB, targets.door), (GPU_JOB, targets.gpu), (HOST_JOB, targets.host)):
        if where is not None:
            jobs.append({"job_name": job, "static_configs": [{"targets": [where]}]})
    return {
        "global": {"scrape_interval": "5s", "evaluation_interval": "5s"},
        "rule_files": ["alerts.yml"],
        "scrape_configs": jobs,
    }


def _data_source(url: str) -> dict[str, Any]:
    source = {"name": "Prometheus", "type": "prometheus", "uid": "prometheus", "url": url, "isDefault": True}
    return {"apiVersion": 1, "datasources": [source]}


def _provider() -> dict[str, Any]:
    where = {"path": "/var/lib/grafana/dashboards"}
    return {"apiVersion": 1, "providers": [{"name": "atoll", "type": "file", "options": where}]}


def monitoring_services(layout: Layout, *, care: Mapping[str, Any], cards: bool) -> dict[str, Any]:
    """Services for Compose: Prometheus, Grafana, node exporter and, where there are cards, DCGM exporter."""
    return {
        "prometheus": _prometheus_service(care),
        "grafana": _grafana_service(care),
        "node-exporter": _host_service(care),
        **({"dcgm-exporter": _gpu_service(layout, care)} if cards else {}),
    }


def _prometheus_service(care: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image": PROMETHEUS_IMAGE,
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml",
            "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=${ATOLL_KEEP_METRICS:-30d}",
        ],
        "user": "65534:65534",  # the image's own nobody
        "read_only": True,
        "volumes": [
            f"./{MONITORING}/prometheus.yml:/etc/prometheus/prometheus.yml:ro",
            f"./{MONITORING}/alerts.yml:/etc/prometheus/alerts.yml:ro",
            "prometheus-data:/prometheus",
        ],
        "ports": [f"127.0.0.1:${{ATOLL_PROMETHEUS_PORT:-{PROMETHEUS_PORT}}}:9090"],
        "networks": ["watch", "meters", "replicas"],
        "healthcheck": _probe(f"http://127.0.0.1:{PROMETHEUS_PORT}/-/healthy"),
        **care,
    }


def _grafana_service(care: Mapping[str, Any]) -> dict[str, Any]:
    """It asks nobody outside for news, so that a closed network's log stays quiet."""
    quiet = ("REPORTING_ENABLED", "CHECK_FOR_UPDATES", "CHECK_FOR_PLUGIN_UPDATES")
    return {
        "image": GRAFANA_IMAGE,
        "user": "472:0",  # the image's own
        "environment": {
            "GF_SECURITY_ADMIN_PASSWORD": GRAFANA_PASSWORD,
            "GF_USERS_ALLOW_SIGN_UP": "false",
            "GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/var/lib/grafana/dashboards/atoll.json",
            **{f"GF_ANALYTICS_{word}": "false" for word in quiet},
        },
        "read_only": True,
        "tmpfs": ["/tmp", "/var/log/grafana"],  # noqa: S108
        "volumes": [
            f"./{MONITORING}/grafana/provisioning:/etc/grafana/provisioning:ro",
            f"./{MONITORING}/grafana/dashboards:/var/lib/grafana/dashboards:ro",
            "grafana-data:/var/lib/grafana",
        ],
        "ports": [f"127.0.0.1:${{ATOLL_GRAFANA_PORT:-{GRAFANA_PORT}}}:3000"],
        "networks": ["watch", "meters"],
        "depends_on": {"prometheus": {"condition": "service_healthy"}},
        "healthcheck": _probe(f"http://127.0.0.1:{GRAFANA_PORT}/api/health"),
        **care,
    }


def _host_service(care: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "image": HOST_IMAGE,
        "command": ["--path.rootfs=/host"],
        "user": "65534:65534",
        "pid": "host",
        "read_only": True,
        "volumes": ["/:/host:ro,rslave"],
        "networks": ["meters"],
        "healthcheck": _probe(f"http://127.0.0.1:{HOST_PORT}/metrics"),
        **care,
    }


def _gpu_service(layout: Layout, care: Mapping[str, Any]) -> dict[str, Any]:
    """It sees the layout's cards alone. The image is without a shell, so nothing in it can ask whether it lives;
    Prometheus does.
    """
    ids = sorted({gpu for replica in layout.replicas for gpu in replica.gpus})
    device = {"driver": "nvidia", "device_ids": list(layout.box.device_ids(ids)), "capabilities": ["gpu"]}
    return {
        "image": GPU_IMAGE,
        "command": ["-f", "/etc/atoll/dcgm.csv"],
        "volumes": [f"./{MONITORING}/dcgm.csv:/etc/atoll/dcgm.csv:ro"],
        "networks": ["meters"],
        "deploy": {"resources": {"reservations": {"devices": [device]}}},
        "healthcheck": {"disable": True},
        **care,
    }


def _probe(url: str) -> dict[str, Any]:
    test = ["CMD", "wget", "-q", "-O", "/dev/null", url]
    return {"test": test, "interval": "10s", "timeout": "5s", "retries": 6, "start_period": "60s"}


def door_counters(port: int = DOOR_PORT, host: str = "127.0.0.1") -> Part:
    """A page on a port of its own, in Prometheus's text: what the door answered, by replica and class of status.

    Counted when a request ends, also where the client hung up. nginx counts what a worker dropped while it was killed
    as nothing.
    """
    page = f"""\
js_shared_dict_zone zone=atoll_answers:64k type=number;
js_set $atoll_counted door.count_answer;  # evaluated once a request, when its log line is due
access_log /dev/null atoll if=$atoll_counted;
server {{
  listen {host}:{port};
  access_log off;
  location = /metrics {{
    default_type text/plain;
    js_content door.show_answers;
  }}
  location / {{
    return 404;
  }}
}}"""
    return Part(
        http=(page,),
        functions={
            "count_answer": dedent("""\
                function count_answer(r) {
                  var status = String(r.variables.status).charAt(0) + 'xx';
                  ngx.shared.atoll_answers.incr(r.variables.atoll_replica + ' ' + status, 1, 0);
                  return '';
                }"""),
            "show_answers": dedent("""\
                function show_answers(r) {
                  var lines = ['# HELP atoll_door_requests_total Answers of the door.',
                               '# TYPE atoll_door_requests_total counter'];
                  ngx.shared.atoll_answers.items().sort().forEach(function (one) {
                    var words = one[0].split(' ');
                    var labels = '{replica="' + words[0] + '",status="' + words[1] + '"} ';
                    lines.push('atoll_door_requests_total' + labels + one[1]);
                  });
                  r.return(200, lines.join('\\n') + '\\n');
                }"""),
        },
    )
