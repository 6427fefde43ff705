"""A table of measurements made by others: each row becomes a layout and a load, or the reason why it cannot.

The columns are those of docs/validation.md. Nothing in a row is taken on trust: blanks, words where numbers belong and
unknown names are reasons to skip it.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import NormalDist

from pydantic import ValidationError

from atoll.documents import show_path
from atoll.errors import AtollError, InputError
from atoll.inventory.box import Box, Link, LinkKind
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Replica, Router
from atoll.model.card import ModelCard
from atoll.model.read import read_model
from atoll.traffic.workload import Lengths, Workload

COLUMNS = ("id", "model", "gpu", "n_gpu", "engine")
# For rows that do not say; most of those were measured in spring 2026, and their all-reduces over eight GPUs take what
# those before 0.19 took.
VERSION = "0.16.0"
# Mean lengths of what `vllm bench serve` draws from ShareGPT: 217 tokens in, 202 out in the rows that print totals.
SHAREGPT_PROMPT, SHAREGPT_OUTPUT = 217.0, 202.0
# ... and their spread: conversations of 4 to 1024 tokens in, 2048 in all (vllm/benchmarks/datasets.py).
SHAREGPT_SIGMA, SHAREGPT_LONGEST = 1.0, 1024
# Closed-loop sweeps give the longest length: prompts and answers are drawn from 0.8 of it to all of it
# (InferenceX benchmark_serving.py, --random-range-ratio 0.8; its totals are 0.87 to 0.9 of the nominal ones).
RANDOM_RANGE = 0.8
ROUNDS = 10  # requests = rounds x users in those sweeps
MOST_REQUESTS = 4000


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
    """An open loop by a script that we have read: the same prompts at several rates, one after the other, one server.

    Prompts that are still in the prefix cache from the runs before cost next to nothing.
    """

    seed: int  # of `benchmark_serving.py`, for the gaps between requests
    rates_before: tuple[float, ...]  # requests a second


class Unfit(Exception):
    """A row that cannot be expressed; its text is the reason."""


def read_rows(text: str, *, origin: str) -> list[dict[str, str]]:
    """The rows of a CSV table; raises InputError when it lacks the columns that a prediction needs."""
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
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise InputError(f"{origin}: the column {missing[0]} is missing; docs/validation.md lists the columns.")
    return rows


def make_case(row: Mapping[str, str]) -> Case:
    """The row as layout and load; raises Unfit with the reason."""
    try:
        return _make_case(row)
    except ValidationError as error:
        problem = error.errors()[0]
        raise Unfit(f"{show_path(problem['loc'])}: {problem['msg']}") from None


def _make_case(row: Mapping[str, str]) -> Case:
    notes = row.get("notes", "").lower()
    _refuse_other_engines(row, notes)
    measured = _measures(_with_sharegpt(row, notes))
    card, quantisation = _model(row)
    layout = _layout(row, card, quantisation, notes)
    workload = _workload(row, notes)
    return Case(
        id=row["id"],
        family=_family(row, workload),
        model=f"{row['model'].split('/')[-1]} {row.get('dtype') or card.dtype}",
        layout=layout,
        card=card,
        workload=workload,
        measured=measured,
        prompt_tokens=_mean_of(workload.prompt),
        output_tokens=_mean_of(workload.output),
        users=workload.users,
        median=not row.get("ttft_ms_mean") and bool(row.get("ttft_ms_p50")),
        kv_blocks=_count_in(notes, r"kv blocks (\d+)"),
        arrivals=_rehearsed(row, workload),
        warm_up_rounds=AIPERF_WARM_UP_ROUNDS if _measured_by_aiperf(row) and workload.users else 0,
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
    (r"lora", "LoRA adapters are not modelled"),
    (r"litellm|least-busy|round.?robin", "a router that atoll does not model"),
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


def _with_sharegpt(row: Mapping[str, str], notes: str) -> Mapping[str, str]:
    """The row with ShareGPT's mean lengths, where it names that data and no lengths."""
    if "sharegpt" not in notes or row.get("input_tokens") or row.get("output_tokens"):
        return row
    return {**row, "input_tokens": str(SHAREGPT_PROMPT), "output_tokens": str(SHAREGPT_OUTPUT)}


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
    for candidate in (*(f"{name}{suffix}" for suffix in _suffixes(dtype)), name):
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
        router=Router(),
        flags=_flags(quantisation, notes),
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


def _flags(quantisation: str | None, notes: str) -> EngineFlags:
    utilization = re.search(r"gpu-memory-utilization (0\.\d+)", notes)
    return EngineFlags(
        quantization=quantisation,
        kv_cache_dtype="fp8" if "fp8 kv" in notes or "kv fp8" in notes else "auto",
        max_num_seqs=_count_in(notes, r"max-num-seqs (\d+)"),
        max_num_batched_tokens=_count_in(notes, r"max-num-batched-tokens (\d+)"),
        max_model_len=_count_in(notes, r"max-model-len (\d+)"),
        gpu_memory_utilization=float(utilization[1]) if utilization else 0.90,
        enable_expert_parallel="enable-expert-parallel" in notes or None,
        enforce_eager="enforce-eager" in notes or "enforce_eager" in notes,
        enable_prefix_caching="no-enable-prefix-caching" not in notes,
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


def _workload(row: Mapping[str, str], notes: str) -> Workload:
    if "concurrency column = batch_size" in notes:
        raise Unfit("the number of users is not known, only the batch that was planned for")
    users, rate = _number(row, "concurrency"), row.get("request_rate", "").lower()
    sharegpt = "sharegpt" in notes
    prompt, answer = _number(row, "input_tokens"), _number(row, "output_tokens")
    if sharegpt:
        prompt, answer = prompt or SHAREGPT_PROMPT, answer or SHAREGPT_OUTPUT
    if not prompt or not answer or prompt < 1 or answer < 1:
        raise Unfit("prompt or answer length is not given")
    if prompt + answer > 2_000_000:
        raise Unfit("prompt and answer are longer than any model reads")
    by_aiperf = _measured_by_aiperf(row)
    nominal = users and users > 1 and not by_aiperf
    lengths = _drawn_lengths if sharegpt else _nominal_lengths if nominal else _fixed_lengths
    plain: dict[str, object] = {"prompt": lengths(prompt), "output": lengths(answer), "seed": 1}
    if distinct := AIPERF_PROMPTS if by_aiperf else _distinct_prompts(notes):
        plain["distinct_prompts"] = distinct
    elif shared := _count_in(notes, r"shared_prefix.*?sys (\d+)"):
        plain["shared_prefix_tokens"] = min(shared, int(prompt))
    return Workload.model_validate(plain | _arrivals(users, rate, row, notes))


def _arrivals(users: float | None, rate: str, row: Mapping[str, str], notes: str) -> dict[str, object]:
    if users:
        if users > 20_000:
            raise Unfit(f"{users:,.0f} users")
        rounds = 1 if "single wave" in notes else ROUNDS
        return {"users": int(users), "requests": int(min(max(rounds * users, rounds * 2), max(MOST_REQUESTS, users)))}
    at_once = _count_in(notes, r"(\d+) (?:\w+ )?(?:prompts|requests)(?! x)(?: at once)?")
    if rate in {"inf", "infinity"}:
        count = min(at_once or 1000, MOST_REQUESTS)
        return {"users": count, "requests": count}
    per_second = _number(row, "request_rate")
    if not per_second:
        raise Unfit("neither concurrency nor request rate is given")
    seconds = _count_in(notes, r"stage \d+ (\d+) s\b")
    asked = round(per_second * seconds) if seconds else at_once
    return {"rate": per_second, "requests": min(asked or 500, MOST_REQUESTS)}


# What aiperf sends when it is not told otherwise: lengths without spread, and so many prompts over and over
# (`--num-dataset-entries`, default 100). aiconfigurator's bench_run.sh, which made the rows with decimal lengths of its
# silicon_sample.csv, tells it nothing else, and vLLM finds repeated prompts in its prefix cache. It warms up; then all
# users begin at once. How many requests the rows were made with is inferred from them (docs/validation.md).
AIPERF_PROMPTS = 100
AIPERF_WARM_UP_ROUNDS = 1


def _measured_by_aiperf(row: Mapping[str, str]) -> bool:
    if "silicon_sample.csv" not in row.get("source_url_or_title", ""):
        return False
    lengths = [_number(row, column) or 0.0 for column in ("input_tokens", "output_tokens")]
    return all(length % 1000 == 0 or (length % 100 == 0 and length % 64 != 0) for length in lengths)


def _distinct_prompts(notes: str) -> int | None:
    """`40 distinct prompts`; `9 prompts x 5 users` of inference-perf, whose groups go through their prompts in a loop.

    https://github.com/kubernetes-sigs/inference-perf/pull/257; each round is as long as the first, as
    https://github.com/inference-sim/inference-sim/pull/517 found.
    """
    if group := re.search(r"inference-perf.*?(\d+) prompts x (\d+) users", notes):
        return int(group[1]) * int(group[2])
    return _count_in(notes, r"(\d+) distinct prompts")


# run_benchmark.sh of github.com/IOG-Foundation/llm-inference-benchmarks: `--seed 42`, QPS_VALUES=(32 16 8 4 1).
_IOG, _IOG_SEED, _IOG_RATES = "iog-foundation/llm-inference-benchmarks", 42, (32.0, 16.0, 8.0, 4.0, 1.0)


def _rehearsed(row: Mapping[str, str], workload: Workload) -> Rehearsed | None:
    if _IOG not in row.get("source_url_or_title", "").lower() or workload.rate not in _IOG_RATES:
        return None
    return Rehearsed(seed=_IOG_SEED, rates_before=_IOG_RATES[: _IOG_RATES.index(workload.rate)])


def _fixed_lengths(mean: float) -> Lengths:
    return Lengths(kind="fixed", mean=max(1.0, mean))


def _nominal_lengths(longest: float) -> Lengths:
    """A round number is a sweep's nominal length; anything else is a measured mean."""
    if longest < 64 or longest != int(longest) or (int(longest) % 4 and int(longest) % 50):
        return _fixed_lengths(longest)
    low = int(RANDOM_RANGE * longest)
    return Lengths(kind="uniform", mean=(low + longest) / 2, low=low, high=int(longest))


def _drawn_lengths(mean: float) -> Lengths:
    """Lognormal with this mean after clipping, as ShareGPT's lengths are."""
    if mean >= 0.6 * SHAREGPT_LONGEST:
        return _fixed_lengths(mean)
    low, high = mean, 3 * mean
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _clipped_mean(middle) < mean else (low, middle)
    return Lengths(kind="lognormal", mean=low, sigma=SHAREGPT_SIGMA, low=4, high=SHAREGPT_LONGEST)


def _mean_of(lengths: Lengths) -> float:
    return _clipped_mean(lengths.mean) if lengths.kind == "lognormal" else lengths.mean


def _clipped_mean(mean: float) -> float:
    """Mean of a lognormal above SHAREGPT_LONGEST cut down to it."""
    mu, sigma, top = log(mean) - SHAREGPT_SIGMA**2 / 2, SHAREGPT_SIGMA, log(SHAREGPT_LONGEST)
    normal = NormalDist()
    return mean * normal.cdf((top - mu) / sigma - sigma) + SHAREGPT_LONGEST * (1 - normal.cdf((top - mu) / sigma))


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
