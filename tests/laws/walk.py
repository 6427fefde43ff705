"""The walk: what plan writes, render renders, doctor finds nothing to say against, and simulate agrees with.

    python tests/laws/walk.py --count 200            # the seeds 1 to 200; a table of the worst disagreements
    python tests/laws/walk.py --seed 17 --keep out   # one of them, with its files and every finding

A combination of box, model, load, lengths and targets is drawn by its seed. It is planned, the layout that plan puts
first is rendered in both ways, doctor reads the layout and the bundles, and the simulator runs the layout under the
load that stands in it.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import process_time

from atoll.analyse.summary import Summary
from atoll.doctor.finding import Finding, Severity
from atoll.errors import AtollError
from atoll.inventory.box import Box, Gpu, Link, LinkKind
from atoll.inventory.catalog import all_gpus, find_gpu
from atoll.layout.layout import Layout
from atoll.model.read import read_model
from atoll.plan.goal import Goal
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.boxes import named_box
from atoll.workflows.diagnose import diagnose_bundle, diagnose_layout
from atoll.workflows.plan import Plan, check_something_fits, plan_document, plan_model
from atoll.workflows.render import render_layout
from atoll.workflows.simulate import simulate_run

ROOT = Path(__file__).parents[2]
CAPTURES = (  # of tests/data/topo unless a folder is named, with a kind of card that such a box has
    ("examples/four-h100-nvl/topo.txt", "H100-NVL-94GB"),
    ("002-a100-sxm4-4gpu-uneven-numa.txt", "A100-SXM-80GB"),
    ("003-a100-8gpu-mlx5x2-indented.txt", "A100-SXM-40GB"),
    ("010-hf-doc-2gpu-phb.txt", "RTX-4090-24GB"),
    ("016-rtx5090-2gpu-phb-and-p2prw.txt", "RTX-5090-32GB"),
    ("019-rtx6000pro-8gpu-cpayne-pxb.txt", "RTX-PRO-6000-96GB"),
    ("020-rtx6000pro-8gpu-cpayne-flat-pix4.txt", "RTX-PRO-6000-MAXQ-96GB"),
    ("024-polaris-a100-4gpu-header-mixed.txt", "A100-SXM-40GB"),
    ("028-princeton-a100-pcie-4gpu-node-sys.txt", "A100-PCIe-40GB"),
    ("031-power9-v100-4gpu-nv3-pairs.txt", "V100-SXM-32GB"),
    ("035-blog-4gpu-nv4-pairs-comma-affinity.txt", "A6000-48GB"),
    ("037-v100-4gpu-mixed-nv1-nv2-mlx5.txt", "V100-SXM-16GB"),
    ("043-azure-nd40rs-v100-8gpu-scrambled.txt", "V100-SXM-32GB"),
    ("045-dgx1-v100-8gpu-nic-order-0213.txt", "V100-SXM-32GB"),
    ("050-a100-4gpu-nv12-pairs-xeon-nvlinkp.txt", "A100-PCIe-80GB"),
    ("056-sglang-8gpu-nv12-pairs-nics.txt", "H100-NVL-94GB"),
    ("065-topo-mp-3gpu-sys-node.txt", "A40-48GB"),
    ("067-a6000-3gpu-one-bridge.txt", "A6000-48GB"),
    ("069-vllm-env-5gpu-phb.txt", "RTX-3090-24GB"),
    ("070-docker-5gpu-pix-pairs-cross-numa.txt", "A10-24GB"),
    ("073-p100-pcie-8gpu-pix4-groups.txt", "P100-PCIe-16GB"),
    ("081-a5500-4gpu-crossed-pairs.txt", "A5500-24GB"),
    ("084-a100-pcie-6gpu-crossed-bridges.txt", "A100-PCIe-80GB"),
    ("093-l40s-4gpu-node-sys-nics.txt", "L40S-48GB"),
    ("096-rtx4090-8gpu-all-sys-nic.txt", "RTX-4090-24GB"),
    ("100-h800-4gpu-nv8-minimal.txt", "H800-SXM-80GB"),
    ("105-2gpu-nv12-colorized-split-numa.txt", "A100-SXM-80GB"),
    ("111-rtx3090-2gpu-sys-numa-na-shifted.txt", "RTX-3090-24GB"),
    ("114-6gpu-pix-node-two-sockets.txt", "A30-24GB"),
    ("121-h200-8gpu-empty-affinity-spaces.txt", "H200-SXM-141GB"),
    ("132-gh200-4gpu-numa-lists-header-misaligned.txt", "GH200-96GB"),
    ("133-gb200-4gpu-nv18-nic8-numa-lists.txt", "GB200-186GB"),
    ("136-b300-8gpu-9nics-ansi-nic-legend-offset.txt", "B300-288GB"),
    ("140-gtx1070-7gpu-legend-before-matrix.txt", "A4000-16GB"),
    ("142-h100-8gpu-12nics-pix-pxb-no-lead-tab.txt", "H100-SXM-80GB"),
)
MIXED = (  # cards of two kinds in one box, in this order
    (("RTX-PRO-6000-96GB", 1), ("RTX-4090-24GB", 1)),
    (("RTX-4090-24GB", 1), ("RTX-PRO-6000-96GB", 1)),
    (("H100-PCIe-80GB", 1), ("L40S-48GB", 1)),
    (("L40S-48GB", 1), ("H100-PCIe-80GB", 1)),
    (("H100-PCIe-80GB", 2), ("L40S-48GB", 2)),
    (("RTX-3090-24GB", 2), ("RTX-4090-24GB", 2)),
    (("A100-PCIe-80GB", 1), ("A100-PCIe-40GB", 2)),
    (("RTX-5090-32GB", 1), ("RTX-3090-24GB", 3)),
    (("L4-24GB", 4), ("L40S-48GB", 1)),
)
SIZES = (1, 1, 2, 2, 2, 3, 4, 4, 4, 5, 6, 7, 8, 8, 8, 12, 16)  # cards of a catalogue box
MODELS = (
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct",
    "Qwen/Qwen2.5-7B-Instruct-AWQ",
    "Qwen/Qwen2.5-14B-Instruct-AWQ",
    "Qwen/Qwen2.5-14B-Instruct-GPTQ-Int4",
    "Qwen/Qwen2.5-32B-Instruct",
    "Qwen/Qwen2.5-32B-Instruct-AWQ",
    "Qwen/Qwen2.5-72B-Instruct",
    "Qwen/Qwen2.5-72B-Instruct-GPTQ-Int8",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-14B-FP8",
    "Qwen/Qwen3-32B-AWQ",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-30B-A3B-FP8",
    "Qwen/Qwen3-235B-A22B-FP8",
    "Qwen/Qwen3.5-27B",
    "meta-llama/Llama-2-13b-hf",
    "meta-llama/Llama-3.2-3B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct-FP8",
    "meta-llama/Llama-3.1-70B-Instruct-AWQ-INT4",
    "meta-llama/Llama-3.1-405B-Instruct-FP8",
    "meta-llama/Llama-4-Scout-17B-16E-Instruct",
    "mistralai/Mistral-Nemo-Instruct-2407",
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "deepseek-ai/DeepSeek-V2-Lite-Chat",
    "deepseek-ai/DeepSeek-V3",
    "google/gemma-3-27b-it",
    "google/gemma-2-9b-it",
    "microsoft/phi-4",
    "openai/gpt-oss-20b",
    "openai/gpt-oss-120b",
    "01-ai/Yi-34B-Chat",
)
USERS = (1, 2, 4, 8, 8, 16, 24, 30, 30, 48, 64, 100, 128, 200, 256, 400, 600, 1000)
RATES = (0.05, 0.2, 0.5, 1, 2, 4, 8, 15, 30)
LENGTHS = (  # prompt and answer
    (16, 16), (64, 200), (128, 32), (200, 1), (500, 100), (1024, 512), (1024, 512), (1500, 3000), (2000, 400),
    (2000, 1500), (4000, 200), (8000, 300), (16000, 1000), (30000, 500),
)  # fmt: skip
NEAR_CONTEXT = 0.9  # of what a model takes, in one combination out of fifteen
TTFT_TARGETS = (0.2, 0.5, 1.0, 2.0, 5.0)
TPOT_TARGETS = (0.01, 0.02, 0.03, 0.05, 0.1)

TOLERANCE = {"TTFT": 0.15, "TPOT": 0.05, "E2E": 0.05, "tokens/s": 0.05}
MOST, ROUNDS = 12_000, 15


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One question to the planner."""

    seed: int
    box: Box
    box_words: str  # as options of `atoll plan`; of a mixed box what it is
    model: str
    workload: Workload
    slo: SLO | None

    @property
    def goal(self) -> Goal:
        return Goal(workload=self.workload, slo=self.slo or SLO())

    @property
    def words(self) -> str:
        """The command line that asks it."""
        load = f"--users {self.workload.users}" if self.workload.is_closed else f"--rate {self.workload.rate:g}"
        targets = {} if self.slo is None else {"ttft": self.slo.ttft_s, "tpot": self.slo.tpot_s}
        slo = "".join(f" --slo-{name} {1000 * one:g}ms" for name, one in targets.items() if one is not None)
        return (
            f"atoll plan {self.box_words} --model {self.model} {load} --prompt {self.workload.prompt.mean:g}"
            f" --output {self.workload.output.mean:g}{slo}"
        )


@dataclass(frozen=True, kw_only=True)
class Walked:
    """What came of a combination."""

    combination: Combination
    refused: str | None = None  # the planner's sentence
    plan: Plan | None = None
    findings: tuple[tuple[str, Finding], ...] = ()  # with what doctor looked at: layout, compose, process
    figures: tuple[tuple[str, float, float], ...] = ()  # name, planned, simulated
    spoken_against: tuple[str, ...] = ()  # doctor's sentences against what plan wrote, or a refusal that is none
    apart: tuple[str, ...] = ()  # where plan and simulate say different things
    cpu_s: float = 0.0

    @property
    def wrong(self) -> tuple[str, ...]:
        """Where the law is broken."""
        return (*self.spoken_against, *self.apart)

    @property
    def report(self) -> str:
        """For a person who has to mend it."""
        lines = "\n".join(f"  {line}" for line in self.wrong)
        seed = self.combination.seed
        return f"seed {seed}: {self.combination.words}\n{lines}\n  again: python tests/laws/walk.py --seed {seed} --keep out"


# A combination


def draw(seed: int, *, most_users: int = 1000) -> Combination:
    """The combination of a seed."""
    rng = Random(seed)
    box, box_words = _draw_box(rng)
    model = rng.choice(MODELS)
    prompt, output = rng.choice(LENGTHS)
    if rng.random() < 1 / 15:
        longest = int(NEAR_CONTEXT * read_model(model).max_context)
        output = min(400, longest // 4)
        prompt = longest - output
    by_rate = rng.random() < 0.25
    users = rng.choice([users for users in USERS if users <= most_users])
    rate = rng.choice(RATES)
    targets = rng.choice(("none", "none", "ttft", "tpot", "both"))
    ttft_s, tpot_s = rng.choice(TTFT_TARGETS), rng.choice(TPOT_TARGETS)
    slo = SLO(
        ttft_s=ttft_s if targets in {"ttft", "both"} else None, tpot_s=tpot_s if targets in {"tpot", "both"} else None
    )
    workload = Workload(users=None if by_rate else users, rate=rate if by_rate else None, prompt=prompt, output=output)
    return Combination(
        seed=seed, box=box, box_words=box_words, model=model, workload=workload, slo=None if slo.is_empty else slo
    )


def _draw_box(rng: Random) -> tuple[Box, str]:
    way = rng.random()
    if way < 0.4:
        name, gpu = rng.choice(CAPTURES)
        path = name if "/" in name else f"tests/data/topo/{name}"
        return named_box(capture=ROOT / path, gpu=gpu), f"--box {path} --gpu {gpu}"
    if way < 0.85:
        gpu, count = rng.choice(all_gpus()).name, rng.choice(SIZES)
        return named_box(gpu=gpu, gpus=count), f"--gpu {gpu} --gpus {count}"
    parts = rng.choice(MIXED)
    return mixed_box(parts), "--box box.yaml # " + " + ".join(f"{count} x {gpu}" for gpu, count in parts)


def mixed_box(parts: Sequence[tuple[str, int]]) -> Box:
    """Cards of several kinds on PCIe."""
    names = [gpu for gpu, count in parts for _ in range(count)]
    gpus = tuple(
        Gpu(index=n, name=name, memory_bytes=find_gpu(name).memory_bytes, numa_node=0) for n, name in enumerate(names)
    )
    links = tuple(Link(a=a, b=b, kind=LinkKind.PHB) for a in range(len(names)) for b in range(a + 1, len(names)))
    return Box(gpus=gpus, links=links)


# The walk


def walk(combination: Combination) -> Walked:
    """Plan, render, diagnose, simulate."""
    began = process_time()
    try:
        made = plan_model(read_model(combination.model), combination.box, combination.goal, model=combination.model)
        check_something_fits(made)
    except AtollError as error:
        return Walked(
            combination=combination,
            refused=str(error),
            spoken_against=tuple(_wrong_refusal(error)),
            cpu_s=process_time() - began,
        )
    layout = Layout.parse(made.best.layout.to_yaml(), origin="layout.yaml")
    findings = tuple(_findings(layout))
    figures = tuple(_agreement(made, layout))
    return Walked(
        combination=combination,
        plan=made,
        findings=findings,
        figures=figures,
        spoken_against=tuple(_spoken_against(made, findings)),
        apart=(*_too_far_apart(figures), *_carries_what_it_says(made, layout)),
        cpu_s=process_time() - began,
    )


def _wrong_refusal(error: AtollError) -> Iterator[str]:
    text = str(error)
    if error.exit_code != 2:
        yield f"refused with exit code {error.exit_code}: {text}"
    if "\n" in text or not text.endswith("."):
        yield f"a refusal is one sentence: {text!r}"


def _findings(layout: Layout) -> Iterator[tuple[str, Finding]]:
    yield from (("layout", one) for one in diagnose_layout(layout))
    for to in ("compose", "process"):
        yield from ((to, one) for one in diagnose_bundle(render_layout(layout, to=to).bundle))


def _words_of(where: str, one: Finding) -> str:
    return f"doctor of the {where}: {one.severity} {one.rule} {one.file}:{one.line} {one.what}; fix: {one.fix}"


def _spoken_against(made: Plan, findings: Iterable[tuple[str, Finding]]) -> Iterator[str]:
    """What doctor finds that is more than an information, and whatever advises another size, number or use of cards."""
    for where, one in findings:
        if one.severity is not Severity.INFO:
            yield _words_of(where, one)
        elif one.rule in ADVICE:
            yield f"{_words_of(where, one)}: plan chose {made.best.name}"


ADVICE = frozenset({"TP001", "TP002", "TP003", "TP006", "MF002", "MF006", "MF007"})


def _agreement(made: Plan, layout: Layout) -> Iterator[tuple[str, float, float]]:
    """Each figure of plan's document, and of the layout simulated as `atoll simulate layout.yaml` does.

    Where more requests come than are answered, only the engine's pace is a figure: the rest grows with the run. Two
    kinds of replicas make two humps, and a median lies in the one or the other by a few requests: there it is the means.
    """
    planned = Summary.from_plain(plan_document(made)["choices"][0]["predicted"], origin="plan")
    got = _simulated(layout, layout.workload, planned)
    at = "p50" if _is_even(made) else "mean"
    pairs = [("TPOT", planned.tpot_s, got.tpot_s)]
    if not made.best.predicted.saturated:
        pairs += [("TTFT", planned.ttft_s, got.ttft_s), ("E2E", planned.e2e_s, got.e2e_s)]
        yield "tokens/s", planned.output_tokens_per_s, got.output_tokens_per_s
    for name, one, other in pairs:
        mine, theirs = getattr(one, at), getattr(other, at)
        if mine and theirs:
            yield name, mine, theirs


def _too_far_apart(figures: Iterable[tuple[str, float, float]]) -> Iterator[str]:
    for name, planned, simulated in figures:
        if abs(_apart(planned, simulated)) > TOLERANCE[name]:
            yield f"{name}: plan {planned:.6g}, simulate {simulated:.6g} ({_apart(planned, simulated):+.1%})"


def _is_even(made: Plan) -> bool:
    replicas = made.best.layout.replicas
    return len({(made.workbench.kind(one).name, one.tensor_parallel, one.pipeline_parallel) for one in replicas}) == 1


def _simulated(layout: Layout, load: Workload | None, planned: Summary) -> Summary:
    """Plain `atoll simulate`; a closed loop of more than MOST requests is cut, though not below ROUNDS answers."""
    assert load is not None
    lasts, rate = load.duration_s or 0.0, planned.requests_per_s
    if load.is_closed and rate * lasts > MOST:
        lasts = min(lasts, max(MOST / rate, ROUNDS * (planned.e2e_s.mean or 0.0)))
    return simulate_run(layout, load.replace(duration_s=lasts), slo=layout.slo).summary


def _carries_what_it_says(made: Plan, layout: Layout) -> Iterator[str]:
    """The most users that plan states, sent to the layout as it is written, see their targets met."""
    users, slo, best = made.best.most_users, layout.slo, made.best
    if not users or slo is None or best.most is None or not best.most.simulated or layout.workload is None:
        return
    got = _simulated(layout, layout.workload.replace(users=users), best.predicted.summary)
    for name, target, found in (("TTFT", slo.ttft_s, got.ttft_s.p95), ("TPOT", slo.tpot_s, got.tpot_s.p95)):
        if target is not None and found is not None and found > (1 + TOLERANCE[name]) * target:
            yield f"plan says that {users} users are within the targets; {name} p95 is {found:.4g} s at {target:g} s"


def _apart(planned: float, simulated: float) -> float:
    return simulated / planned - 1


# On demand


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds from there on")
    parser.add_argument("--keep", type=Path, help="write box, layout and bundles into a folder a seed")
    asked = parser.parse_args()
    done: list[Walked] = []
    for seed in range(asked.seed, asked.seed + asked.count):
        walked = walk(draw(seed))
        done.append(walked)
        if walked.wrong or asked.count == 1:
            print(walked.report, flush=True)
        if asked.count == 1:
            print_one(walked)
        if asked.keep is not None:
            keep(walked, asked.keep / str(seed) if asked.count > 1 else asked.keep)
    print_counts(done)
    sys.exit(any(walked.wrong for walked in done))


def print_one(walked: Walked) -> None:
    print(walked.refused or "")
    for where, one in walked.findings:
        print(" ", _words_of(where, one))
    for name, planned, simulated in walked.figures:
        print(f"  {name}: plan {planned:.6g}, simulate {simulated:.6g} ({_apart(planned, simulated):+.1%})")


def print_counts(done: Sequence[Walked]) -> None:
    """How many were planned and refused, what doctor said, and the worst disagreement of each figure."""
    planned = [one for one in done if one.refused is None]
    rules = Counter(f"{f.rule} {f.severity} on the {where}" for one in planned for where, f in one.findings)
    print(
        f"\n{len(done)} combinations: {len(planned)} planned, {len(done) - len(planned)} refused,"
        f" {sum(bool(one.wrong) for one in done)} break the law; {sum(one.cpu_s for one in done):.0f} CPU-s"
    )
    for rule, count in sorted(rules.items()):
        print(f"  {count:4} {rule}")
    print(f"\n{'figure':10} {'allowed':>8} {'compared':>9} {'beyond':>7} {'worst':>8}  of")
    for name, allowed in TOLERANCE.items():
        found = [(_apart(a, b), one) for one in planned for figure, a, b in one.figures if figure == name]
        if found:
            worst, where = max(found, key=lambda pair: abs(pair[0]))
            beyond = sum(abs(apart) > allowed for apart, _ in found)
            print(f"{name:10} {allowed:8.0%} {len(found):9} {beyond:7} {worst:+8.1%}  seed {where.combination.seed}")


def keep(walked: Walked, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "box.yaml").write_text(walked.combination.box.to_yaml())
    if walked.plan is None:
        return
    layout = walked.plan.best.layout
    (folder / "layout.yaml").write_text(layout.to_yaml())
    for to in ("compose", "process"):
        render_layout(layout, to=to, folder=folder / to)


if __name__ == "__main__":
    main()
