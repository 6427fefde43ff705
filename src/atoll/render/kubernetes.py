"""Plain manifests for Kubernetes with a kustomization: a Deployment for each shape of replica, nginx as the door."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.documents import write_yaml
from atoll.engines import Engine, find_engine, served_name
from atoll.engines.engine import is_path
from atoll.errors import InputError
from atoll.inventory.islands import is_fully_connected
from atoll.layout.layout import Layout, Replica
from atoll.model.card import ModelCard
from atoll.render.bundle import Bundle, RenderSettings
from atoll.render.compose import NGINX_IMAGE, STOP_S, model_inside, project_name
from atoll.render.compose import models_folder as _folder_on_host
from atoll.render.dotenv import show_value
from atoll.render.nginx import CLUSTER, CONTAINER_PORT, render_door
from atoll.render.pool import Pool, UpstreamServer
from atoll.render.tls import refuse_tls
from atoll.render.waiting import start_period_s

name = "kubernetes"
FIRST_PORT = 8000
SECRET = "atoll-api-key"  # noqa: S105 - a name
PROBE_S = 10
APP = "llm"
NODE_MODELS = "/srv/models"  # where neither --models nor the model's own folder says one; the hub's cache
_CHECK = """\
# Stops the pod where its cards are not joined as the layout planned: the scheduler counts GPUs, it knows no NVLink.
import re
import subprocess
import sys

wanted, joined = int(sys.argv[1]), sys.argv[2] == "nvlink"
told = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True).stdout
text = re.sub(r"\\x1b\\[[0-9;]*m", "", told)
rows = [line.split() for line in text.splitlines() if re.match(r"GPU\\d+\\s", line)]
if len(rows) != wanted:
    sys.exit(f"This pod has {len(rows)} GPUs; the layout wants {wanted}.")
apart = [
    f"{row[0]}-GPU{column}: {row[1 + column]}"
    for number, row in enumerate(rows)
    for column in range(len(rows))
    if column > number and not row[1 + column].startswith("NV")
]
if joined and apart:
    sys.exit(f"The layout was planned for cards that NVLink joins; not so here: {', '.join(apart)}. See README.md.")
print(f"{wanted} GPUs as planned.")
"""


def render(layout: Layout, card: ModelCard, settings: RenderSettings) -> Bundle:
    engine = find_engine(layout.engine)
    if engine.emulates:
        raise InputError(
            f"{layout.name}: the emulated engine is for --to process or compose; a cluster gets real ones."
        )
    refuse_tls(settings.tls, "in a cluster it is the ingress's")
    beside = [one for one in (settings.stack, *settings.extras) if one]
    if beside:
        raise InputError(f"{layout.name}: {beside[0]} is for --to compose; --to kubernetes has engines and door alone.")
    shapes = shapes_of(layout)
    space = project_name(layout.name)[:63].strip("-_.").replace("_", "-").replace(".", "-")
    own = {
        f"{shape.name}.yaml": _documents(*_engine_objects(layout, card, settings, shape, engine)) for shape in shapes
    }
    files = {
        "kustomization.yaml": write_yaml(_kustomization(space, [*own])),
        "namespace.yaml": _documents({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}}),
        **own,
        "door.yaml": _documents(*_door_objects(settings)),
        **_door_files(layout, shapes, engine, space),
        "check_island.py": _CHECK,
        "optional/keda.yaml": _scaling_head(layout) + _documents(*(_scaled_object(layout, one) for one in shapes)),
        "optional/hpa.yaml": _scaling_head(layout) + _documents(*(_autoscaler(layout, one) for one in shapes)),
        "optional/servicemonitor.yaml": _documents(_service_monitor()),
        "api-key.env": f"VLLM_API_KEY={show_value(settings.secrets.get('VLLM_API_KEY', ''))}\n",
        "layout.yaml": layout.to_yaml(),
        "README.md": _readme(layout, card, settings, space),
    }
    return Bundle(name=layout.name, files=files, modes={"api-key.env": 0o600})


def models_folder(layout: Layout, settings: RenderSettings) -> str:
    """The folder of every node that is mounted at /models."""
    return _folder_on_host(layout, settings) or NODE_MODELS


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Replicas that are split alike, which a Deployment makes."""

    name: str
    port: int
    replicas: tuple[Replica, ...]

    @property
    def first(self) -> Replica:
        return self.replicas[0]


def shapes_of(layout: Layout) -> list[Shape]:
    """One Deployment each; `llm` where there is one, else `llm-tp2`, `llm-tp1`.

    Not `vllm`: a Service of that name puts VLLM_PORT=tcp://... into every pod, which vLLM reads as its own.
    """
    alike: dict[tuple[int, int], list[Replica]] = {}
    for replica in layout.replicas:
        alike.setdefault((replica.tensor_parallel, replica.pipeline_parallel), []).append(replica)
    shapes = []
    for number, ((tensor, pipeline), replicas) in enumerate(alike.items()):
        words = f"{APP}-tp{tensor}" + (f"-pp{pipeline}" if pipeline > 1 else "")
        app = APP if len(alike) == 1 else words
        shapes.append(Shape(name=app, port=FIRST_PORT + number, replicas=tuple(replicas)))
    return shapes


def _labels(app: str) -> dict[str, str]:
    return {"app.kubernetes.io/name": app, "app.kubernetes.io/managed-by": "atoll"}


def _documents(*objects: Mapping[str, Any]) -> str:
    return "---\n".join(write_yaml(dict(one)) for one in objects)


def _kustomization(space: str, own: list[str]) -> dict[str, Any]:
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": space,
        "resources": ["namespace.yaml", *own, "door.yaml"],
        "configMapGenerator": [
            {"name": "atoll-door", "files": ["nginx.conf"]},
            {"name": "atoll-island", "files": ["check_island.py"]},
        ],
        "secretGenerator": [{"name": SECRET, "envs": ["api-key.env"]}],
    }


def _engine_objects(
    layout: Layout, card: ModelCard, settings: RenderSettings, shape: Shape, engine: Engine
) -> list[dict[str, Any]]:
    labels = _labels(shape.name)
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": shape.name, "labels": labels},
            "spec": {
                "replicas": len(shape.replicas),
                "selector": {"matchLabels": labels},
                # no spare cards are counted on: one goes before its successor comes
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}},
                "progressDeadlineSeconds": 2 * start_period_s(card),
                "template": {"metadata": {"labels": labels}, "spec": _pod(layout, card, settings, shape, engine)},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": shape.name, "labels": labels},
            # headless: the door sees every ready pod, and balances by itself
            "spec": {"clusterIP": "None", "selector": labels, "ports": [_port(shape.port)]},
        },
        _disruption(shape.name, labels),
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": shape.name},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [
                    {"from": [{"podSelector": {"matchLabels": _labels("door")}}], "ports": [_open(shape.port)]},
                    {"from": [{"namespaceSelector": _monitoring()}], "ports": [_open(shape.port)]},
                ],
                "egress": [{"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}],
            },
        },
    ]


def _port(port: int) -> dict[str, Any]:
    return {"name": "http", "port": port, "targetPort": "http"}


def _open(port: int) -> dict[str, Any]:
    return {"protocol": "TCP", "port": port}


def _monitoring() -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}


def _disruption(app: str, labels: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": app},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": dict(labels)}},
    }


def _pod(layout: Layout, card: ModelCard, settings: RenderSettings, shape: Shape, engine: Engine) -> dict[str, Any]:
    image = settings.engine_image or engine.image(layout.engine_version)
    inside = layout.replace(model=model_inside(layout))
    launch = engine.launch(inside, shape.first, card, host="0.0.0.0", port=shape.port)  # noqa: S104
    words, size = len(engine.program), len(shape.first.gpus)
    cards = {"limits": {"nvidia.com/gpu": size}}
    variables = {key: value for key, value in launch.env.items() if key != "CUDA_VISIBLE_DEVICES"}
    if not is_path(layout.model):
        variables |= {"HF_HOME": "/models", "HF_MODULES_CACHE": "/tmp/hf-modules"}  # noqa: S108 - /models is read-only
    joined = size > 1 and all(is_fully_connected(layout.box, one.gpus) for one in shape.replicas)
    shared = [{"name": "shm", "mountPath": "/dev/shm"}] if size > 1 else []  # noqa: S108
    cache = [] if engine.cache_folder is None else [{"name": "cache", "mountPath": engine.cache_folder}]
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": STOP_S + 10,
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _labels(shape.name)},
            }
        ],
        "initContainers": [
            {
                "name": "island",
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": ["python3", "/island/check_island.py", str(size), "nvlink" if joined else "any"],
                "resources": cards,
                "volumeMounts": [{"name": "island", "mountPath": "/island", "readOnly": True}],
                "securityContext": _locked(),
            }
        ],
        "containers": [
            {
                "name": layout.engine,
                "image": image,
                "imagePullPolicy": "IfNotPresent",
                "command": list(launch.argv[:words]),
                "args": [word.replace("$(", "$$(") for word in launch.argv[words:]],
                "env": [
                    *({"name": key, "value": value} for key, value in variables.items()),
                    {
                        "name": "VLLM_API_KEY",
                        "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "VLLM_API_KEY", "optional": True}},
                    },
                ],
                "ports": [{"name": "http", "containerPort": shape.port}],
                "resources": cards,
                "startupProbe": _probe(engine, period=PROBE_S, failures=start_period_s(card) // PROBE_S),
                "readinessProbe": _probe(engine, period=5, failures=2),
                "livenessProbe": _probe(engine, period=10, failures=6),
                # endpoints forget the pod before it stops taking requests
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
                "volumeMounts": [{"name": "models", "mountPath": "/models", "readOnly": True}, *cache, *shared],
                "securityContext": _locked(),
            }
        ],
        "volumes": [
            {"name": "models", "hostPath": {"path": models_folder(layout, settings), "type": "Directory"}},
            {"name": "island", "configMap": {"name": "atoll-island"}},
            *([{"name": "cache", "emptyDir": {}}] if cache else []),
            *([{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "16Gi"}}] if shared else []),
        ],
    }


def _probe(engine: Engine, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": engine.health_path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _locked() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _door_files(layout: Layout, shapes: list[Shape], engine: Engine, space: str) -> dict[str, str]:
    """One server a shape: its headless Service's name stands for all its ready pods."""
    servers = [
        UpstreamServer(number=number, host=f"{shape.name}.{space}.svc.cluster.local", port=shape.port)
        for number, shape in enumerate(shapes)
    ]
    firsts = tuple(shape.first for shape in shapes)
    one = layout.replace(replicas=firsts, router=layout.router.replace(weights=None))
    pool = Pool(layout=one, servers=servers, engine_keep_alive_s=engine.keep_alive_s(layout.engine_version))
    return render_door([pool], form=CLUSTER)


def _door_objects(settings: RenderSettings) -> list[dict[str, Any]]:
    labels = _labels("door")
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": STOP_S,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 101, "runAsGroup": 101},
        "containers": [
            {
                "name": "nginx",
                "image": settings.nginx_image or NGINX_IMAGE,
                "imagePullPolicy": "IfNotPresent",
                "ports": [{"name": "http", "containerPort": CONTAINER_PORT}],
                "readinessProbe": {"httpGet": {"path": "/nginx-health", "port": "http"}, "periodSeconds": 5},
                "livenessProbe": {
                    "httpGet": {"path": "/nginx-health", "port": "http"},
                    "periodSeconds": 10,
                    "failureThreshold": 6,
                },
                "lifecycle": {"preStop": {"exec": {"command": ["sleep", "5"]}}},
                "resources": {"requests": {"cpu": "1", "memory": "256Mi"}, "limits": {"memory": "1Gi"}},
                "volumeMounts": [
                    {"name": "conf", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf", "readOnly": True},
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                ],
                "securityContext": {**_locked(), "readOnlyRootFilesystem": True},
            }
        ],
        "volumes": [{"name": "conf", "configMap": {"name": "atoll-door"}}, {"name": "tmp", "emptyDir": {}}],
    }
    return [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "door", "labels": labels},
            "spec": {
                "replicas": 1,  # each door counts by itself; the next comes before this one goes
                "selector": {"matchLabels": labels},
                "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "door", "labels": labels},
            "spec": {"type": "ClusterIP", "selector": labels, "ports": [_port(80)]},
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "door"},
            "spec": {
                "podSelector": {"matchLabels": labels},
                "policyTypes": ["Ingress"],
                "ingress": [{"ports": [_open(CONTAINER_PORT)]}],
            },
        },
    ]


# Scaling: needs operators of the cluster's own, so it stands aside


def waiting_a_replica(layout: Layout) -> int:
    """Requests that wait, a replica, from which on another one is started: a tenth of its seats, at least 2.

    With seats for 120 they are 12: a queue of a tenth of the seats is served within a tenth of an answer's time.
    """
    return max(2, (layout.flags.max_num_seqs or 256) // 10)


def _scaling_head(layout: Layout) -> str:
    return (
        f"# Another replica from {waiting_a_replica(layout)} waiting requests a replica on: a tenth of the seats.\n"
        "# It owns `replicas` from then on. A new replica loads weights for minutes; maxReplicas is yours to set.\n"
    )


def _scaled_object(layout: Layout, shape: Shape) -> dict[str, Any]:
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": shape.name},
        "spec": {
            "scaleTargetRef": {"name": shape.name},
            "minReplicaCount": len(shape.replicas),
            "maxReplicaCount": 2 * len(shape.replicas),
            "cooldownPeriod": 600,
            "triggers": [
                {
                    "type": "prometheus",
                    "metadata": {
                        "serverAddress": "http://prometheus-operated.monitoring.svc:9090",
                        "query": f'sum(vllm:num_requests_waiting{{service="{shape.name}"}})',
                        "threshold": str(waiting_a_replica(layout)),
                    },
                }
            ],
        },
    }


def _autoscaler(layout: Layout, shape: Shape) -> dict[str, Any]:
    metric = {
        "metric": {"name": "vllm_num_requests_waiting"},  # as prometheus-adapter renames vllm:num_requests_waiting
        "target": {"type": "AverageValue", "averageValue": str(waiting_a_replica(layout))},
    }
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": shape.name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": shape.name},
            "minReplicas": len(shape.replicas),
            "maxReplicas": 2 * len(shape.replicas),
            "metrics": [{"type": "Pods", "pods": metric}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 600}},
        },
    }


def _service_monitor() -> dict[str, Any]:
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": {"name": "atoll"},
        "spec": {
            "selector": {"matchLabels": {"app.kubernetes.io/managed-by": "atoll"}},
            "endpoints": [{"port": "http", "path": "/metrics", "interval": "5s"}],
        },
    }


def _readme(layout: Layout, card: ModelCard, settings: RenderSettings, space: str) -> str:
    image = settings.engine_image or find_engine(layout.engine).image(layout.engine_version)
    return f"""# {layout.name} on Kubernetes

    kubectl apply -k .
    kubectl -n {space} rollout status deployment --timeout={start_period_s(card)}s
    kubectl -n {space} port-forward service/door 8080:80     # then http://127.0.0.1:8080/v1

The model is `{served_name(card)}`. Images, for a registry of your own: {image}, {settings.nginx_image or NGINX_IMAGE}.
Every node that serves has the weights in {models_folder(layout, settings)}. The key of clients stands in `api-key.env`.

- **Which cards.** The device plugin gives a pod as many cards as it asks for, and prefers those that NVLink joins;
  nobody promises it. The init container `island` compares `nvidia-smi topo -m` inside the pod with the layout and
  stops the pod with a sentence when they differ. Pods of one size that fill a node make the preference come true;
  pods with one card take pairs apart. Topology Manager (`single-numa-node`) keeps a pod to one NUMA node where the
  kubelet has it.
- **The door** is one nginx: each would count connections by itself. It asks the cluster's DNS for the ready pods every
  5 s, so that more or fewer replicas need no change; a policy by hash is least_conn here. The names in nginx.conf hold
  the namespace.
- **optional/** needs operators of your cluster: KEDA or the Prometheus adapter for one of the scalers, Prometheus's
  for `servicemonitor.yaml`. `kubectl -n {space} apply -f optional/keda.yaml`.
- A NetworkPolicy lets the door and the namespace `monitoring` reach the replicas, and nobody else.
"""
