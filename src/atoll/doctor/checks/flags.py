"""vLLM's options, held against the list of the very version that the image carries."""

import json
import re
from collections.abc import Iterable, Iterator

from atoll.cost.memory import MemoryFit
from atoll.doctor.checks.memory import fit_of, usual_flags
from atoll.doctor.checks.places import found, join, made_by_atoll, named_options, options
from atoll.doctor.checks.timeouts import read_timeout
from atoll.doctor.edits import Edits, add_option, remove_option, replace_option
from atoll.doctor.facts import Facts, ServedEngine
from atoll.doctor.finding import Finding
from atoll.doctor.rule import ERROR, INFO, WARNING, rule
from atoll.doctor.vllm import GivenOption, VllmCommand, is_listed, is_shell, newest_version, show_version, table_for
from atoll.doctor.words import words_of
from atoll.engines.vllm.options import (
    AUTO_LENGTH_SINCE,
    MODEL_FIRST_SINCE,
    MODERN_VALUES_SINCE,
    ON_BY_DEFAULT_SINCE,
    known_versions,
    options_of,
)

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


def _compact(value: object) -> str:
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
        if not engine.command.version_known and not _is_official(engine):
            continue  # a private image may carry any release
        if not table.known(option.name) and option.name != "--optimization-level":
            yield engine, option


def _is_official(engine: ServedEngine) -> bool:
    image = engine.service.image
    return image is not None and image.path.startswith("vllm/vllm-openai") and image.digest is None


def _release(command: VllmCommand) -> str:
    return show_version(command.table.version[:2] if command.version_known else newest_version()[:2])


@rule("VL001", ERROR)
def removed_option(facts: Facts) -> Iterable[Finding]:
    """An option that the vLLM of this image no longer has.

    Consequence: The parser refuses it, the container exits, and with `restart: unless-stopped` it does so for ever;
    the balancer in front answers 502.

    Evidence: the option lists of 25 releases from 0.8 to 0.33, read from their own parsers; 40 such options were
    refused by 0.32.0; https://github.com/jdaln/dgx-spark-inference-stack/issues/12, https://github.com/kserve/kserve/pull/6037.

    Fix: Drop it, or write what took its place.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --swap-space, "4", --disable-log-requests]
    ```

    Passes: the releases that still had them
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.8.5
        command: [Qwen/Qwen2.5-7B-Instruct, --swap-space, "4", --disable-log-requests]
    ```
    """
    ever = _ever_known()
    for engine, option in _unknown(facts):
        if option.name in _INVENTED or option.name not in {*ever, *_REPLACEMENTS}:
            continue
        instead = _REPLACEMENTS.get(option.name)
        release = _release(engine.command)
        yield found(
            option.word,
            f"{option.name} is gone in vLLM {release}",
            fix=f"Write {instead}." if instead else "Drop it.",
            edits=_replaced(option) if option.name in _REPLACEMENTS else (),
        )


def _replaced(option: GivenOption) -> Edits:
    if option.name == "--enable-reasoning":
        return remove_option(option)
    if option.name == "--cuda-graph-sizes":
        return replace_option(option, "--cudagraph-capture-sizes", option.value)
    if option.name == "--disable-mm-preprocessor-cache":
        return replace_option(option, "--mm-processor-cache-gb", "0")
    if option.name in {"--rope-scaling", "--rope-theta"} and option.document() is not None:
        return replace_option(
            option, "--hf-overrides", _compact({option.name[2:].replace("-", "_"): option.document()})
        )
    if option.name == "--guided-decoding-backend" and option.value:
        return replace_option(option, "--structured-outputs-config", _compact({"backend": option.value}))
    return remove_option(option) if _REPLACEMENTS[option.name] is None else ()


@rule("VL002", WARNING)
def deprecated_option(facts: Facts) -> Iterable[Finding]:
    """An option that is deprecated in this release, or gone in a later one.

    Consequence: It does nothing already, or the next pull of a newer image stops the service.

    Evidence: `vllm serve --help=all` of 0.32.0, and the option lists of the releases after.

    Fix: Drop it, or write what took its place, before you upgrade.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --disable-cascade-attn]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
    ```
    """
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
            edits=_replaced(option) if _is_idle(option.name) else (),
        )


def _is_idle(name: str) -> bool:
    """Whether dropping it changes nothing: not so for --disable-log-requests, which old releases need."""
    return name in _REPLACEMENTS and name != "--disable-log-requests"


def _gone_since(name: str) -> str:
    versions = known_versions()
    last = max(place for place, version in enumerate(versions) if name in options_of(version))
    return ".".join(versions[last + 1].split(".")[:2])


@rule("VL003", ERROR)
def repeated_program(facts: Facts) -> Iterable[Finding]:
    """`command:` begins with `vllm serve` (or `serve`) on an image whose entrypoint already is `vllm serve`.

    Consequence: vLLM stops with `unrecognized arguments: serve`.

    Evidence: https://github.com/vllm-project/vllm/issues/22072.

    Fix: Give the model and the options alone.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: vllm serve Qwen/Qwen2.5-7B-Instruct --port 8000
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        entrypoint: [vllm, serve]
        command: Qwen/Qwen2.5-7B-Instruct --port 8000
    ```
    """
    for engine in facts.engines:
        stray = engine.command.stray
        if stray:
            words = " ".join(word.text for word in stray)
            option = GivenOption(name="", value=None, words=stray)
            yield found(
                stray[0],
                f"the image already runs `vllm serve`; `{words}` is read as arguments",
                edits=remove_option(option) if not is_shell(stray[0].text) else (),
            )


@rule("VL004", INFO)
def model_as_option(facts: Facts) -> Iterable[Finding]:
    """The model is given by `--model`.

    Consequence: vLLM warns at every start, and a later release will refuse it.

    Evidence: vLLM 0.32.0, utils/argparse_utils.py.

    Fix: Make the model the first argument.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: --model Qwen/Qwen2.5-7B-Instruct --port 8000
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: Qwen/Qwen2.5-7B-Instruct --port 8000
    ```
    """
    for engine, option in named_options(facts, "--model"):
        command = engine.command
        module = any("api_server" in word.text for word in command.program)  # there it is the only way
        old = command.version is not None and command.version < MODEL_FIRST_SINCE
        if not module and not old:
            yield found(option.word, "--model is announced for removal from `vllm serve`", edits=_model_first(option))


def _model_first(option: GivenOption) -> Edits:
    """`--model X` becomes `X` when it is the first of the arguments; elsewhere the words are left alone."""
    if option.joined or len(option.words) != 2:
        return ()
    return remove_option(GivenOption(name=option.name, value=None, words=option.words[:1]))


@rule("VL005", ERROR)
def value_for_switch(facts: Facts) -> Iterable[Finding]:
    """A value is given to an on/off option.

    Consequence: The parser refuses it and the container exits.

    Evidence: the parser of 0.32.0.

    Fix: Write --x for on and --no-x for off.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --enable-chunked-prefill=True]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --no-enable-prefix-caching]
    ```
    """
    for engine, option in options(facts):
        if engine.command.table.kinds.get(option.name) != "switch" or option.path:
            continue
        value = option.value if option.joined else _following_boolean(engine.command, option)
        if value is None:
            continue
        off = value.lower() in {"false", "0", "no", "off"}
        wanted = _opposite(option.name, engine.command) if off else option.name
        edits = replace_option(option, wanted, None) if option.joined and wanted else ()
        fix = f"Write {wanted}." if wanted else "Drop it."
        yield found(option.word, f"{option.name} takes no value, and {value!r} is given", fix=fix, edits=edits)


def _following_boolean(command: VllmCommand, option: GivenOption) -> str | None:
    place = next(n for n, word in enumerate(command.words) if word is option.words[-1])
    following = command.words[place + 1].text if place + 1 < len(command.words) else ""
    return following if following in {"True", "False", "true", "false"} else None


def _opposite(name: str, command: VllmCommand) -> str | None:
    other = "--" + name[5:] if name.startswith("--no-") else "--no-" + name[2:]
    return other if command.table.known(other) else None


@rule("VL006", ERROR)
def old_value_syntax(facts: Facts) -> Iterable[Finding]:
    """A value in the syntax of an older release.

    Consequence: The parser refuses it and the container exits.

    Evidence: https://github.com/vllm-project/vllm/issues/32755; the parser of 0.32.0.

    Fix: Write JSON: --limit-mm-per-prompt '{"image": 4}', --compilation-config '{"mode": 3}' (or -O3);
    drop --seed None.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-VL-7B-Instruct, --limit-mm-per-prompt, image=4]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-VL-7B-Instruct, --limit-mm-per-prompt, '{"image": 4}']
    ```
    """
    names = ("--limit-mm-per-prompt", "--compilation-config", "--seed")
    for engine, option in options(facts):
        command = engine.command
        if option.name not in names or option.path not in {"", "level"}:
            continue
        old = command.version is not None and command.version < MODERN_VALUES_SINCE
        if old or not option.known or option.value is None:
            continue
        fixed = _modern_value(option)
        if fixed is not None:
            name, value = fixed
            edits = replace_option(option, name, value) if name else remove_option(option)
            fix = f"Write {name} {value}." if name else f"Drop {option.name}."
            yield found(
                option.word, f"{option.name} {option.value} is the syntax of an older release", fix=fix, edits=edits
            )


def _modern_value(option: GivenOption) -> tuple[str, str] | None:
    """Name and value as they are written today, ("", "") to drop it, None when it is right."""
    value = option.value or ""
    if option.path == "level":
        return f"{option.name}.mode", value
    if option.name == "--seed":
        return ("", "") if value == "None" else None
    if option.name == "--limit-mm-per-prompt":
        pairs = re.findall(r"(\w+)=(\d+)", value)
        return (option.name, _compact({name: int(count) for name, count in pairs})) if pairs else None
    if re.fullmatch(r"\d", value):
        return option.name, _compact({"mode": int(value)})
    plain = option.document()
    if isinstance(plain, dict) and "level" in plain:
        return option.name, _compact({("mode" if key == "level" else key): item for key, item in plain.items()})
    return None


@rule("VL007", WARNING)
def abbreviated_option(facts: Facts) -> Iterable[Finding]:
    """An option is abbreviated.

    Consequence: argparse accepts the beginning of a name until a newer release makes it ambiguous; `--device cuda` used
    to work and in 0.32 is refused as `ambiguous option`.

    Evidence: the parser of 0.32.0.

    Fix: Write the whole name.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --tensor-parallel, "2"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --tensor-parallel-size, "2"]
    ```
    """
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
            )
        else:
            yield found(
                option.word,
                f"{option.name} could be {join(whole[:3])}, so vLLM refuses it as ambiguous",
                fix="Write the whole name.",
            )


@rule("VL008", ERROR)
def invented_option(facts: Facts) -> Iterable[Finding]:
    """An option that vLLM never had.

    Consequence: The parser refuses it and the container exits.

    Evidence: refused by 0.32.0 and in none of the lists of 25 releases; such files are found in public.

    Fix: Drop it. Metrics are served on the API's own port; the number of GPUs is --tensor-parallel-size.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-batch-size, "32", --enable-metrics]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-seqs, "256"]
    ```
    """
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
        )


@rule("VL009", WARNING)
def few_sequences(facts: Facts) -> Iterable[Finding]:
    """--max-num-seqs is far below vLLM's default.

    Consequence: Only that many answers run at once in each instance; the others wait while KV cache is free, and the
    tail of the time to first token grows with the load.

    Evidence: engine_arg_utils of 0.32.0 (256; 1024 on cards of 70 GiB and more that are not A100); in simulation a
    service bound by its slots had a p99 TTFT of 6 to 15 s at 90 % load.

    Fix: Drop it, or set it from the KV cache and the wanted time per token, and load-test.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-seqs, "16"]
    ```

    Passes: enough for the users there are
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-seqs, "256"]
    ```
    """
    for engine, option in named_options(facts, "--max-num-seqs"):
        seqs = option.integer()
        if seqs is None or not option.known or made_by_atoll(facts, engine.service):
            continue
        twins = max(1, len(_siblings(facts, engine)))
        users = facts.load_at(engine.service.file).users
        if users is not None:
            if seqs * twins < users:
                yield found(option.word, f"{twins} x {seqs} answers run at once, for {users} users")
        elif seqs < 64 and not _kv_is_the_limit(facts, engine, seqs):
            kind = facts.kind_of(engine.service)
            usual = usual_flags(engine.command, kind).max_num_seqs
            default = f"the default is {usual}" if kind else "the default is 256, or 1024 on cards of 70 GiB and more"
            yield found(option.word, f"only {seqs} answers run at once in each instance; {default}")


def _siblings(facts: Facts, engine: ServedEngine) -> tuple[ServedEngine, ...]:
    return tuple(other for other in facts.engines if other.command.model == engine.command.model)


def _kv_is_the_limit(facts: Facts, engine: ServedEngine, seqs: int) -> bool:
    """Whether the KV cache holds no more sequences of the longest length than that."""
    fit = fit_of(facts, engine)
    length = engine.command.integer("--max-model-len")
    return fit is not None and length is not None and fit.kv_tokens < 2 * seqs * length


@rule("VL010", INFO)
def large_steps(facts: Facts) -> Iterable[Finding]:
    """--max-num-batched-tokens is far above the default.

    Consequence: Long prefill steps hold up the decoding of the others (spikes between tokens), and start-up profiling
    sets more memory aside for activations, which leaves less for the KV cache.

    Evidence: https://docs.vllm.ai/en/stable/configuration/optimization/; the defaults in 0.32.0's arg_utils are 2048,
    8192 on H100-class cards and 16384 from 160 GB up.

    Fix: Drop it, or take 8192 to 16384 on H100-class cards, and measure TTFT against the time between tokens.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-batched-tokens, "32768"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-batched-tokens, "8192"]
    ```
    """
    for engine, option in named_options(facts, "--max-num-batched-tokens"):
        tokens = option.integer()
        usual = usual_flags(engine.command, facts.kind_of(engine.service)).max_num_batched_tokens or 0
        if tokens is not None and tokens > 2 * usual and not made_by_atoll(facts, engine.service):
            yield found(option.word, f"steps of {tokens} tokens; the default here is {usual}")


@rule("VL011", ERROR)
def steps_too_small(facts: Facts) -> Iterable[Finding]:
    """--max-num-batched-tokens is below --max-num-seqs, or below --max-model-len with chunked prefill off.

    Consequence: vLLM stops with a ValueError at start.

    Evidence: config/scheduler.py of 0.32.0, verify_max_model_len.

    Fix: Raise --max-num-batched-tokens, or leave chunked prefill on.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-batched-tokens, "512", --max-num-seqs, "1024"]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-batched-tokens, "8192", --max-num-seqs, "1024"]
    ```
    """
    for engine, option in named_options(facts, "--max-num-batched-tokens"):
        tokens, command = option.integer(), engine.command
        if tokens is None:
            continue
        seqs, length = command.integer("--max-num-seqs"), command.integer("--max-model-len")
        if not command.has("--max-model-len") and engine.card is not None:
            length = engine.card.max_context
        chunking = [command.option(name) for name in ("--no-enable-chunked-prefill", "--disable-chunked-prefill")]
        if seqs is not None and tokens < seqs:
            yield found(
                option.word,
                f"--max-num-batched-tokens {tokens} is below --max-num-seqs {seqs}",
                edits=replace_option(option, option.name, str(max(seqs, 8192))),
            )
        elif any(chunking) and length and tokens < length:
            yield found(
                option.word,
                f"--max-num-batched-tokens {tokens} is below --max-model-len {length} with chunked prefill off",
                edits=tuple(edit for off in chunking if off is not None for edit in remove_option(off)),
            )


@rule("VL012", INFO)
def says_the_default(facts: Facts) -> Iterable[Finding]:
    """--enable-chunked-prefill or --enable-prefix-caching is spelled out.

    Consequence: Both are on by default; noise that hides the settings that matter.

    Evidence: https://docs.vllm.ai/en/stable/configuration/optimization/.

    Fix: Drop it.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --enable-chunked-prefill]
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
    ```
    """
    for engine, option in named_options(facts, "--enable-chunked-prefill", "--enable-prefix-caching"):
        old = engine.command.version is not None and engine.command.version < ON_BY_DEFAULT_SINCE
        if option.value is None and not old:
            yield found(option.word, f"{option.name} is on by default", edits=remove_option(option))


@rule("VL013", WARNING)
def no_length_limit(facts: Facts) -> Iterable[Finding]:
    """No --max-model-len on a model with a long context.

    Consequence: The start fails when the KV cache does not hold one request of full length, or only a few requests run
    at once.

    Evidence: vLLM's start-up check; 80 % of public traffic is below 2 k tokens (https://arxiv.org/html/2604.09613v1).

    Fix: Set --max-model-len to the longest request that you serve plus a margin, or `auto` since 0.20.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [meta-llama/Llama-3.1-8B-Instruct]
        gpus: [{device_ids: ["0"]}]
    ```
    ```options
    gpu: L4
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [meta-llama/Llama-3.1-8B-Instruct, --max-model-len, "8192"]
        gpus: [{device_ids: ["0"]}]
    ```
    ```options
    gpu: L4
    ```
    """
    for engine in facts.engines:
        if engine.command.has("--max-model-len") or engine.card is None:
            continue
        fit, shortens = fit_of(facts, engine), engine.command.table.version >= AUTO_LENGTH_SINCE
        if fit is None or not fit.fits or _suits_its_load(facts, engine, fit):
            continue
        if fit.kv_tokens < 2 * engine.card.max_context:
            yield found(
                engine.service,
                f"{engine.name} asks for the model's {engine.card.max_context:,} tokens; its KV cache holds"
                f" {fit.kv_tokens:,}",
                edits=_add(engine, "--max-model-len", "auto") if shortens else (),
            )


def _suits_its_load(facts: Facts, engine: ServedEngine, fit: MemoryFit) -> bool:
    """Whether the start is certain, whatever the arithmetic may be wrong by, and the load is known.

    Blocks are taken as tokens come, not for the longest request that may be sent: how many run at once is then
    MF006's question, and the limit would change nothing.
    """
    load, card = facts.load_at(engine.service.file), engine.card
    known = card is not None and load.prompt_tokens is not None and load.output_tokens is not None
    return known and card is not None and fit.sure_longest >= card.max_context


def _add(engine: ServedEngine, *words: str) -> Edits:
    return add_option(engine.command.words, words, engine.service.get("command"))


@rule("VL015", WARNING)
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


@rule("VL017", INFO)
def no_admission_limit(facts: Facts) -> Iterable[Finding]:
    """Several instances, and none refuses work.

    Consequence: vLLM's queue has no end, so the balancer never learns that an instance is full and cannot spill over.

    Evidence: the help of 0.32.0: beyond --max-num-queued-reqs a request gets a 503, to try another instance.

    Fix: Set --max-num-queued-reqs to the queue that you would wait for, and let nginx retry on 503 (NG011).

    Fails:
    ```compose.yaml
    services:
      vllm-0: &vllm
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
      vllm-1: *vllm
      nginx:
        image: nginx:1.31.3
        volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_next_upstream error timeout http_503 non_idempotent; } }
    }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm-0: &vllm
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --max-num-queued-reqs, "64"]
      vllm-1: *vllm
      nginx:
        image: nginx:1.31.3
        volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]
    ```
    ```nginx.conf
    events {}
    http {
      upstream vllm { server vllm-0:8000; server vllm-1:8000; }
      server { location /v1/ { proxy_pass http://vllm; proxy_next_upstream error timeout http_503 non_idempotent; } }
    }
    ```
    """
    for route in facts.upstream_routes:
        engines = [engine for engine in facts.engines if engine.service in route.services]
        limits = ("--max-num-queued-reqs", "--max-num-queued-tokens")
        unlimited = [engine for engine in engines if not engine.command.has(*limits)]
        known = all(engine.command.table.known(limits[0]) for engine in engines)
        if len(engines) > 1 and unlimited and known and not made_by_atoll(facts, engines[0].service):
            names = join([engine.name for engine in unlimited])
            yield found(unlimited[0].service, f"{names} queue without a limit")


@rule("VL018", WARNING)
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
        if command.version is None and not _is_official(engine):
            continue
        yield found(
            engine.service,
            f"{engine.name} aborts its running answers when it is stopped",
            edits=_add(engine, "--shutdown-timeout", "120"),
        )


@rule("VL019", INFO)
def silent_queue(facts: Facts) -> Iterable[Finding]:
    """A proxy's read timeout is shorter than a request may wait, and the stream stays silent meanwhile.

    Consequence: Queue and prefill send nothing; a silence longer than the proxy's timeout cuts the stream.

    Evidence: the help of 0.32.0; the cut was seen with nginx 1.31.3.

    Fix: --sse-keep-alive-interval 15 (chat and completions), or a longer proxy_read_timeout.

    Fails:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct]
      nginx:
        image: nginx:1.31.3
        volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_read_timeout 60s; } } }
    ```

    Passes:
    ```compose.yaml
    services:
      vllm:
        image: vllm/vllm-openai:v0.32.0
        command: [Qwen/Qwen2.5-7B-Instruct, --sse-keep-alive-interval, "15"]
      nginx:
        image: nginx:1.31.3
        volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]
    ```
    ```nginx.conf
    events {}
    http { server { location /v1/ { proxy_pass http://vllm:8000; proxy_read_timeout 60s; } } }
    ```
    """
    for route in facts.answering:
        timeout = read_timeout(route)
        if timeout is None or timeout > 120:
            continue
        for service in route.engines:
            command = service.vllm
            if command is None or command.has("--sse-keep-alive-interval"):
                continue
            if command.table.known("--sse-keep-alive-interval"):
                words = ("--sse-keep-alive-interval", "15")
                yield found(
                    service,
                    f"{service.name} sends nothing while a request waits; nginx cuts after {timeout:g} s of silence",
                    edits=add_option(command.words, words, service.get("command")),
                )


@rule("VL025", INFO)
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


@rule("VL026", ERROR)
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


@rule("VL028", WARNING)
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


@rule("VL029", WARNING)
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


@rule("VL030", INFO)
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


RULES = (
    removed_option,
    deprecated_option,
    repeated_program,
    model_as_option,
    value_for_switch,
    old_value_syntax,
    abbreviated_option,
    invented_option,
    few_sequences,
    large_steps,
    steps_too_small,
    says_the_default,
    no_length_limit,
    eager,
    data_parallel_dense,
    no_admission_limit,
    abrupt_shutdown,
    silent_queue,
    quantization_said,
    bfloat16_on_old_cards,
    offloaded_weights,
    ray_on_one_node,
    prefix_cache_off,
    no_metrics,
)
