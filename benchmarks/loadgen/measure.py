"""Hold load generators against a server that knows the truth.

The server (truth_server.c where there is a compiler, else truth_server.py) is pinned to core 0, the client and all its
children to the other cores named by --client-cores. Each client runs alone, --runs times; medians are shown. What is
measured:

- held: mean number of streams open at the server between the moments when all had started and the first ended for good
- TTFT error: the client's TTFT minus the server's, as distributions (mean, p50, p99); ITL error: of the means
- chunks per CPU-second: chunks that the server sent / CPU-seconds of the client's whole process tree
- peak memory of the tree, seconds from start to its first request, and from the last answer to its end

    python benchmarks/loadgen/measure.py --clients atoll,vllm-rs --levels 30,256,1000,4000,4000@40 --runs 3 -o out.json

A level is a number of users; `4000@40` has 40 ms between tokens instead of 20.

A client that is not installed is left out. vllm-rs is the program of that name inside the vllm wheel (0.33.0);
--vllm-rs gives its place. The Python peers are found as --peer-root/NAME/bin/PROGRAM.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
PORT = 9731
URL = f"http://127.0.0.1:{PORT}"
TRUTH = {"ttft": 0.2, "itl": 0.02, "tokens": 50}
FLOOD = {"ttft": 0.0, "itl": 0.0, "tokens": 200}


def answer_s(shape: dict) -> float:
    return shape["ttft"] + shape["itl"] * (shape["tokens"] - 1)


@dataclass(frozen=True)
class Job:
    """One run of one client."""

    users: int
    seconds: float
    tokens: int
    answer_s: float
    ramp_s: float
    place: Path


@dataclass(frozen=True)
class Told:
    """What a client says: its TTFTs and its mean ITL, in seconds."""

    ttft: list[float]
    itl_mean: float | None
    note: str = ""


@dataclass(frozen=True)
class Client:
    command: Callable[[Job], list[str]]
    told: Callable[[Job], Told]
    environment: dict[str, str]


def atoll_client(workers: int = 1) -> Client:
    def command(job: Job) -> list[str]:
        return [
            *("script", "-qec"),  # a terminal of its own, so that the live view is drawn
            (
                f"{sys.executable} -m atoll bench {URL} --users {job.users} --duration {job.seconds}s"
                f" --ramp {job.ramp_s}s --prompt 32 --output {job.tokens} --model truth --workers {workers}"
                f" -o {job.place / 'run'}"
            ),
            "/dev/null",
        ]

    def told(job: Job) -> Told:
        from atoll.store.folder import read_run

        run = read_run(job.place / "run")
        client = json.loads((job.place / "run" / "client.json").read_text())
        ttft = (run.table.first_token_s - run.table.sent_s).tolist()
        return Told(ttft, run.summary.itl_s.mean, client["verdict"])

    return Client(command, told, {})


def requests_of(job: Job, *, flood: int) -> int:
    """For clients without a time limit: what the users send in that time; `flood` a user where answers take none."""
    return max(job.users, round(job.users * job.seconds / job.answer_s)) if job.answer_s else job.users * flood


def vllm_rs_client(program: Path, tokenizer: Path) -> Client:
    def command(job: Job) -> list[str]:
        prompts = requests_of(job, flood=60)
        return [
            *(str(program), "bench", "serve", "--backend", "openai-chat", "--base-url", URL),
            *("--endpoint", "/v1/chat/completions", "--model", "truth", "--tokenizer", str(tokenizer)),
            *("--dataset-name", "random", "--random-input-len", "32", "--random-output-len", str(job.tokens)),
            *("--num-prompts", str(prompts), "--max-concurrency", str(job.users), "--ignore-eos", "--save-result"),
            *("--save-detailed", "--result-dir", str(job.place), "--result-filename", "result.json"),
        ]

    def told(job: Job) -> Told:
        plain = json.loads((job.place / "result.json").read_text())
        return Told([value for value in plain["ttfts"] if value], plain["mean_itl_ms"] / 1e3)

    return Client(command, told, {})


def guidellm_client(program: Path, tokenizer: Path) -> Client:
    def command(job: Job) -> list[str]:
        return [
            *(str(program), "run", "--backend", f"kind=openai_http,target={URL},model=truth"),
            *("--profile", f"kind=concurrent,streams={job.users}"),
            *("--constraint", f"kind=max_duration,seconds={job.seconds:g}"),
            *("--tokenizer", f"kind=huggingface_auto,model={tokenizer}"),
            *("--data", f"kind=synthetic_text,prompt_tokens=32,output_tokens={job.tokens}"),
            *("--output", f"kind=json,path={job.place / 'result.json'}"),
        ]

    def told(job: Job) -> Told:
        (benchmark,) = json.loads((job.place / "result.json").read_text())["benchmarks"]
        rows = benchmark["requests"]["successful"]
        itl = benchmark["metrics"]["inter_token_latency_ms"]["successful"]["mean"] / 1e3
        return Told([row["time_to_first_token_ms"] / 1e3 for row in rows], itl)

    return Client(command, told, {"HF_HUB_OFFLINE": "1"})


def aiperf_client(program: Path, tokenizer: str, hub: Path) -> Client:
    def command(job: Job) -> list[str]:
        return [
            *(str(program), "profile", "-m", "truth", "--url", URL, "--endpoint-type", "chat", "--streaming"),
            *("--tokenizer", tokenizer, "--concurrency", str(job.users), "--benchmark-duration", f"{job.seconds:g}"),
            *("--isl", "32", "--osl", str(job.tokens), "--artifact-dir", str(job.place), "--ui", "simple"),
        ]

    def told(job: Job) -> Told:
        lines = [json.loads(line) for line in (job.place / "profile_export.jsonl").read_text().splitlines()]
        ttft = [line["metrics"]["time_to_first_token"]["value"] / 1e3 for line in lines if not line.get("error")]
        plain = json.loads((job.place / "profile_export_aiperf.json").read_text())
        return Told(ttft, plain["inter_token_latency"]["avg"] / 1e3)

    return Client(command, told, {"HF_HUB_OFFLINE": "1", "HF_HOME": str(hub)})


def locust_client(program: Path) -> Client:
    def command(job: Job) -> list[str]:
        return [
            *(str(program), "-f", str(HERE / "locustfile.py"), "--headless", "--users", str(job.users), "--host", URL),
            *("--spawn-rate", str(max(1, round(job.users / job.ramp_s))), "--run-time", f"{job.seconds:g}s"),
            "--only-summary",
        ]

    def told(job: Job) -> Told:
        plain = json.loads((job.place / "locust.json").read_text())
        return Told(plain["ttft"], plain["itl_mean"])

    return Client(command, told, {"LOCUST_OUT": "locust.json"})


def genai_bench_client(program: Path, tokenizer: Path) -> Client:
    def command(job: Job) -> list[str]:
        prompts = requests_of(job, flood=8)
        return [  # --api-backend, --api-key and --task in this order: each option's check reads the ones before it
            *(str(program), "benchmark", "--api-backend", "vllm", "--api-base", URL, "--api-key", "none"),
            *("--task", "text-to-text", "--api-model-name", "truth", "--model-tokenizer", str(tokenizer)),
            *("--traffic-scenario", f"D(32,{job.tokens})", "--num-concurrency", str(job.users)),
            *("--spawn-rate", str(max(1, round(job.users / job.ramp_s)))),
            # the time limit is in whole minutes, so the number of requests has to end the run (looked at once a second)
            *("--max-requests-per-run", str(prompts), "--max-time-per-run", str(max(1, round(job.seconds / 60)))),
            *("--metrics-refresh-interval", "1"),  # else all percentiles anew at each answer
            *("--experiment-base-dir", str(job.place), "--experiment-folder-name", "result"),
        ]

    def told(job: Job) -> Told:
        (path,) = (job.place / "result").glob("D32_*_time_*s.json")
        plain = json.loads(path.read_text())
        rows = [row for row in plain["individual_request_metrics"] if not row["error_code"]]
        return Told([row["ttft"] for row in rows], plain["aggregated_metrics"]["stats"]["tpot"]["mean"])

    return Client(command, told, {"HF_HUB_OFFLINE": "1", "ENABLE_UI": "false"})


def inference_perf_client(program: Path, tokenizer: Path) -> Client:
    one_group = {"num_groups": 1, "system_prompt_len": 0, "question_len": 32}
    left_out = ("request", "response", "info", "response_chunks")

    def command(job: Job) -> list[str]:
        prompts = requests_of(job, flood=8)
        config = {
            "api": {"type": "chat", "streaming": True},
            "server": {"type": "vllm", "model_name": "truth", "base_url": URL, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": str(tokenizer)},
            "data": {
                "type": "shared_prefix",
                "shared_prefix": dict(one_group, num_prompts_per_group=prompts, output_len=job.tokens),
                # random and synthetic speak only /v1/completions, and so does shared_prefix unless this is there
                "multimodal": {},
            },
            "load": {
                "type": "concurrent",
                "num_workers": 1,  # else one for each of the machine's cores, whatever it may use of them
                "interval": 0,
                "stages": [{"num_requests": prompts, "concurrency_level": job.users}],
            },
            "report": {
                "request_lifecycle": {
                    "summary": True,
                    "per_stage": False,
                    "per_request": True,
                    "per_request_fields": dict.fromkeys(left_out, False) | {"computed_metrics": True},
                }
            },
            "storage": {"local_storage": {"path": str(job.place / "reports")}},
        }
        (job.place / "config.yaml").write_text(json.dumps(config))
        return [str(program), "--config_file", str(job.place / "config.yaml"), "--log-level", "WARNING"]

    def told(job: Job) -> Told:
        rows = json.loads((job.place / "reports/per_request_lifecycle_metrics.json").read_text())
        ttft = [row["computed_metrics"]["time_to_first_token"] for row in rows if not row["error"]]
        plain = json.loads((job.place / "reports/summary_lifecycle_metrics.json").read_text())
        return Told(
            [value for value in ttft if value is not None],
            plain["successes"]["latency"]["inter_token_latency"]["mean"],
        )

    return Client(command, told, {"HF_HUB_OFFLINE": "1"})


def ask(path: str) -> dict:
    with urllib.request.urlopen(URL + path, timeout=60) as answer:
        return json.loads(answer.read())


def compile_server(folder: Path) -> Path | None:
    """The server in C, which has a core's worth of streams more in it; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    program = folder / "truth_server"
    subprocess.run([compiler, "-O2", "-o", str(program), str(HERE / "truth_server.c")], check=True)
    return program


def start_server(shape: dict, program: Path | None = None) -> subprocess.Popen:
    if program is not None:
        command = [str(program), str(PORT), *(str(shape[name]) for name in ("ttft", "itl", "tokens")), "0"]
    else:
        options = [f"--{name}={value}" for name, value in shape.items()]
        command = [sys.executable, str(HERE / "truth_server.py"), "--port", str(PORT), "--core", "0", *options]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    server.stdout.readline()
    return server


class Tree:
    """CPU-seconds and memory of a process and all that it starts."""

    def __init__(self, pid: int) -> None:
        self.pid, self.peak_bytes, self._seen = pid, 0, {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._end.wait(0.2):
            self.peak_bytes = max(self.peak_bytes, sum(_memory(pid) for pid in _family(self.pid)))

    def stop(self) -> None:
        self._end.set()
        self._thread.join()


def _family(root: int) -> list[int]:
    found, open_ = [], [root]
    while open_:
        pid = open_.pop()
        found.append(pid)
        try:
            for task in Path(f"/proc/{pid}/task").iterdir():
                open_ += [int(child) for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def _memory(pid: int) -> int:
    """Proportional set size, so that pages shared within the tree count once."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def run_once(client: Client, users: int, shape: dict, seconds: float, cores: set[int]) -> dict | None:
    """One run, and what the server and the client say of it; None when the client failed."""
    with tempfile.TemporaryDirectory(prefix="atoll-loadgen-") as folder:
        whole_s = answer_s(shape)
        job = Job(users, seconds, shape["tokens"], whole_s, whole_s or 0.1, Path(folder))
        ask("/reset")
        began = time.monotonic()
        before = os.times()
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, sorted(cores))), *client.command(job)],
            cwd=folder,
            env={**os.environ, **client.environment},
            stdout=subprocess.DEVNULL,
            stderr=(Path(folder) / "stderr").open("wb"),
            start_new_session=True,
        )
        tree = Tree(process.pid)
        try:
            code = process.wait(timeout=seconds * 4 + 120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            code = -9
        ended = time.monotonic()
        tree.stop()
        after = os.times()
        truth = ask("/truth")
        if code != 0 or not truth["ended"]:
            words = (Path(folder) / "stderr").read_text(errors="replace").strip().splitlines()
            print(f"    failed with {code}: {words[-1][:200] if words else ''}", flush=True)
            return None
        told = client.told(job)
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return held_against(truth, told, users) | {
        "cpu_s": cpu,
        "chunks_per_cpu_s": truth["chunks"] / cpu,
        "peak_mb": tree.peak_bytes / 1e6,
        "start_s": min(truth["began"]) - began,
        "report_s": ended - max(truth["ended"]),
        "note": told.note,
    }


def held_against(truth: dict, told: Told, users: int) -> dict:
    """The client's figures less the server's."""
    began, ended = np.sort(truth["began"]), np.sort(truth["ended"])
    start = began[min(users, len(began)) - 1]
    end = began[-1]
    since_began, since_ended = (np.clip(end - np.maximum(at, start), 0, None).sum() for at in (began, ended))
    known, mine = np.array(truth["ttft"]), np.array([value for value in told.ttft if not np.isnan(value)])
    return {
        "requests": len(ended),
        "connections": truth["connections"],
        "held": float((since_began - since_ended) / (end - start)) if end > start else None,
        "ttft_error_ms": {
            "mean": float(mine.mean() - known.mean()) * 1e3,
            "p50": float(np.quantile(mine, 0.5) - np.quantile(known, 0.5)) * 1e3,
            "p99": float(np.quantile(mine, 0.99) - np.quantile(known, 0.99)) * 1e3,
        },
        "itl_error": None
        if not truth["itl_mean"] or told.itl_mean is None
        else (told.itl_mean - truth["itl_mean"]) / truth["itl_mean"],
    }


def median_of(runs: list[dict]) -> dict:
    """Figure by figure, over the runs."""
    made: dict = {}
    for name, value in runs[0].items():
        values = [run[name] for run in runs]
        if isinstance(value, dict):
            made[name] = {key: statistics.median(one[key] for one in values) for key in value}
        elif isinstance(value, int | float) and all(one is not None for one in values):
            made[name] = statistics.median(values)
        else:
            made[name] = value
    return made


def clients_of(args: argparse.Namespace) -> dict[str, Client]:
    tokenizer = Path(args.tokenizer)
    known: dict[str, Client] = {"atoll": atoll_client(), "atoll-2": atoll_client(2)}
    if args.vllm_rs:
        known["vllm-rs"] = vllm_rs_client(Path(args.vllm_rs), tokenizer)
    root = Path(args.peer_root)
    if (root / "guidellm/bin/guidellm").exists():
        known["guidellm"] = guidellm_client(root / "guidellm/bin/guidellm", tokenizer)
    if (root / "aiperf/bin/aiperf").exists():
        known["aiperf"] = aiperf_client(root / "aiperf/bin/aiperf", "local/tok", Path(args.hub))
    if (root / "genai-bench/bin/genai-bench").exists():
        known["genai-bench"] = genai_bench_client(root / "genai-bench/bin/genai-bench", tokenizer)
    if (root / "inference-perf/bin/inference-perf").exists():
        known["inference-perf"] = inference_perf_client(root / "inference-perf/bin/inference-perf", tokenizer)
    if (root / "locust/bin/locust").exists():
        known["locust"] = locust_client(root / "locust/bin/locust")
    return {name: known[name] for name in args.clients.split(",") if name in known}


def level_of(text: str) -> tuple[int, dict]:
    """`1000`, or `4000@40` for an ITL of 40 ms, in which the server's own core keeps up."""
    users, _, itl_ms = text.partition("@")
    return int(users), TRUTH | ({"itl": float(itl_ms) / 1e3} if itl_ms else {})


def show(name: str, level: str, figures: dict) -> None:
    error = figures["ttft_error_ms"]
    itl = "-" if figures["itl_error"] is None else f"{figures['itl_error']:+.2%}"
    held = "-" if figures["held"] is None else f"{figures['held']:.1f}"
    print(
        f"{name:14} {level:>6}  held {held:>7}  TTFT error mean {error['mean']:7.2f} p50 {error['p50']:7.2f}"
        f" p99 {error['p99']:8.2f} ms  ITL {itl:>7}  {figures['chunks_per_cpu_s']:9,.0f} chunks/CPU-s"
        f"  {figures['peak_mb']:6.0f} MB  start {figures['start_s']:.2f} s  report {figures['report_s']:.2f} s",
        flush=True,
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--clients", default="atoll,vllm-rs")
    options.add_argument("--levels", default="30,256,1000,4000,4000@40")
    options.add_argument("--flood", type=int, default=256, help="users of the run with TTFT 0 and ITL 0; 0: none")
    options.add_argument("--seconds", type=float, default=20)
    options.add_argument("--runs", type=int, default=3)
    options.add_argument("--client-cores", default="1")
    options.add_argument("--vllm-rs")
    options.add_argument("--peer-root", default="/nowhere")
    options.add_argument("--tokenizer", default="/nowhere")
    options.add_argument("--hub", default="/nowhere")
    options.add_argument("--server", choices=("c", "python"), default="c", help="c needs a compiler, else python")
    options.add_argument("-o", "--out")
    args = options.parse_args()
    cores = {int(core) for core in args.client_cores.split(",")}
    results: dict[str, dict[str, list[dict]]] = {}
    jobs = [(level, *level_of(level), args.seconds) for level in args.levels.split(",") if level]
    if args.flood:
        jobs.append(("flood", args.flood, FLOOD, min(args.seconds, 8.0)))
    build = tempfile.TemporaryDirectory(prefix="atoll-truth-")
    program = compile_server(Path(build.name)) if args.server == "c" else None
    for level, users, shape, seconds in jobs:
        server = start_server(shape, program)
        try:
            for _ in range(args.runs):
                for name, client in clients_of(args).items():
                    found = run_once(client, users, shape, seconds, cores)
                    if found is not None:
                        results.setdefault(level, {}).setdefault(name, []).append(found)
                        show(name, level, found)
        finally:
            server.terminate()
            server.wait()
    build.cleanup()
    print("\nmedians")
    for level, by_client in results.items():
        for name, runs in by_client.items():
            show(name, level, median_of(runs))
    if args.out:
        Path(args.out).write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
