"""A table of measurements made by others: each row becomes a layout and a load, or the reason why it cannot.

The columns are those of docs/validation.md; flags of the engine stand in `notes` as on a command line. Nothing in
a row is taken on trust: blanks, words where numbers belong and unknown names are reasons to skip it.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from pydantic import ValidationError

from atoll.errors import AtollError, InputError
from atoll.inventory.box import Box, Link, LinkKind
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Policy, Replica, Router
from atoll.misfits import misfit, show_path
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.traffic.workload import Start, Workload
from atoll.workflows.measured_lengths import SPREADS, Spread, mean_of
from atoll.workflows.memory_rows import MARKS

COLUMNS = ("id", "model", "gpu", "n_gpu", "engine")
COLUMNS_OF_STARTS = ("id", "model", "gpu")
# For rows that do not say; most of those were measured in spring 2026, and their all-reduces over eight GPUs take what
# those before 0.19 took.
VERSION = "0.16.0"
ROUNDS = 10  # requests a user in closed loops of unknown length, as those sweeps have
MOST_REQUESTS = 4000
AUTO_WORKERS = 64  # `worker_processes auto` is one a core of a server with eight GPUs


@dataclass(frozen=True, kw_only=True, slots=True)
class Measures:
    """Seconds and tokens per second; None where nothing was measured."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    output_tokens_per_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """One row that can be predicted."""

    id: str
    family: str  # source, GPU, way of loading
    model: str  # with its format
    layout: Layout
    card: ModelCard
    workload: Workload
    measured: Measures
    prompt_tokens: float  # mean
    output_tokens: float  # mean
    users: int | None
    median: bool = False  # the row gives the median TTFT, not the mean
    kv_blocks: int | None = None
    arrivals: "Rehearsed | None" = None  # an open loop whose arrivals are known
    warm_up_rounds: int = 0  # requests a user before those that count; `workload.requests` is without them
    through_host: bool = False  # no peer access between the GPUs


@dataclass(frozen=True, kw_only=True, slots=True)
class Rehearsed:
    """An open loop whose arrivals are known: the same prompts at several rates, one after the other, one server.

    Prompts that are still in the prefix cache from the runs before cost next to nothing.
    """

    seed: int  # of vLLM's benchmark, for the gaps between requests
    rates_before: tuple[float, ...]  # requests a second


class Unfit(Exception):
    """A row that cannot be expressed; its text is the reason."""


def read_rows(text: str, *, origin: str, folder: Path | None = None) -> list[dict[str, str]]:
    """The rows of a CSV table, paths in its column `config` as seen from here.

    Args:
        text: the table.
        origin: its name, for errors.
        folder: where it lies; paths in it are relative to that.

    Raises:
        InputError: it lacks the columns that a prediction needs.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=False)
    try:
        rows = [
            {
                key: (value or "").strip()
                for key, value in row.items()
                if isinstance(key, str) and (value is None or isinstance(value, str))
            }
            for row in reader
        ]
    except csv.Error as error:
        raise InputError(f"{origin}: this is not a CSV table: {error}.") from None
    named = reader.fieldnames or ()
    needed = COLUMNS_OF_STARTS if all(mark in named for mark in MARKS) else COLUMNS
    missing = [column for column in needed if column not in named]
    if missing:
        raise InputError(f"{origin}: the column {missing[0]} is missing; docs/validation.md lists the columns.")
    for row in rows:
        if row.get("config") and folder is not None:
            row["config"] = str(folder / row["config"])
    return rows


def make_case(row: Mapping[str, str]) -> Case:
    """The row as layout and load; raises Unfit with the reason."""
    try:
        return _make_case(row)
    except ValidationError as error:
        problem = error.errors()[0]
        raise Unfit(misfit(problem, place=show_path(problem["loc"]))) from None


def _make_case(row: Mapping[str, str]) -> Case:
    notes = row.get("notes", "").lower()
    _refuse_other_engines(row, notes)
    row = _with_what_notes_say(row, notes)
    measured = _measures(row)
    card, quantisation = _model(row)
    layout = _layout(row, card, quantisation, notes)
    workload = _workload(row, measured)
    return Case(
        id=row["id"],
        family=_family(row, workload),
        model=f"{row['model'].split('/')[-1]} {row.get('dtype') or card.dtype}",
        layout=layout,
        card=card,
        workload=workload,
        measured=measured,
        prompt_tokens=mean_of(workload.prompt),
        output_tokens=mean_of(workload.output),
        users=workload.users,
        median=not row.get("ttft_ms_mean") and bool(row.get("ttft_ms_p50")),
        kv_blocks=_count_in(notes, r"kv blocks (\d+)"),
        arrivals=_rehearsed(row, workload),
        warm_up_rounds=_warm_up_rounds(row, workload),
        through_host=_without_peer_access(row),
    )


def _refuse_other_engines(row: Mapping[str, str], notes: str) -> None:
    engine = row.get("engine", "").lower()
    if engine != "vllm":
        raise Unfit(f"engine {engine or 'not named'}: only vLLM's scheduler is modelled")
    for word, reason in _OUT_OF_REACH:
        if re.search(word, notes) or re.search(word, row.get("interconnect", "").lower()):
            raise Unfit(reason)


_OUT_OF_REACH = (
    (r"speculative|\bmtp\b|eagle|draft model", "speculative decoding is not modelled"),
    (r"gbe|infiniband|multi-?node|two nodes|2 nodes", "several nodes are not modelled"),
    (r"litellm|least-busy", "a router that atoll does not model"),
    (r"lora", "LoRA adapters are not modelled"),
    (r"disaggregat|prefill/decode split", "disaggregated prefill is not modelled"),
)


def _number(row: Mapping[str, str], column: str) -> float | None:
    """A finite number, None for a blank; raises Unfit for anything else."""
    text = row.get(column, "")
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        raise Unfit(f"{column} is {text!r}, not a number") from None
    if not 0 <= value < 1e12:
        raise Unfit(f"{column} is {text}, which cannot be")
    return value


def _with_what_notes_say(row: Mapping[str, str], notes: str) -> Mapping[str, str]:
    """The row with the data of an open loop or burst, where it has no columns for them and says so in words."""
    said = {"length_spread": "sharegpt" if "sharegpt" in notes else ""}
    if not row.get("concurrency"):
        said["prompts"] = str(_count_in(notes, r"(\d+) (?:\w+ )?(?:prompts|requests)(?: at once)?") or "")
    return {**row, **{column: words for column, words in said.items() if not row.get(column)}}


def _measures(row: Mapping[str, str]) -> Measures:
    def seconds(*columns: str) -> float | None:
        for column in columns:
            value = _number(row, column)
            if value:
                return value / 1e3
        return None

    throughput = _number(row, "output_tok_s")
    if not throughput:
        rate, tokens = _number(row, "req_s"), _number(row, "output_tokens")
        throughput = rate * tokens if rate and tokens else None
    if not throughput:
        total, prompt, answer = (_number(row, column) for column in ("total_tok_s", "input_tokens", "output_tokens"))
        throughput = total * answer / (prompt + answer) if total and prompt and answer else None
    found = Measures(
        ttft_s=seconds("ttft_ms_mean", "ttft_ms_p50"),
        tpot_s=seconds("tpot_ms_mean", "itl_ms"),
        output_tokens_per_s=throughput or None,
    )
    if found == Measures():
        raise Unfit("neither TTFT, TPOT nor throughput was measured")
    return found


def _model(row: Mapping[str, str]) -> tuple[ModelCard, str | None]:
    """The card in the row's format, and the quantisation that vLLM would do while loading."""
    name, dtype = row.get("model", ""), row.get("dtype", "").lower()
    if not name:
        raise Unfit("no model is named")
    named = (*(f"{name}{suffix}" for suffix in _suffixes(dtype)), name)
    for candidate in (row["config"],) if row.get("config") else named:
        try:
            card = read_model(candidate)
        except AtollError:
            continue
        if dtype.startswith("fp8") and card.quantisation.method is None:
            return card, "fp8"
        if _is_another_format(dtype, card):
            raise Unfit(f"no checkpoint of {name} in {dtype} is known")
        return card, None
    raise Unfit(f"unknown model {name!r}")


def _suffixes(dtype: str) -> tuple[str, ...]:
    words = {"awq": "-AWQ", "gptq-int8": "-GPTQ-Int8", "gptq": "-GPTQ-Int4"}
    return tuple(suffix for word, suffix in words.items() if dtype.startswith(word))[:1]


def _is_another_format(dtype: str, card: ModelCard) -> bool:
    """Whether the row's format is 4 or 8 bits and the card's is plain."""
    return card.quantisation.method is None and bool(re.search(r"int4|int8|awq|gptq|fp4|nf4", dtype))


def _layout(row: Mapping[str, str], card: ModelCard, quantisation: str | None, notes: str) -> Layout:
    replicas = max(1, int(_number(row, "replicas") or 1))
    gpus = int(_number(row, "n_gpu") or 0)
    split = int(_number(row, "tp") or 0) or (gpus // max(1, replicas))
    if split == 0:
        raise Unfit("neither tp nor n_gpu is given")
    gpus = max(gpus, split * replicas)
    stages = gpus // (split * replicas) if "pp=" in notes or "pipeline" in notes else 1
    if gpus > 16 or split * stages * replicas > gpus:
        raise Unfit(f"{split * stages * replicas} GPUs in one box")
    box = _box(row, gpus)
    size = split * stages
    return Layout(
        name="row",
        model=card.name,
        box=box,
        replicas=tuple(
            Replica(gpus=box.indices[at * size : (at + 1) * size], tensor_parallel=split, pipeline_parallel=stages)
            for at in range(replicas)
        ),
        router=_router(row.get("router", "").lower()),
        flags=_flags(row, quantisation, notes),
        engine_version=_version(row),
    )


def _box(row: Mapping[str, str], gpus: int) -> Box:
    name = row.get("gpu", "")
    if not name:
        raise Unfit("no GPU is named")
    words = row.get("interconnect", "").lower()
    try:
        kind = find_gpu(name)
        box = make_box(kind.name, gpus)
    except AtollError:
        raise Unfit(f"unknown GPU {name!r}") from None
    # "unknown (PCIe or bridge)" is read as PCIe: a rented pair of cards has no bridge.
    if "bridge" in words and "unknown" not in words and gpus > 1:
        count = int(found[1]) if (found := re.search(r"nv(\d+)", words)) else max(1, kind.nvlinks)
        return box.replace(links=tuple(_bridged(link, count) for link in box.links))
    return box


def _without_peer_access(row: Mapping[str, str]) -> bool:
    """Whether the GPUs reach each other through the host's memory alone."""
    return bool(re.search(r"no p2p|p2p off", row.get("interconnect", "").lower()))


def _bridged(link: Link, nvlinks: int) -> Link:
    """Pairs 0-1, 2-3 ... carry a bridge."""
    return Link(a=link.a, b=link.b, kind=LinkKind.NV, nvlinks=nvlinks) if link.a // 2 == link.b // 2 else link


def _router(words: str) -> Router:
    """`least_conn; workers 4; shared zone no`; without words, or vLLM's own before its engines, the default."""
    if not words or words == "vllm data parallel":
        return Router()
    policy, *rest = (word.strip() for word in words.split(";"))
    try:
        router = Router(policy=Policy(policy))
    except ValueError:
        raise Unfit(f"{words}: a router that atoll does not model") from None
    for setting in rest:
        if found := re.fullmatch(r"workers (\d+|auto)", setting):
            router = router.replace(workers=AUTO_WORKERS if found[1] == "auto" else int(found[1]))
        elif setting in {"shared zone yes", "shared zone no"}:
            router = router.replace(shared_zone=setting.endswith("yes"))
        else:
            raise Unfit(f"router says {setting!r}, which is not understood")
    return router


def _flags(row: Mapping[str, str], quantisation: str | None, notes: str) -> EngineFlags:
    utilization = re.search(r"gpu-memory-utilization (0\.\d+)", notes)
    return EngineFlags(
        quantization=quantisation,
        kv_cache_dtype="fp8" if "fp8 kv" in notes or "kv fp8" in notes else "auto",
        max_num_seqs=_count_in(notes, r"max-num-seqs (\d+)"),
        max_num_batched_tokens=_count_in(notes, r"max-num-batched-tokens (\d+)"),
        max_model_len=_count_in(notes, r"max-model-len (\d+)"),
        gpu_memory_utilization=float(utilization[1]) if utilization else None,
        enable_expert_parallel="enable-expert-parallel" in notes or None,
        enforce_eager="enforce-eager" in notes or "enforce_eager" in notes,
        enable_prefix_caching=row.get("prefix_cache") != "off" and "no-enable-prefix-caching" not in notes,
    )


def _count_in(notes: str, pattern: str) -> int | None:
    found = re.search(pattern, notes)
    return int(found[1]) or None if found else None


def _version(row: Mapping[str, str]) -> str:
    text = row.get("engine_version", "").lstrip("v")
    found = re.match(r"0\.(\d{1,2})(\.\d+)?", text)
    if found and not text.startswith("0.1.dev"):
        return text.split("+")[0]
    return VERSION


def _workload(row: Mapping[str, str], measured: Measures) -> Workload:
    if "concurrency" in row.get("doubt", "").split():
        raise Unfit("the number of users is not known, only the batch that was planned for")
    prompt, answer = _number(row, "input_tokens"), _number(row, "output_tokens")
    if not prompt or not answer or prompt < 1 or answer < 1:
        raise Unfit("prompt or answer length is not given")
    if prompt + answer > 2_000_000:
        raise Unfit("prompt and answer are longer than any model reads")
    of_prompts, of_answers = _spreads(row)
    plain: dict[str, object] = {"prompt": of_prompts(prompt), "output": of_answers(answer), "seed": 1}
    plain |= _arrivals(row) | {"start": _start(row.get("start", ""), measured, answer)}
    distinct = _number(row, "distinct_prompts")
    if distinct or row.get("prefix_cache") == "warm":
        plain["distinct_prompts"] = int(distinct or 0) or plain["requests"]
    return Workload.model_validate(plain)


def _spreads(row: Mapping[str, str]) -> tuple[Spread, Spread]:
    """Of prompts and of answers: one word for both, or one each."""
    words = row.get("length_spread", "").split() or [""]
    if len(words) > 2 or not set(words) <= set(SPREADS):
        raise Unfit(f"length_spread is {' '.join(words)!r}; known are fixed, 0.8-1.0 and sharegpt")
    if words == [""] and (_number(row, "concurrency") or 0) <= 1:
        words = ["fixed"]
    return SPREADS[words[0]], SPREADS[words[-1]]


def _arrivals(row: Mapping[str, str]) -> dict[str, object]:
    users, prompts = _number(row, "concurrency"), int(_number(row, "prompts") or 0)
    if users:
        if users > 20_000:
            raise Unfit(f"{users:,.0f} users")
        rounds = min(max(ROUNDS * users, ROUNDS * 2), max(MOST_REQUESTS, users))
        return {"users": int(users), "requests": min(prompts, MOST_REQUESTS) or int(rounds)}
    if row.get("request_rate", "").lower() in {"inf", "infinity"}:
        count = min(prompts or 1000, MOST_REQUESTS)
        return {"users": count, "requests": count}
    per_second = _number(row, "request_rate")
    if not per_second:
        raise Unfit("neither concurrency nor request rate is given")
    return {"rate": per_second, "requests": min(prompts or 500, MOST_REQUESTS)}


def _start(words: str, measured: Measures, answer: float) -> Start | float:
    """A word or seconds; `spread` is over the time that one answer took."""
    if words in {"", "at_once"}:
        return Start.AT_ONCE
    if words == "spread" and measured.tpot_s:
        return (measured.ttft_s or 0.0) + measured.tpot_s * answer
    if ramp := re.fullmatch(r"ramp (\d+(?:\.\d+)?)s", words):
        return float(ramp[1])
    raise Unfit(f"start is {words!r}; known are at_once, ramp Ns and, where TPOT was measured, spread")


def _warm_up_rounds(row: Mapping[str, str], workload: Workload) -> int:
    """Requests a user before those that count; a warm prefix cache has seen every prompt before."""
    if workload.users is None:
        return 0
    rounds = int(_number(row, "warm_up") or 0)
    if row.get("prefix_cache") == "warm":
        rounds = max(rounds, ceil((workload.distinct_prompts or 0) / workload.users))
    return rounds


def _rehearsed(row: Mapping[str, str], workload: Workload) -> Rehearsed | None:
    seed = _number(row, "arrival_seed")
    if seed is None or workload.rate is None:
        return None
    try:
        return Rehearsed(seed=int(seed), rates_before=tuple(map(float, row.get("rates_before", "").split())))
    except ValueError:
        raise Unfit(f"rates_before is {row['rates_before']!r}; it lists requests a second, as in 32 16 8") from None


def _family(row: Mapping[str, str], workload: Workload) -> str:
    """Rows of one source on one kind of GPU, with one way of loading."""
    source = row["id"].split("-")[0]
    load = "closed" if workload.users and workload.requests != workload.users else "open" if workload.rate else "burst"
    return f"{source} {row.get('gpu', '')} {load}"


def cases_or_reasons(rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[Mapping[str, str], Case | str]]:
    """Every row with its case, or with the reason why there is none."""
    for row in rows:
        try:
            yield row, make_case(row)
        except Unfit as reason:
            yield row, str(reason)
