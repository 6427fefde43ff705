"""What does the control plane cost? Server time of every page, live views, memory, idle CPU, first paint, bytes.

python benchmarks/web/measure.py [--runs 10000] [--views 200] [--seconds 20]

A workspace with so many runs is made in a temporary folder, `atoll serve` is started on it as a user would start it,
and asked over loopback by this process. Needs a Chromium for the first paint; says so where there is none.
"""

import argparse
import asyncio
import gzip
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import httpx

from atoll.analyse.summary import summarise
from atoll.store.catalog import RunEntry
from atoll.store.folder import RunInfo, write_info
from atoll.store.opening import open_catalog
from atoll.traffic import Record, RecordTable
from atoll.traffic.record import Source
from atoll.web.site import PAGES

PATIENCE_S = 120
PAINTED = """() => new Promise((done) => new PerformanceObserver((list) => {
  for (const one of list.getEntries()) if (one.name === "first-contentful-paint") done(one.startTime);
}).observe({type: "paint", buffered: true}))"""
TICK = os.sysconf("SC_CLK_TCK")


@dataclass
class Row:
    what: str
    figure: str
    aim: str
    held: bool | None = None

    def show(self) -> str:
        verdict = {True: "yes", False: "NO", None: "-"}[self.held]
        return f"{self.what:66}{self.figure:>26}{self.aim:>18}{verdict:>6}"


# a workspace ---------------------------------------------------------------------------------------------------------


def fill(workspace: Path, runs: int, jobs: int) -> None:
    """Runs with a folder and an entry each, of 40 studies and 12 models, and jobs that have ended."""
    table = RecordTable.from_records(
        Record(
            number=n,
            user=n % 4,
            prompt_tokens=8,
            output_tokens=2,
            sent_s=n * 0.5,
            token_s=(n * 0.5 + 0.1, n * 0.5 + 0.12),
            done_s=n * 0.5 + 0.12,
        )
        for n in range(40)
    )
    summary = summarise(table)
    plain, text = summary.to_plain(), summary.to_json()
    (workspace / ".atoll").mkdir(parents=True)
    database = workspace / "runs.db"
    for number in range(runs):
        folder = workspace / "runs" / f"study-{number % 40}" / f"variant-{number}"
        info = RunInfo(
            run_id=f"run:{number:06d}",
            name=f"variant-{number}",
            engine="vllm",
            source=Source.MEASURED,
            model=f"org/model-{number % 12}",
            atoll_version="0",
            complete=True,
        )
        write_info(folder, info, sync=False)
        (folder / "summary.json").write_text(text)
    with open_catalog(f"sqlite:{database}") as catalog:
        entries = (
            RunEntry(
                run_id=f"run:{number:06d}",
                name=f"variant-{number}",
                engine="vllm",
                source=list(Source)[number % len(Source)],
                study=f"study-{number % 40}",
                model=f"org/model-{number % 12}",
                folder=str(workspace / "runs" / f"study-{number % 40}" / f"variant-{number}"),
                started_at=1.7e9 + number,
                tags=(f"tag-{number % 25}",),
                summary=plain,
            )
            for number in range(runs)
        )
        for entry in entries:
            catalog.save(entry)
    for number in range(jobs):
        folder = workspace / ".atoll" / "jobs" / f"{number:x}-abc"
        folder.mkdir(parents=True)
        (folder / "job.yaml").write_text(
            f"id: {number:x}-abc\ntitle: job {number}\nargv: [bench, bundle]\nstarted_at: {number}.0\n"
        )
        (folder / "end.yaml").write_text(f"exit_code: 0\nended_at: {number + 60}.0\n")
        (folder / "output.log").write_text("done\n")


# a server ------------------------------------------------------------------------------------------------------------


class Server:
    def __init__(self, workspace: Path, state: Path, **variables: str) -> None:
        log = state / "serve.log"
        argv = [sys.executable, "-m", "atoll", "serve", str(workspace), "--port", "0"]
        argv += ["--catalog", f"sqlite:{workspace / 'runs.db'}"]
        known = {**os.environ, "XDG_STATE_HOME": str(state), **variables}
        with log.open("wb") as stream:
            self.process = subprocess.Popen(argv, stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, env=known)
        ends = time.monotonic() + PATIENCE_S
        while not (found := re.search(r"https?://\S+/\?token=\S+", log.read_text())):
            if time.monotonic() > ends or self.process.poll() is not None:
                raise SystemExit(f"the server did not start: {log.read_text()}")
            time.sleep(0.05)
        self.link = found.group()
        self.url, secret = self.link.split("/?token=")
        self.headers = {"Authorization": f"Bearer {secret}"}

    def family(self) -> list[int]:
        """The server and its warm processes; a job's keeper is in a session of its own and no child to count."""
        known, found = {}, [self.process.pid]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    tail = (entry / "stat").read_text().rpartition(")")[2].split()
                    words = (entry / "cmdline").read_bytes().split(b"\0")
                except OSError:
                    continue
                if b"atoll.web.keeper" not in words:
                    known[int(entry.name)] = int(tail[1])
        for pid in found:
            found += [child for child, parent in known.items() if parent == pid and child not in found]
        return found

    def cpu_s(self) -> float:
        spent = 0.0
        for pid in self.family():
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            spent += (int(fields[11]) + int(fields[12])) / TICK
        return spent

    def pss_mb(self) -> float:
        texts = (Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in self.family())
        return sum(int(re.search(r"^Pss:\s+(\d+)", text, re.MULTILINE)[1]) for text in texts) / 1000

    def stop(self) -> None:
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


# what is measured ----------------------------------------------------------------------------------------------------


def measure_pages(server: Server, asks: int) -> list[Row]:
    paths = ["/" if name == "home" else f"/{name}" for name in PAGES]
    paths += ["/runs?model=org/model-3", "/runs?tag=tag-7", "/runs?source=simulated", "/runs/run:004711", "/jobs/5-abc"]
    paths += ["/chat?find=nothing", "/api/runs", "/health"]
    rows = []
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=PATIENCE_S) as client:
        for path in paths:
            client.get(path)
            took_ms, spent_s = [], server.cpu_s()
            for _ in range(asks):
                begun = time.perf_counter()
                answer = client.get(path)
                took_ms.append((time.perf_counter() - begun) * 1000)
                assert answer.status_code == 200, (path, answer.status_code)
            p95 = statistics.quantiles(took_ms, n=20)[-1]
            cpu_ms = (server.cpu_s() - spent_s) / asks * 1000  # in ticks of 10 ms, over all asks
            figure = f"{statistics.median(took_ms):.0f} / {p95:.0f} / {cpu_ms:.1f} ms"
            rows.append(Row(f"{path}: p50 / p95 / CPU of one", figure, "p95 < 100 ms", p95 < 100))
    return rows


def measure_idle(server: Server, seconds: float) -> list[Row]:
    time.sleep(2)
    before = server.cpu_s()
    time.sleep(seconds)
    share = (server.cpu_s() - before) / seconds * 100
    memory = server.pss_mb()
    return [
        Row("idle CPU", f"{share:.2f} % of a core", "< 1 %", share < 1),
        Row(f"memory of {len(server.family())} processes (PSS)", f"{memory:.0f} MB", "< 300 MB", memory < 300),
    ]


async def _watch(server: Server, path: str, views: int, seconds: float, warm_s: float) -> tuple[float, int]:
    """CPU share of the server in percent, and how many events came, while so many views are open."""
    seen = 0
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=server.url, headers=server.headers, timeout=None, limits=limits) as client:

        async def view() -> None:
            nonlocal seen
            async with client.stream("GET", path) as answer:
                assert answer.status_code == 200
                async for line in answer.aiter_lines():
                    seen += line.startswith("event: point")

        tasks = [asyncio.create_task(view()) for _ in range(views)]
        await asyncio.sleep(warm_s)
        before, begun, counted = server.cpu_s(), time.monotonic(), seen
        await asyncio.sleep(seconds)
        share = (server.cpu_s() - before) / (time.monotonic() - begun) * 100
        events = seen - counted
        broken = [task for task in tasks if task.done() and not task.cancelled() and task.exception()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    if broken:
        raise SystemExit(f"{len(broken)} views broke off: {broken[0].exception()!r}")
    return share, events


def measure_views(server: Server, views: int, users: int, seconds: float) -> list[Row]:
    fields = {"users": str(users), "duration": "10m", "prompt": "16", "output": "64", "name": "watched"}
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=PATIENCE_S) as client:
        started = client.post("/jobs/bench", data=fields)
        assert started.status_code == 303, started.text
        job = started.headers["location"]
        live = Path(str(server.process.args[4])) / "runs" / "watched" / "live.jsonl"
        ends = time.monotonic() + PATIENCE_S
        while not live.is_file() and time.monotonic() < ends:
            time.sleep(0.2)
        idle, _ = asyncio.run(_watch(server, f"{job}/live", 1, seconds / 2, 2))
        share, events = asyncio.run(_watch(server, f"{job}/live", views, seconds, 6))
        last = json.loads(live.read_text().splitlines()[-1])
        client.post(f"{job}/stop")
    per_view = events / views / seconds
    return [
        Row("one live view", f"{idle:.1f} % of a core", "", None),
        Row(
            f"{views} live views of {last.get('in_flight', users)} users in flight, {per_view:.1f} looks/s each",
            f"{share:.1f} % of a core",
            "< 15 %",
            share < 15,
        ),
    ]


def measure_cost(server: Server, views: int, users: int, seconds: float) -> list[Row]:
    """What live views cost the load generator: the same load twice without and twice with them, in turns.

    The views are held by a process of their own at the lowest priority: browsers are on other machines.
    """
    workspace = Path(str(server.process.args[4]))
    seen: dict[int, list[dict[str, float]]] = {0: [], views: []}
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=PATIENCE_S) as client:
        for turn, open_views in enumerate((0, views, 0, views)):
            name = f"cost-{turn}"
            fields = {"users": str(users), "duration": f"{seconds:g}s", "prompt": "64", "output": "64", "name": name}
            job = client.post("/jobs/bench", data=fields).headers["location"]
            argv = ["nice", "-n", "19", sys.executable, __file__, "--hold", f"{server.url}{job}/live", str(open_views)]
            holder = subprocess.Popen(argv, env={**os.environ, "ATOLL_TOKEN": server.headers["Authorization"]})
            ends = time.monotonic() + PATIENCE_S + seconds
            while not (workspace / "runs" / name / "client.json").is_file() and time.monotonic() < ends:
                time.sleep(0.5)
            holder.kill()
            holder.wait()
            own = json.loads((workspace / "runs" / name / "client.json").read_text())
            summary = json.loads((workspace / "runs" / name / "summary.json").read_text())
            seen[open_views].append(own | {"ttft_p50_s": summary["ttft_s"]["p50"]})
    rows = []
    for key, what in (
        ("ttft_share_s", "its share of TTFT"),
        ("loop_lag_p99_s", "its loop's lag p99"),
        ("ttft_p50_s", "TTFT p50"),
    ):
        without, held = ("/".join(f"{one[key] * 1000:.2f}" for one in seen[n]) for n in (0, views))
        rows.append(
            Row(f"load generator, {users} users, {views} views: {what}", f"{without} -> {held} ms", "as without")
        )
    verdicts = {bool(one["limited"]) for one in (*seen[0], *seen[views])}
    rows.append(
        Row(
            "... its verdict on itself",
            "limited" if True in verdicts else "not limited",
            "as without",
            len(verdicts) == 1,
        )
    )
    return rows


async def hold_views(url: str, views: int) -> None:
    """So many live views of a job, until the process is killed."""
    headers = {"Authorization": os.environ["ATOLL_TOKEN"]}
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(headers=headers, timeout=None, limits=limits) as client:

        async def view() -> None:
            async with client.stream("GET", url) as answer:
                async for _ in answer.aiter_raw():
                    pass

        await asyncio.gather(*(view() for _ in range(views)), asyncio.sleep(3600))


def measure_bytes(server: Server) -> list[Row]:
    rows = []
    with httpx.Client(base_url=server.url, headers=server.headers, timeout=PATIENCE_S) as client:
        for path in ["/" if name == "home" else f"/{name}" for name in PAGES] + ["/jobs/5-abc"]:
            page = client.get(path)
            links = re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text)
            sent = 0
            for link in dict.fromkeys(links):
                if link.endswith((".txt", ".md", "LICENSE")) or "licen" in link.lower():
                    continue
                with client.stream("GET", link, headers={"Accept-Encoding": "gzip"}) as answer:
                    sent += sum(map(len, answer.iter_raw()))
            packed = len(gzip.compress(page.content))
            figure = f"{sent / 1000:.0f} kB + {packed / 1000:.0f} kB"
            rows.append(Row(f"{path}: static files as sent + the page packed", figure, "< 120 kB", sent < 120_000))
    return rows


def measure_paint(server: Server) -> list[Row]:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return [Row("first paint", "no Chromium here", "< 0.5 s")]
    from playwright.sync_api import sync_playwright

    rows = []
    with sync_playwright() as running:
        opened = running.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        for path in ["/" if name == "home" else f"/{name}" for name in PAGES]:
            took = []
            for _ in range(3):
                context = opened.new_context()
                page = context.new_page()
                page.goto(server.link)
                page.goto(server.url + path)
                took.append(page.evaluate(PAINTED))
                context.close()
            middle = statistics.median(took)
            rows.append(Row(f"{path}: first contentful paint", f"{middle:.0f} ms", "< 500 ms", 0 <= middle < 500))
        opened.close()
    return rows


def start_engine(folder: Path) -> tuple["subprocess.Popen[bytes]", str]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    argv = [sys.executable, "-m", "atoll", "emulate", "--gpu", "H100-SXM-80GB", "--model", "Qwen/Qwen2.5-7B-Instruct"]
    with (folder / "engine.log").open("wb") as stream:
        process = subprocess.Popen([*argv, "--port", str(port)], stdout=stream, stderr=stream)
    ends = time.monotonic() + PATIENCE_S
    while time.monotonic() < ends:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200:
                return process, f"http://127.0.0.1:{port}"
        except httpx.TransportError:
            time.sleep(0.1)
    raise SystemExit((folder / "engine.log").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--asks", type=int, default=40, help="of each page")
    parser.add_argument("--views", type=int, default=200)
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--only", help="parts, as in pages,views,cost,idle,bytes,paint")
    parser.add_argument("--hold", nargs=2, metavar=("URL", "VIEWS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hold:
        asyncio.run(hold_views(given.hold[0], int(given.hold[1])))
        return
    wanted = set((given.only or "pages,views,cost,idle,bytes,paint").split(","))
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        workspace, state = place / "workspace", place / "state"
        state.mkdir()
        fill(workspace, given.runs, given.jobs)
        engine, url = start_engine(place) if wanted & {"views", "cost"} else (None, "http://127.0.0.1:9")
        server = Server(workspace, state, ATOLL_ENGINE_URL=url)
        load = " ".join(f"{one:.1f}" for one in os.getloadavg())
        print(f"{given.runs:,} runs, {given.jobs} jobs, {os.cpu_count()} cores, load average at the start {load}")
        print(f"{'':66}{'seen':>26}{'aim':>18}{'held':>6}")
        try:
            parts = {
                "pages": lambda: measure_pages(server, given.asks),
                "idle": lambda: measure_idle(server, given.seconds),
                "bytes": lambda: measure_bytes(server),
                "paint": lambda: measure_paint(server),
                "views": lambda: measure_views(server, given.views, given.users, given.seconds),
                "cost": lambda: measure_cost(server, given.views, given.users // 10, given.seconds),
            }
            for part, measure in parts.items():
                if part in wanted:
                    for row in measure():
                        print(row.show(), flush=True)
        finally:
            server.stop()
            if engine is not None:
                engine.kill()
                engine.wait()


if __name__ == "__main__":
    main()
