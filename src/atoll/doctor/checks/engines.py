"""How an engine runs: graphs, data parallelism, number format, caches, its end."""

from collections.abc import Iterable

from atoll.doctor.checks.places import add_to_command, found, made_by_atoll, named_options
from atoll.doctor.command_edits import remove_option, replace_option
from atoll.doctor.facts import Facts
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, SAFE, WARNING, rule
from atoll.doctor.words import words_of


@rule("VL015", WARNING, risk="vLLM captures CUDA graphs: a longer start and some memory more on each GPU.")
def eager(facts: Facts) -> Iterable[Finding]:
    for _, option in named_options(facts, "--enforce-eager"):
        if option.value is None:
            yield found(option.word, "--enforce-eager switches CUDA graphs off", edits=remove_option(option))


@rule("VL016", WARNING)
def data_parallel_dense(facts: Facts) -> Iterable[Finding]:
    names = ("--data-parallel-size", "--data-parallel-external-lb", "--data-parallel-hybrid-lb")
    for engine, option in named_options(facts, *names):
        if option.name == "--data-parallel-size" and option.integer() in {None, 1}:
            continue
        if engine.card is not None and engine.card.experts is None:
            yield found(option.word, f"{option.name} for a dense model")


@rule("VL018", WARNING, risk=SAFE, habit=True)
def abrupt_shutdown(facts: Facts) -> Iterable[Finding]:
    for engine in facts.engines:
        command = engine.command
        if command.has("--shutdown-timeout") or not command.table.known("--shutdown-timeout"):
            continue
        if not engine.release_told:
            continue
        origin = facts.project_of(engine.service).origin
        longer = _LONGER if origin == "kubernetes" else None
        yield found(
            engine.service,
            f"{engine.name} aborts its running answers when it is stopped",
            why=_ABORTS if longer else "",
            fix=_WITH_GRACE.get(origin, ""),
            edits=add_to_command(engine, "--shutdown-timeout", "120"),
            risk=engine.doubt or longer,
        )


_ABORTS = "--shutdown-timeout is 0 by default: every rollout and every eviction aborts the running answers."
_WITH_GRACE = {
    "kubernetes": "--shutdown-timeout 120 and terminationGracePeriodSeconds: 130 (K8006).",
    "script": "--shutdown-timeout 120 and `docker run --stop-timeout 130`.",
    "unit": "--shutdown-timeout 120 and StopTimeout=130 of a quadlet, TimeoutStopSec=130 of a service.",
}
_LONGER = "Pods live on for longer after they are told to stop."


@rule("VL025", INFO, risk="vLLM chooses the kernel by the checkpoint.", habit=True)
def quantization_said(facts: Facts) -> Iterable[Finding]:
    for _, option in named_options(facts, "--quantization"):
        if option.value in {"awq", "gptq"}:
            yield found(
                option.word,
                f"--quantization {option.value} is read from the checkpoint anyway",
                edits=remove_option(option),
            )


@rule("VL026", ERROR, risk=SAFE)
def bfloat16_on_old_cards(facts: Facts) -> Iterable[Finding]:
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
    for _, option in named_options(facts, "--cpu-offload-gb"):
        if option.number() not in {None, 0.0}:
            yield found(option.word, f"{option.value} GB of weights are read over PCIe in every step")


@rule("VL028", WARNING, risk="The workers are started by vLLM itself and no longer by Ray.")
def ray_on_one_node(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--distributed-executor-backend"):
        words = (*words_of(engine.service.get("entrypoint")), *words_of(engine.service.get("command")))
        script = " ".join(word.text for word in words)
        several_nodes = "RAY_ADDRESS" in engine.service.environment or "ray start" in script
        if option.value == "ray" and not several_nodes:
            yield found(option.word, "Ray is used on one node, where it is not needed", edits=remove_option(option))


@rule("VL029", WARNING, risk="Prompts that begin alike share their KV cache.")
def prefix_cache_off(facts: Facts) -> Iterable[Finding]:
    for engine, option in named_options(facts, "--no-enable-prefix-caching"):
        share = facts.load_at(option.word.file).shared_prefix
        if option.value is None and (share is None or share > 0) and not made_by_atoll(facts, engine.service):
            yield found(
                option.word, "prompts that begin alike are computed again each time", edits=remove_option(option)
            )


@rule("VL030", INFO, risk="vLLM counts and logs again what it does.")
def no_metrics(facts: Facts) -> Iterable[Finding]:
    for _, option in named_options(facts, "--disable-log-stats"):
        yield found(option.word, "the engine's metrics are switched off", edits=remove_option(option))
