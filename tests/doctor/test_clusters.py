"""Pods wherever a manifest holds them, KServe, charts' values and Ray Serve, all as services of the same rules."""

import pytest

from atoll.doctor.files import HeldFiles
from atoll.doctor.kubernetes import pods
from atoll.workflows.diagnose import ask, correct, diagnose

CONTAINER = """{name: vllm, image: "vllm/vllm-openai:v0.33.0", args: [org/m, -tp, "2", --swap-space, "4"],
  resources: {limits: {nvidia.com/gpu: "1"}}}"""
POD = f"{{containers: [{CONTAINER}]}}"
PLACES = {
    "Deployment": f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: a}}\nspec: {{template: {{spec: {POD}}}}}\n",
    "CronJob": f"apiVersion: batch/v1\nkind: CronJob\nmetadata: {{name: a}}\nspec: {{jobTemplate: {{spec: {{template: {{spec: {POD}}}}}}}}}\n",
    "InferenceService": f"apiVersion: serving.kserve.io/v1beta1\nkind: InferenceService\nmetadata: {{name: a}}\nspec: {{predictor: {POD}}}\n",
    "LLMInferenceService": f"apiVersion: serving.kserve.io/v1alpha1\nkind: LLMInferenceService\nmetadata: {{name: a}}\nspec: {{template: {POD}}}\n",
    "List": f"apiVersion: v1\nkind: List\nitems: [{{kind: Pod, apiVersion: v1, metadata: {{name: a}}, spec: {POD}}}]\n",
}


@pytest.mark.parametrize("kind", PLACES)
def test_a_pod_is_found_wherever_it_stands(kind, facts_of):
    (service,) = facts_of({"x.yaml": PLACES[kind]}).services
    assert (service.vllm.model, service.vllm.world_size, service.gpus.size) == ("org/m", 2, 1)
    found = {one.rule for one in diagnose(ask(["x.yaml"]), HeldFiles({"x.yaml": PLACES[kind]})).findings}
    assert {"VL001", "TP007", "K8001"} <= found


def test_pods_that_share_a_model_are_not_counted_alone(facts_of):
    text = (
        "apiVersion: leaderworkerset.x-k8s.io/v1\nkind: LeaderWorkerSet\nmetadata: {name: a}\n"
        f"spec: {{leaderWorkerTemplate: {{size: 2, leaderTemplate: {{spec: {POD}}}, workerTemplate: {{spec: {{containers: [{{name: w, image: x}}]}}}}}}}}\n"
    )
    (service,) = facts_of({"x.yaml": text}).services
    assert service.gpus is None


def test_engines_of_a_cluster_do_not_meet_on_the_first_card():
    text = "---\n".join(PLACES["Deployment"].replace("name: a", f"name: {name}") for name in "ab")
    found = {one.rule for one in diagnose(ask(["x.yaml"]), HeldFiles({"x.yaml": text})).findings}
    assert not found & {"TP008", "TP009", "VL014"}


def test_labels_are_those_of_the_template(facts_of):
    text = PLACES["Deployment"].replace("{name: a}", "{name: a, labels: {app: no}}")
    text = text.replace("{template: {", "{template: {metadata: {labels: {app: yes-it-is}}, ")
    (pod,) = pods(facts_of({"x.yaml": text}).manifests)
    assert pod.labels == {"app": "yes-it-is"}


def test_variables_and_scripts_of_a_pod(facts_of):
    text = """\
apiVersion: v1
kind: Pod
metadata: {name: a}
spec:
  containers:
    - name: vllm
      image: own/vllm:1
      command: [/bin/bash, /scripts/start.sh, "--port=$(PORT)"]
      env: [{name: PORT, value: "8100"}]
      volumeMounts: [{name: s, mountPath: /scripts}]
  volumes: [{name: s, configMap: {name: scripts}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: scripts}
data:
  start.sh: |
    exec vllm serve org/m "$@" \\
      --swap-space 4
"""
    (service,) = facts_of({"x.yaml": text}).services
    assert (service.vllm.model, service.listen_port) == ("org/m", 8100)
    assert service.vllm.option("--swap-space").word.line == 19


KSERVE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: a}
spec:
  predictor:
    model:
      modelFormat: {name: huggingface}
      args: [--model_name=llama, --model_id=org/m, --tensor-parallel-size=2, --swap-space=4]
      resources: {limits: {nvidia.com/gpu: 1}}
"""


def test_kserve_hands_options_through(facts_of):
    (service,) = facts_of({"x.yaml": KSERVE}).services
    assert (service.vllm.world_size, service.vllm.version_known, service.gpus.size) == (2, False, 1)
    assert service.vllm.option("--model-name") is None
    other = facts_of({"x.yaml": KSERVE.replace("huggingface", "triton")})
    assert other.services == ()


def test_a_serving_runtime_brings_the_program(facts_of):
    text = KSERVE.replace("{name: huggingface}", "{name: vLLM}\n      runtime: mine") + (
        "---\napiVersion: serving.kserve.io/v1alpha1\nkind: ServingRuntime\nmetadata: {name: mine}\n"
        'spec: {containers: [{name: kserve-container, image: "vllm/vllm-openai:v0.33.0", command: [vllm, serve], args: [--port=8080]}]}\n'
    )
    service = facts_of({"x.yaml": text}).services[0]
    assert (service.image.engine_version, service.vllm.world_size) == ((0, 33, 0), 2)


STACK = """\
servingEngineSpec:
  modelSpec:
    - name: qwen
      repository: vllm/vllm-openai
      tag: v0.33.0
      modelURL: org/m
      requestGPU: 1
      vllmConfig:
        v0: "1"
        tensorParallelSize: 2
        maxModelLen: 8192
        enablePrefixCaching: false
        enableChunkedPrefill: true
        extraArgs: ["--swap-space", "4"]
      env: [{name: VLLM_X, value: "1"}]
    - {name: off, enabled: false, repository: vllm/vllm-openai, modelURL: x}
"""


def test_values_of_production_stack(facts_of):
    (service,) = facts_of({"values.yaml": STACK}).services
    command = service.vllm
    assert (service.name, service.image.text, service.gpus.size) == ("qwen", "vllm/vllm-openai:v0.33.0", 1)
    assert (command.model, command.world_size, command.integer("--max-model-len")) == ("org/m", 2, 8192)
    assert command.has("--no-enable-prefix-caching")
    assert command.has("--enable-chunked-prefill")
    assert command.option("--tensor-parallel-size").word.line == 10
    assert service.environment["VLLM_X"].value == "1"


def test_a_fix_of_values_stays_between_their_brackets():
    made = correct(ask(["values.yaml"], select=["VL018"]), HeldFiles({"values.yaml": STACK}), risky=True)
    assert '"--swap-space", "4", "--shutdown-timeout", "120"]' in made.files[0].after


def test_values_of_the_chart_of_vllm_and_of_llm_d(facts_of):
    chart = """\
image:
  repository: "vllm/vllm-openai"
  tag: "v0.33.0"
  command: ["vllm", "serve", "/data/", "--swap-space", "4"]
resources: {limits: {nvidia.com/gpu: 2}}
extraInit: {image: {repository: amazon/aws-cli}}
"""
    (service,) = facts_of({"values.yaml": chart}).services
    assert (service.vllm.model, service.gpus.size, service.vllm.option("--swap-space").word.line) == ("/data/", 2, 4)
    llm_d = """\
modelArtifacts: {name: org/m}
decode:
  parallelism: {tensor: 2}
  containers:
    - {name: vllm, image: "ghcr.io/llm-d/llm-d:v0.2.0", modelCommand: vllmServe, args: [--swap-space, "4"], resources: {limits: {nvidia.com/gpu: "2"}}}
prefill:
  containers:
    - {name: vllm, image: "ghcr.io/llm-d/llm-d:v0.2.0", modelCommand: vllmServe, args: []}
"""
    decode, prefill = facts_of({"values.yaml": llm_d}).services
    assert (decode.vllm.model, decode.vllm.world_size, decode.gpus.size) == ("org/m", 2, 2)
    assert (prefill.vllm.model, prefill.vllm.world_size) == ("org/m", 1)


RAY = """\
applications:
  - name: llm
    import_path: ray.serve.llm:build_openai_app
    args:
      llm_configs:
        - model_loading_config: {model_id: m, model_source: org/m}
          engine_kwargs:
            tensor_parallel_size: 2
            swap_space: 4
            enforce_eager: true
"""


def test_ray_serve_by_itself_and_inside_a_ray_service(facts_of):
    (service,) = facts_of({"serve.yaml": RAY}).services
    assert (service.name, service.vllm.model, service.vllm.world_size) == ("m", "org/m", 2)
    assert service.vllm.option("--swap-space").word.line == 9
    inner = "".join(f"    {line}\n" for line in RAY.splitlines())
    held = f"apiVersion: ray.io/v1\nkind: RayService\nmetadata: {{name: a}}\nspec:\n  serveConfigV2: |\n{inner}"
    (service,) = facts_of({"x.yaml": held}).services
    assert service.vllm.option("--swap-space").word.line == 14


def test_what_names_an_engine_without_a_command_is_said(facts_of):
    text = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nimages: [{name: vllm/vllm-openai, newTag: v0.33.0}]\n"
    (said,) = facts_of({"kustomization.yaml": text}).not_understood
    assert said.why == "Kustomization that names an engine, of which no command was found"
