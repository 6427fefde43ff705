"""How an engine runs: graphs, data parallelism, number format, caches, its end."""

from collections.abc import Iterable

from atoll.doctor.checks.places import add_to_command, found, made_by_atoll, named_options
from atoll.doctor.edits import remove_option, replace_option
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule
from atoll.doctor.words import words_of


@rule("VL015", WARNING, risk="vLLM captures CUDA graphs: a longer start and some memory more on each GPU.")
def eager(facts: Facts) -> Iterable[Finding]:
    """--enforce-eager is left on.

    Consequence: No CUDA graphs: decoding is slower.

    Evidence: https://docs.vllm.ai/en/stable/configuration/optimization/.

    Fix: Drop it; when it was there for memory, lower --max-num-seqs or --max-model-len instead.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --enforce-eager]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
    ```
    """
    for _, option in named_options(facts, "--enforce-eager"):
        if option.value is None:
            yield found(option.word, "--enforce-eager switches CUDA graphs off", edits=remove_option(option))


@rule("VL016", WARNING)
def data_parallel_dense(facts: Facts) -> Iterable[Finding]:
    """--data-parallel-* for a dense model.

    Consequence: 0.32 supports an external balancer before data-parallel ranks for mixtures of experts only; the
    internal one got stuck with long answers.

    Evidence: the help of 0.32.0, which tells dense models to run independent instances;
    https://github.com/vllm-project/vllm/issues/40279.

    Fix: Run one instance a replica, each with its own GPUs, behind nginx; drop --data-parallel-*.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "2", --data-parallel-size, "2"]
    ```

    Passes: a mixture of experts
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [deepseek-ai/DeepSeek-V3, --data-parallel-size, "8", --enable-expert-parallel]
    ```
    """
    names = ("--data-parallel-size", "--data-parallel-external-lb", "--data-parallel-hybrid-lb")
    for engine, option in named_options(facts, *names):
        if option.name == "--data-parallel-size" and option.integer() in {None, 1}:
            continue
        if engine.card is not None and engine.card.experts is None:
            yield found(option.word, f"{option.name} for a dense model")


@rule("VL018", WARNING, risk=SAFE, habit=True)
def abrupt_shutdown(facts: Facts) -> Iterable[Finding]:
    """Running answers are cut when the container stops.

    Consequence: --shutdown-timeout is 0 by default: `docker stop` and `docker compose up -d` abort every running
    answer.

    Evidence: the help of 0.32.0 (0 = abort); measured: `docker stop` ends in SIGKILL after 10.3 s.

    Fix: --shutdown-timeout 120 and stop_grace_period: 130s.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --shutdown-timeout, "120"]
        stop_grace_period: 130s
    ```
    """
    for engine in facts.engines:
        command = engine.command
        if command.has("--shutdown-timeout") or not command.table.known("--shutdown-timeout"):
            continue
        if not engine.release_told:
            continue
        yield found(
            engine.service,
            f"{engine.name} aborts its running answers when it is stopped",
            edits=add_to_command(engine, "--shutdown-timeout", "120"),
        )


@rule("VL025", INFO, risk="vLLM chooses the kernel by the checkpoint.", habit=True)
def quantization_said(facts: Facts) -> Iterable[Finding]:
    """--quantization awq (or gptq) is written out.

    Consequence: Releases before auto_awq then took the slow kernel instead of Marlin; newer ones map it back.

    Evidence: quantization/auto_awq.py of 0.32.0.

    Fix: Drop it: the checkpoint says what it is.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct-AWQ, --quantization, awq]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct-AWQ]
    ```
    """
    for _, option in named_options(facts, "--quantization"):
        if option.value in {"awq", "gptq"}:
            yield found(
                option.word,
                f"--quantization {option.value} is read from the checkpoint anyway",
                edits=remove_option(option),
            )


@rule("VL026", ERROR, risk=SAFE)
def bfloat16_on_old_cards(facts: Facts) -> Iterable[Finding]:
    """--dtype bfloat16 on cards of compute capability below 8.0.

    Consequence: vLLM refuses to start.

    Evidence: https://docs.vllm.ai/en/stable/usage/troubleshooting/.

    Fix: --dtype half.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-1.5B-Instruct, --dtype, bfloat16]
    ```
    ```options
    gpu: T4
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-1.5B-Instruct, --dtype, half]
    ```
    ```options
    gpu: T4
    ```
    """
    for engine, option in named_options(facts, "--dtype"):
        kind = facts.kind_of(engine.service)
        if option.value == "bfloat16" and kind is not None and not kind.has_bfloat16:
            yield found(
                option.word,
                f"{kind.name} (compute capability {kind.compute_capability}) has no bfloat16",
                edits=replace_option(option, option.name, "half"),
            )


@rule("VL027", WARNING)
def offloaded_weights(facts: Facts) -> Iterable[Finding]:
    """--cpu-offload-gb squeezes a model in.

    Consequence: Those weights cross PCIe in every step: decoding is much slower.

    Evidence: https://docs.vllm.ai/en/stable/configuration/conserving_memory/.

    Fix: Take a quantised checkpoint, or more GPUs.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-14B-Instruct, --cpu-offload-gb, "8"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-14B-Instruct-AWQ]
    ```
    """
    for _, option in named_options(facts, "--cpu-offload-gb"):
        if option.number() not in {None, 0.0}:
            yield found(option.word, f"{option.value} GB of weights are read over PCIe in every step")


@rule("VL028", WARNING, risk="The workers are started by vLLM itself and no longer by Ray.")
def ray_on_one_node(facts: Facts) -> Iterable[Finding]:
    """--distributed-executor-backend ray on one node.

    Consequence: More processes, a larger need of /dev/shm, and --device-ids has no effect.

    Evidence: the help of 0.32.0.

    Fix: Drop it: `mp` is the default on one node.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "2", --distributed-executor-backend, ray]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-32B-Instruct, -tp, "2"]
    ```
    """
    for engine, option in named_options(facts, "--distributed-executor-backend"):
        words = (*words_of(engine.service.get("entrypoint")), *words_of(engine.service.get("command")))
        script = " ".join(word.text for word in words)
        several_nodes = "RAY_ADDRESS" in engine.service.environment or "ray start" in script
        if option.value == "ray" and not several_nodes:
            yield found(option.word, "Ray runs the workers of one node", edits=remove_option(option))


@rule("VL029", WARNING, risk="Prompts that begin alike share their KV cache.")
def prefix_cache_off(facts: Facts) -> Iterable[Finding]:
    """Prefix caching is switched off.

    Consequence: A system prompt that all share is computed again for every request.

    Evidence: 19.0 s against 0.86 s mean TTFT in one public test with eight GPUs and long shared prompts
    (https://dev.to/andygolubev/how-llm-d-prefix-cache-routing-made-qwen-7b-on-eks-23x-faster-2h8j).

    Fix: Drop --no-enable-prefix-caching, unless you measure without sharing on purpose.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --no-enable-prefix-caching]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
    ```
    """
    for engine, option in named_options(facts, "--no-enable-prefix-caching"):
        share = facts.load_at(option.word.file).shared_prefix
        if option.value is None and (share is None or share > 0) and not made_by_atoll(facts, engine.service):
            yield found(
                option.word, "prompts that begin alike are computed anew every time", edits=remove_option(option)
            )


@rule("VL030", INFO, risk="vLLM counts and logs again what it does.")
def no_metrics(facts: Facts) -> Iterable[Finding]:
    """--disable-log-stats is set.

    Consequence: /metrics lacks the queue and KV gauges that balancing, load tests and autoscaling read.

    Evidence: https://docs.vllm.ai/en/stable/usage/metrics/.

    Fix: Drop it.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --disable-log-stats]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
    ```
    """
    for _, option in named_options(facts, "--disable-log-stats"):
        yield found(option.word, "the engine's gauges are switched off", edits=remove_option(option))
