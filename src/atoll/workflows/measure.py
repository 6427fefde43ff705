"""One layout, measured: engines behind nginx come up, the load generator sends, everything is taken down again."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from atoll.cost.profile import MachineProfile
from atoll.engines import find_engine
from atoll.errors import Interrupted, NoMeasurement
from atoll.layout.layout import Layout
from atoll.load.progress import Progress
from atoll.load.tokens import Vocabulary
from atoll.model.read import read_model
from atoll.outside.clock import SystemClock
from atoll.outside.shell import RealShell
from atoll.run.process import down, prepare, up
from atoll.traffic.record import RecordTable
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Workload
from atoll.workflows.bench import bench
from atoll.workflows.sending import words_of
from atoll.workflows.simulate import expected_answer_s

Say = Callable[[str], None]


def measure_layout(
    layout: Layout,
    workload: Workload,
    folder: Path,
    *,
    engine: str,
    say: Say,
    profile: MachineProfile | None = None,
    trace: Sequence[TraceRow] = (),
    on_progress: Callable[[Progress], None] | None = None,
) -> RecordTable:
    """Bring the layout up as plain processes, send the workload, take it down.

    The records stand in `folder`, which holds no run yet, as they come; the deployment's files and logs in
    `folder/deployment`. All processes end with this one, however that happens. Emulated engines are paced by
    the machine's profile, when there is one.

    Raises:
        StartFailed: an engine or nginx did not come up; the sentence carries the cause from its log.
        NoMeasurement: not one request was answered.
        Interrupted: Ctrl-C; the records so far are kept.
    """
    clock, shell, place = SystemClock(), RealShell(), folder / "deployment"
    served = layout.replace(engine=engine)
    prepare(served, read_model(layout.model), folder=place, free_router_port=True, profile=profile)
    deployment = asyncio.run(up(place, shell=shell, clock=clock, attached=True, say=say))
    try:
        result = bench(
            deployment.url,
            workload,
            folder=folder,
            force=True,  # what the folder holds is the deployment; the caller gives one in which there is no run
            trace=trace,
            name=layout.name,
            engine=engine,
            layout=served,
            vocabulary=_vocabulary(layout) if not find_engine(engine).emulates else None,
            answer_s=expected_answer_s(layout, workload, profile=profile, trace=trace),
            on_progress=on_progress,
            metrics=[f"{replica.url}/metrics" for replica in deployment.replicas],
        )
    finally:
        asyncio.run(down(place, shell=shell, clock=clock))
    if result.stopped is not None:
        raise Interrupted(f"Stopped by hand; what was measured stands in {folder}.")
    if result.summary.requests.ok == 0:
        raise NoMeasurement(f"Not one of {result.summary.requests.sent} requests was answered; see {place}.")
    return result.table


def _vocabulary(layout: Layout) -> Vocabulary | None:
    """Words of the model's own tokenizer, when it is on this disk: prompts are then as long as they are meant to be."""
    return words_of(layout.model, None, chat=True)[0]
