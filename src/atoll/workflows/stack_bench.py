"""Each model of a stack under its own load, all at the same time: a run of each, and one report."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.analyse.summary import Summary
from atoll.engines import served_name
from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.layout.stack import Stack
from atoll.load.target import Endpoint, RequestOptions
from atoll.model.purpose import purpose_of
from atoll.model.read import read_model
from atoll.outside.files import read_text
from atoll.outside.shell import RealShell
from atoll.render.stack import STACK_FILE
from atoll.run.runner import runner_of
from atoll.store.folder import read_run
from atoll.traffic.workload import Workload
from atoll.workflows.bench import BenchResult, bench
from atoll.workflows.report import report_stack
from atoll.workflows.simulate import expected_answer_s

ENDPOINTS = {"generate": Endpoint.CHAT, "embed": Endpoint.EMBEDDINGS, "rank": Endpoint.RERANK}


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelRun:
    """What one model of the stack did under its load."""

    layout: Layout
    result: BenchResult

    @property
    def summary(self) -> Summary:
        return self.result.summary


@dataclass(frozen=True, kw_only=True, slots=True)
class StackRun:
    """All of them, in the stack's order, and the page that shows them."""

    stack: Stack
    folder: Path
    runs: tuple[ModelRun, ...]
    report: Path


def is_stack_bundle(where: str) -> bool:
    return (Path(where) / STACK_FILE).is_file()


def bench_stack(
    bundle: Path,
    folder: Path,
    *,
    options: RequestOptions,
    with_load: Callable[[Workload | None], Workload],
    force: bool = False,
) -> StackRun:
    """Send every model its own load at the same time, through the one door.

    Args:
        bundle: the stack's, which is up.
        folder: a run of each model goes into a folder of its name in there, and the page beside them.
        options: of all; model, endpoint and session header are each model's own.
        with_load: of a layout's load, what is sent.
        force: runs that are in the folders may go.

    Raises:
        InputError: the bundle is not up.
        RunFailed: the door cannot be asked.
    """
    stack = Stack.parse(read_text(bundle / STACK_FILE), origin=str(bundle / STACK_FILE))
    runner = runner_of(bundle)
    if runner.is_down(bundle, shell=RealShell()):
        raise InputError(f"{bundle} is not up; `atoll up {bundle}` starts it.")
    urls = runner.metrics_urls(bundle)

    def measure(layout: Layout) -> ModelRun:
        card = read_model(layout.model)
        workload = with_load(layout.workload)
        own = [placed.number for placed in stack.replicas if placed.layout is layout]
        result = bench(
            runner.door_url(bundle),
            workload,
            folder=folder / layout.name,
            name=layout.name,
            engine=layout.engine,
            layout=layout,
            options=replace(options, model=served_name(card), endpoint=ENDPOINTS[purpose_of(card.name)]),
            metrics=None if urls is None else [urls[number] for number in own],
            slo=layout.slo,
            answer_s=expected_answer_s(layout, workload),
            force=force,
        )
        return ModelRun(layout=layout, result=result)

    with ThreadPoolExecutor(len(stack.layouts)) as pool:
        runs = tuple(pool.map(measure, stack.layouts))
    return StackRun(stack=stack, folder=folder, runs=runs, report=_report(stack.name, runs, folder))


def _report(name: str, runs: Sequence[ModelRun], folder: Path) -> Path:
    return report_stack(name, [read_run(run.result.folder) for run in runs], folder / "report.html")
