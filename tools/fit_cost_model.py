"""Fit the cost model's kernel curves to measured kernel tables, and write them as the small files that atoll ships.

The tables are parquet files inside two Apache-2.0 wheels on PyPI. Fetch and unpack them (the tables are no run-time
dependency of atoll; pyarrow comes with its test extra):

    pip download --no-deps -d /tmp/wheels aiconfigurator-core==0.12.0
    pip download --no-deps --pre --only-binary :all: --python-version 3.12 -d /tmp/wheels aisimulate
    unzip -q -o '/tmp/wheels/aisimulate*.whl' -x '*silicon_sample.csv' -d /tmp/wheels/tables
    python tools/fit_cost_model.py /tmp/wheels/tables/aisimulate_core/systems/data src/atoll/data/cost

`silicon_sample.csv` is left out on purpose: it holds end-to-end measurements, and those are for checking, not fitting.
The script prints how well the shipped curves reproduce rows that they were not made from.
"""

import json
import sys
from collections import defaultdict
from itertools import product
from math import log2
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow.parquet as pq

SOURCE = (
    "Measured by NVIDIA, kernel tables of the Apache-2.0 wheels aisimulate 0.13.0.dev202610270000000085 and"
    " aiconfigurator-core 0.12.0 (systems/data), thinned and smoothed by tools/fit_cost_model.py"
)
# System -> (peak bf16 flop/s, peak fp8 flop/s, bytes/s): the rates beside which the ratios are taken. They are those of
# the tables' own systems/*.yaml.
SYSTEMS = {
    "h100_sxm": (989e12, 1978e12, 3.35e12),
    "h200_sxm": (989e12, 1978e12, 4.8e12),
    "a100_sxm": (312e12, None, 2.039e12),
    "l40s": (362.05e12, 733e12, 864e9),
    "rtx_pro_6000_server": (467.8e12, 935.6e12, 1.792e12),
    "b200_sxm": (2250e12, 4500e12, 7.7e12),
}
VERSIONS = {
    "h100_sxm": ("0.24.0", "0.25.0"),
    "h200_sxm": ("0.24.0", "0.25.0"),
    "a100_sxm": ("0.14.0",),
    "l40s": ("0.24.0",),
    "rtx_pro_6000_server": ("0.24.0",),
    "b200_sxm": ("0.24.0", "0.25.0"),
}
TOKENS = (
    1,
    8,
    16,
    32,
    64,
    96,
    128,
    129,
    192,
    256,
    257,
    512,
    513,
    768,
    1024,
    1025,
    1536,
    2048,
    2049,
    3072,
    4096,
    8192,
    16384,
)
SIDES = (128, 256, 512, 1024, 2048, 3072, 4096, 5120, 7168, 10240, 16384, 65536)
FORMATS = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block", "int4_wo": "int4_wo", "int8_wo": "int8_wo"}
WEIGHT = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int4_wo": 0.52, "int8_wo": 1.0}
ACTIVATION = {"bf16": 2.0, "fp8": 1.0, "fp8_block": 1.0, "int4_wo": 2.0, "int8_wo": 2.0}
BASE_S = 4e-6  # added to the roofline, so that ratios of tiny kernels stay near one
RESOLUTION = 64  # ratios are stored as round(64 log2 r): 1.1 % a step


def read(path: Path) -> dict:
    """A parquet file as columns; empty when there is none."""
    return pq.read_table(path).to_pydict() if path.exists() else {}


def encode(ratio: float) -> int:
    return round(RESOLUTION * log2(ratio))


def roof(rates: tuple, name: str, m: int, n: int, k: int) -> float:
    """Seconds of a perfect card plus BASE_S; the same formula stands in atoll.cost.kernels."""
    peak = rates[1] if name in {"fp8", "fp8_block"} and rates[1] else rates[0]
    traffic = WEIGHT[name] * n * k + ACTIVATION[name] * m * k + 2.0 * m * n
    return BASE_S + max(2.0 * m * n * k / peak, traffic / rates[2])


def gemm_rows(data: Path, system: str) -> dict:
    """{format: {(m, n, k): seconds}}, the geometric mean over versions, the best kernel of each."""
    logs: dict = defaultdict(lambda: defaultdict(list))
    for version in VERSIONS[system]:
        table = read(data / system / "gemm" / "vllm" / version / "gemm_perf.parquet")
        best: dict = {}
        for kind, m, n, k, ms in zip(*(table[c] for c in ("gemm_dtype", "m", "n", "k", "latency")), strict=True):
            key = (FORMATS.get(kind), m, n, k)
            best[key] = min(ms * 1e-3, best.get(key, 1e9))
        for (name, *shape), seconds in best.items():
            if name:
                logs[name][tuple(shape)].append(np.log(seconds))
    if system == "a100_sxm":  # weight-only formats: TensorRT-LLM's kernels are the only ones in the tables
        table = read(data / system / "gemm" / "trtllm" / "1.0.0" / "gemm_perf.parquet")
        for kind, m, n, k, ms in zip(*(table[c] for c in ("gemm_dtype", "m", "n", "k", "latency")), strict=True):
            if kind in {"int4_wo", "int8_wo"}:
                logs[kind][m, n, k].append(np.log(ms * 1e-3))
    return {name: {s: float(np.exp(np.mean(v))) for s, v in rows.items()} for name, rows in logs.items()}


def fit_gemm(rows: dict, rates: tuple, name: str) -> dict:
    """Ratios to the roofline on a coarse grid; a hole is filled from the nearest neighbour along n, then k, then m."""
    known = set(rows)
    tokens = [m for m in TOKENS if any(s[0] == m for s in known)]
    columns = [n for n in SIDES if any(s[1] == n for s in known)]
    inner = [k for k in SIDES if any(s[2] == k for s in known)]
    if name != "fp8":  # only the fp8 kernel minds an odd number of rows enough to keep both
        tokens = [m for m in tokens if m % 2 == 0 or m == 1]
    ratio = {}
    for m, n, k in product(tokens, columns, inner):
        seconds = rows.get((m, n, k))
        ratio[m, n, k] = None if seconds is None else seconds / roof(rates, name, m, n, k)
    flat = [encode(fill(ratio, (m, n, k), tokens, columns, inner)) for m, n, k in product(tokens, columns, inner)]
    return {"tokens": tokens, "columns": columns, "inner": inner, "ratio": flat}


def fill(ratio: dict, key: tuple, tokens: list, columns: list, inner: list) -> float:
    if ratio[key] is not None:
        return ratio[key]

    def away(other: tuple) -> float:
        return sum(abs(log2(a / b)) * w for a, b, w in zip(other, key, (2.0, 1.0, 1.0), strict=True))

    near = min((s for s in product(tokens, columns, inner) if ratio[s] is not None), key=away)
    return ratio[near]


def attention_rows(data: Path, system: str, which: str) -> list:
    rows = []
    for version in VERSIONS[system]:
        table = read(data / system / "attention" / "vllm" / version / f"{which}_attention_perf.parquet")
        if not table:
            continue
        table.setdefault("window_size", [0] * len(table["latency"]))
        names = (
            "kv_cache_dtype",
            "window_size",
            "head_dim",
            "num_heads",
            "num_key_value_heads",
            "batch_size",
            "isl",
            "step",
            "latency",
        )
        rows += list(zip(*(table[c] for c in names), strict=True))
    return rows


LENGTHS = (1, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
HEAD_COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


def fit_prefill(rows: list, head_dim: int, window: int) -> dict | None:
    """Microseconds of causal attention of one layer, by (heads x prompts, prompt length), grouped-query models."""
    groups: dict = defaultdict(list)
    for kv, win, dim, heads, kv_heads, batch, isl, _, ms in rows:
        wanted = (win, dim) == (window, head_dim) and kv in {"bfloat16", "float16"}
        grouped = heads > kv_heads or heads == 1
        if wanted and grouped and (batch == 1 or heads == 64):  # beyond 64 heads: several prompts of 64
            groups[heads * batch, isl].append(ms * 1e3)
    heads = [h for h in HEAD_COUNTS if all((h, i) in groups for i in (128, 1024))]
    lengths = [i for i in LENGTHS if any((h, i) in groups for h in heads)]
    if not heads:
        return None
    table = []
    for h in heads:
        for i in lengths:
            near = groups.get((h, i))
            if near is None:  # beyond the table: work grows with heads x length^2
                known = [(a, b) for a, b in groups if a <= h and b <= i]
                a, b = max(known, key=lambda p: p[0] * p[1] ** 2)
                near = [median(groups[a, b]) * (h * work(i, window)) / (a * work(b, window))]
            table.append(round(median(near), 1))
    return {"heads": heads, "lengths": lengths, "us": table}


def work(length: int, window: int) -> float:
    """Pairs of tokens that a causal prompt looks at."""
    if not window or length <= window:
        return length * (length + 1) / 2
    return window * (window + 1) / 2 + (length - window) * window


STREAMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


def fit_decode(rows: list, rates: tuple, head_dim: int, kv_dtype: str) -> dict | None:
    """Decode attention of one layer: floor(streams) + bytes / (share(streams) * bandwidth).

    Streams are prompts x KV heads.
    The share is the slope between sizes beyond the 50 MB of on-chip cache in which the benchmark's smaller cases stay
    (in a real step the weights have passed through it in between); the floor is the shortest context's time.
    """
    size = 1 if kv_dtype == "fp8" else 2
    groups: dict = defaultdict(lambda: defaultdict(list))
    for kv, win, dim, heads, kv_heads, batch, _, step, ms in rows:
        same = kv == "fp8" if kv_dtype == "fp8" else kv in {"bfloat16", "float16"}
        if same and win == 0 and dim == head_dim and 2 <= heads / kv_heads <= 16:
            groups[batch * kv_heads][step + 1].append(ms * 1e-3)
    floors, shares, used = [], [], []
    for streams in STREAMS:
        lengths = {length: median(v) for length, v in groups.get(streams, {}).items()}
        if not lengths:
            continue
        floor = median([v for length, v in lengths.items() if length <= 64] or [min(lengths.values())])
        far = [
            (v - floor) / (2.0 * size * streams * head_dim * length / rates[2])
            for length, v in lengths.items()
            if 2.0 * size * streams * head_dim * length > CACHE_BYTES
        ]
        used.append(streams)
        floors.append(round(floor * 1e6, 1))
        shares.append(round(1 / median(far), 3) if far else None)
    if not used:
        return None
    last = next(s for s in reversed(shares) if s is not None)
    shares = [last if s is None else s for s in shares]
    return {"streams": used, "floor_us": floors, "share": [min(s, 0.97) for s in shares]}


CACHE_BYTES = 120e6  # twice the largest L2 (H100 50 MB; L40S 96 MB is close enough above)


def fit_window_decode(rows: list, head_dim: int, window: int) -> dict | None:
    """Microseconds of one layer that looks back `window` tokens, contexts beyond the window, by streams."""
    groups: dict = defaultdict(list)
    for kv, win, dim, heads, kv_heads, batch, _, step, ms in rows:
        if (
            win == window
            and dim == head_dim
            and kv in {"bfloat16", "float16"}
            and step >= 2 * window
            and heads > kv_heads
        ):
            groups[batch * kv_heads].append(ms * 1e3)
    used = [s for s in STREAMS if s in groups]
    return {"streams": used, "us": [round(median(groups[s]), 1) for s in used]} if used else None


MOE_TOKENS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
MOE_FORMATS = {
    "bfloat16": "bf16",
    "fp8": "fp8",
    "fp8_block": "fp8_block",
    "int4_wo": "int4_wo",
    "w4a16_mxfp4": "mxfp4_wo",
}


def fit_experts(data: Path, system: str) -> list:
    """Microseconds of the routed experts of one layer, tensor parallel, by shape and tokens; skewed routing."""
    groups: dict = defaultdict(list)
    names = (
        "kernel_source",
        "moe_dtype",
        "hidden_size",
        "inter_size",
        "topk",
        "num_experts",
        "moe_tp_size",
        "moe_ep_size",
        "distribution",
        "num_tokens",
        "latency",
    )
    for version in VERSIONS[system]:
        table = read(data / system / "moe" / "vllm" / version / "moe_perf.parquet")
        if not table:
            continue
        best: dict = {}
        for kernel, kind, h, i, top, e, tp, ep, spread, m, ms in zip(*(table[c] for c in names), strict=True):
            # ModelOpt's per-tensor path is five times slower than Triton's; checkpoints in plain fp8 run Triton.
            usable = ep == 1 and tp <= 8 and "modelopt" not in kernel
            if usable and spread.startswith("power_law") and kind in MOE_FORMATS:
                key = (MOE_FORMATS[kind], h, i, top, e, tp, m, spread)
                best[key] = min(ms * 1e3, best.get(key, 1e12))
        for key, us in best.items():
            groups[key[:-1]].append(us)
    shapes = sorted({key[:5] for key in groups})
    out = []
    for shape in shapes:
        splits = [tp for tp in (1, 2, 4, 8) if all((*shape, tp, m) in groups for m in MOE_TOKENS)]
        if splits:
            us = [round(float(np.exp(np.mean(np.log(groups[*shape, tp, m]))))) for tp in splits for m in MOE_TOKENS]
            name, hidden, inter, top, experts = shape
            out.append(
                {
                    "format": name,
                    "hidden": hidden,
                    "intermediate": inter,
                    "active": top,
                    "routed": experts,
                    "splits": splits,
                    "us": us,
                }
            )
    return out


def fit_reduce(data: Path, system: str) -> dict:
    """All-reduce microseconds by (who, ranks), graph-launched where the table has both; message sizes in bytes."""
    out: dict = {}
    for folder in sorted((data / system / "comm" / "vllm").glob("*")):
        table = read(folder / "custom_allreduce_perf.parquet")
        if not table:
            continue
        points: dict = defaultdict(dict)
        for ranks, size, ms, kernel in zip(
            *(table[c] for c in ("num_gpus", "message_size", "latency", "kernel_source")), strict=True
        ):
            if kernel.endswith("graph") and 4096 <= 2 * size <= 2**27:
                points[ranks][2 * size] = round(ms * 1e3, 2)
        for ranks, curve in sorted(points.items()):
            sizes = sorted(curve)
            # The kernel itself never takes less for more bytes; an isolated dip is noise.
            us = list(np.maximum.accumulate([curve[s] for s in sizes]))
            out[f"vllm-{folder.name}-{ranks}"] = [[s, float(u)] for s, u in zip(sizes, us, strict=True)]
    for folder in (data / system / "comm" / "nccl" / version for version in ("2.29.2", "2.27.3")):
        table = read(folder / "nccl_perf.parquet")
        if not table:
            continue
        points = defaultdict(dict)
        for op, kind, ranks, size, ms in zip(
            *(table[c] for c in ("op_name", "nccl_dtype", "num_gpus", "message_size", "latency")), strict=True
        ):
            if op == "all_reduce" and kind == "half" and 4096 <= 2 * size <= 2**27:
                points[ranks][2 * size] = round(ms * 1e3, 2)
        for ranks, curve in sorted(points.items()):
            out[f"nccl-{folder.name}-{ranks}"] = [[s, curve[s]] for s in sorted(curve)]
        break
    return out


def check_gemm(rows: dict, grid: dict, rates: tuple, name: str) -> str:
    """How well the grid reproduces rows beside its points."""
    from atoll.cost.kernels import Grid

    table = Grid.from_plain(grid)
    errors = []
    for (m, n, k), seconds in rows.items():
        if n in grid["columns"] and k in grid["inner"]:
            continue
        if min(n, k) < 512 or max(n, k) > 20000 or (m % 2 and m > 1):
            continue
        errors.append(table.ratio(m, n, k) * roof(rates, name, m, n, k) / seconds - 1)
    errors = np.array(errors)
    size = np.abs(errors)
    spread = f"median |error| {np.median(size):.1%}, p90 {np.quantile(size, 0.9):.1%}, bias {errors.mean():+.1%}"
    return f"{len(errors)} rows beside the grid: {spread}"


def fit_system(data: Path, system: str) -> dict:
    rates = SYSTEMS[system]
    rows = gemm_rows(data, system)
    gemm = {name: fit_gemm(shapes, rates, name) for name, shapes in rows.items() if len(shapes) > 5000}
    for name, grid in gemm.items():
        print(f"{system} gemm {name}: {check_gemm(rows[name], grid, rates, name)}")
    context, generation = attention_rows(data, system, "context"), attention_rows(data, system, "generation")
    prefill = {}
    for dim, window in ((128, 0), (64, 0), (256, 0), (64, 128), (128, 128), (128, 8192), (256, 1024)):
        fitted = fit_prefill(context, dim, window)
        if fitted:
            prefill[f"{dim}-{window}"] = fitted
    decode = {}
    for dim, kv in product((64, 128, 256), ("bf16", "fp8")):
        fitted = fit_decode(generation, rates, dim, kv)
        if fitted:
            decode[f"{dim}-{kv}"] = fitted
    windows = {}
    for dim, window in ((64, 128), (128, 128), (256, 1024)):
        fitted = fit_window_decode(generation, dim, window)
        if fitted:
            windows[f"{dim}-{window}"] = fitted
    return {
        "source": SOURCE,
        "system": system,
        "versions": list(VERSIONS[system]),
        "peak_bf16": rates[0],
        "peak_fp8": rates[1],
        "bytes_per_s": rates[2],
        "resolution": RESOLUTION,
        "gemm": gemm,
        "prefill": prefill,
        "decode": decode,
        "decode_window": windows,
        "expert_tokens": list(MOE_TOKENS),
        "experts": fit_experts(data, system),
        "reduce": fit_reduce(data, system),
    }


def write(path: Path, fitted: dict) -> None:
    """One line a table: small, and still a diff that can be read."""
    lines = [f"{json.dumps(key)}: {json.dumps(value, separators=(',', ':'))}" for key, value in fitted.items()]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[3:] or SYSTEMS:
        write(target / f"{name}.json", fit_system(source, name))
