"""vLLM's options, held against the list of the very release that the image carries."""

import json
from collections.abc import Iterable, Iterator

from atoll.doctor.checks.places import found, join, options
from atoll.doctor.command_edits import remove_option, replace_option
from atoll.doctor.edits import Edits
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, SAFE, WARNING, rule
from atoll.doctor.vllm import GivenOption, VllmCommand, is_listed, newest_version, show_version, table_for
from atoll.engines.vllm.options import (
    known_versions,
    options_of,
)
from atoll.engines.vllm.versions import parse_version

# What took the place of an option that is gone. None: drop it, the engine does it by itself or not at all.
# Sources: the help texts and changelogs of vLLM 0.9 to 0.33; each was refused by the parser of 0.32.0.
_REPLACEMENTS: dict[str, str | None] = {
    "--disable-log-requests": None,
    "--swap-space": None,
    "--num-scheduler-steps": None,
    "--multi-step-stream-outputs": None,
    "--use-v2-block-manager": None,
    "--worker-use-ray": "--distributed-executor-backend ray (one node needs neither)",
    "--engine-use-ray": None,
    "--max-seq-len-to-capture": None,
    "--max-context-len-to-capture": None,
    "--rope-scaling": "--hf-overrides '{\"rope_scaling\": ...}'",
    "--rope-theta": "--hf-overrides '{\"rope_theta\": ...}'",
    "--preemption-mode": None,
    "--enable-reasoning": "--reasoning-parser alone",
    "--guided-decoding-backend": "--structured-outputs-config '{\"backend\": ...}'",
    "--guided-decoding-disable-fallback": "--structured-outputs-config",
    "--guided-decoding-disable-any-whitespace": "--structured-outputs-config",
    "--guided-decoding-disable-additional-properties": "--structured-outputs-config",
    "--speculative-model": '--speculative-config \'{"model": ..., "num_speculative_tokens": ...}\'',
    "--num-speculative-tokens": "--speculative-config",
    "--num-lookahead-slots": None,
    "--disable-async-output-proc": None,
    "--max-num-partial-prefills": None,
    "--max-long-partial-prefills": None,
    "--scheduler-delay-factor": None,
    "--tokenizer-pool-size": None,
    "--tokenizer-pool-type": None,
    "--enable-prompt-adapter": None,
    "--disable-frontend-multiprocessing": None,
    "--cuda-graph-sizes": "--cudagraph-capture-sizes",
    "--disable-mm-preprocessor-cache": "--mm-processor-cache-gb 0",
    "--override-pooler-config": "--pooler-config",
    "--override-neuron-config": "--additional-config",
    "--calculate-kv-scales": None,
    "--num-redundant-experts": "--eplb-config",
    "--device": None,
    "--task": "--runner or --convert",
    "--eplb-window-size": "--eplb-config",
    "--disable-chunked-prefill": "--no-enable-chunked-prefill",
    "--disable-cascade-attn": None,
    "--log-config-file": "VLLM_LOGGING_CONFIG_PATH",
}


# Options that no release ever had, seen in blogs; each was refused by the parser of 0.32.0.
_INVENTED: dict[str, str | None] = {
    "--enable-metrics": None,
    "--metrics-port": None,
    "--max-batch-size": "--max-num-seqs",
    "--gpu-ids": "device_ids of the service",
    "--num-gpus": "--tensor-parallel-size",
    "--tp": "--tensor-parallel-size",
    "--tp-size": "--tensor-parallel-size",
    "--timeout": None,
    "--workers": None,
    "--num-workers": None,
    "--max-concurrent-requests": "--max-num-seqs",
    "--context-length": "--max-model-len",
    "--max-tokens": "--max-model-len",
}


def compact(value: object) -> str:
    """JSON without blanks: `: ` would end a plain YAML scalar."""
    return json.dumps(value, separators=(",", ":"))


def _ever_known() -> frozenset[str]:
    return frozenset(name for version in known_versions() for name in options_of(version))


def _unknown(facts: Facts) -> Iterator[tuple[ServedEngine, GivenOption]]:
    """Options that the image's release does not have, prefixes of one that it has left aside."""
    for engine, option in options(facts):
        table = engine.command.table
        if not option.known or option.name.startswith("-O") or not is_listed(engine.command.version):
            continue
        if not engine.release_told:
            continue  # it may be any
        if not table.known(option.name) and option.name != "--optimization-level":
            yield engine, option


def _release(command: VllmCommand) -> str:
    return show_version(command.table.version[:2] if command.version_known else newest_version()[:2])


def _came_later(name: str, command: VllmCommand) -> str:
    """`not yet`, of an option that only releases after this one have."""
    having = [parse_version(text) for text in known_versions() if name in options_of(text)]
    return "not yet" if having and command.table.version < min(having) else ""


@rule("VL001", ERROR, risk=SAFE)
def removed_option(facts: Facts) -> Iterable[Finding]:
    ever = _ever_known()
    for engine, option in _unknown(facts):
        if option.name in _INVENTED or option.name not in {*ever, *_REPLACEMENTS}:
            continue
        instead = _REPLACEMENTS.get(option.name)
        release = _release(engine.command)
        yield found(
            option.word,
            f"{option.name} is {_came_later(option.name, engine.command) or 'gone'} in vLLM {release}",
            fix=f"Write {instead}." if instead else "Drop it.",
            edits=_replaced(option) if option.name in _REPLACEMENTS else (),
            risk=engine.doubt,
        )


def _replaced(option: GivenOption) -> Edits:
    if option.name == "--enable-reasoning":
        return remove_option(option)
    if option.name == "--cuda-graph-sizes":
        return replace_option(option, "--cudagraph-capture-sizes", option.value)
    if option.name == "--disable-mm-preprocessor-cache":
        return replace_option(option, "--mm-processor-cache-gb", "0")
    if option.name in {"--rope-scaling", "--rope-theta"} and option.document() is not None:
        return replace_option(option, "--hf-overrides", compact({option.name[2:].replace("-", "_"): option.document()}))
    if option.name == "--guided-decoding-backend" and option.value:
        return replace_option(option, "--structured-outputs-config", compact({"backend": option.value}))
    return remove_option(option) if _REPLACEMENTS[option.name] is None else ()


@rule("VL002", WARNING, risk="The option is gone; the release of this image still reads it.")
def deprecated_option(facts: Facts) -> Iterable[Finding]:
    newest = table_for(None)
    for engine, option in options(facts):
        command = engine.command
        if not command.version_known or not is_listed(command.version) or not option.known:
            continue
        if not command.table.known(option.name):
            continue
        if option.name not in command.table.deprecated and newest.known(option.name):
            continue
        ends = "is deprecated" if newest.known(option.name) else f"is gone since vLLM {_gone_since(option.name)}"
        instead = _REPLACEMENTS.get(option.name)
        yield found(
            option.word,
            f"{option.name} {ends}; this image has {_release(command)}",
            fix=f"Write {instead}." if instead else "Drop it before you upgrade.",
            edits=_replaced(option) if _is_idle(option, command) else (),
        )


def _is_idle(option: GivenOption, command: VllmCommand) -> bool:
    """Whether it can go: this release calls it deprecated, and knows what takes its place."""
    if option.name not in _REPLACEMENTS or option.name not in command.table.deprecated:
        return False
    instead = (_REPLACEMENTS[option.name] or "").partition(" ")[0]
    return not instead.startswith("--") or command.table.known(instead)


def _gone_since(name: str) -> str:
    versions = known_versions()
    last = max(place for place, version in enumerate(versions) if name in options_of(version))
    return ".".join(versions[last + 1].split(".")[:2])


@rule("VL007", WARNING, risk=SAFE)
def abbreviated_option(facts: Facts) -> Iterable[Finding]:
    for engine, option in _unknown(facts):
        whole = engine.command.table.longer(option.name)
        if option.name in _INVENTED or not whole or not option.name.startswith("--"):
            continue
        if option.name in _REPLACEMENTS and len(whole) == 1:
            continue  # VL001 says what took its place
        if len(whole) == 1:
            value = option.value
            yield found(
                option.word,
                f"{option.name} is short for {whole[0]}",
                fix=f"Write {whole[0]}.",
                edits=replace_option(option, whole[0], value),
                risk=engine.doubt,
            )
        else:
            yield found(
                option.word,
                f"{option.name} could be {join(whole[:3])}, so vLLM refuses it as ambiguous",
                fix="Write the whole name.",
            )


@rule("VL008", ERROR, risk=SAFE)
def invented_option(facts: Facts) -> Iterable[Finding]:
    ever = _ever_known()
    for engine, option in _unknown(facts):
        if option.name in ever or option.name in _REPLACEMENTS or not option.name.startswith("--"):
            continue
        if engine.command.table.longer(option.name) and option.name not in _INVENTED:
            continue
        invented = option.name in _INVENTED
        near = next(iter(engine.command.table.near(option.name)), None)
        instead = _INVENTED[option.name] if invented else near
        certain = invented and (instead is None or instead.startswith("--"))
        edits: Edits = ()
        if certain:
            edits = replace_option(option, instead, option.value) if instead else remove_option(option)
        yield found(
            option.word,
            f"vLLM has no option {option.name}",
            fix=f"Write {instead}." if instead else "Drop it.",
            edits=edits,
            risk=engine.doubt,
        )
