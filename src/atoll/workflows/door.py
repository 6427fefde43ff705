"""Where a load test goes: a URL, or a layout or bundle that was brought up, with the load that it carries."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from atoll.errors import InputError
from atoll.layout.layout import Layout
from atoll.outside.shell import RealShell, Shell
from atoll.run.door_tls import door_certificate
from atoll.run.runner import RUNNERS, Runner, runner_of
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.deploy import find_deployable
from atoll.workflows.render import read_layout
from atoll.workflows.simulate import expected_answer_s
from atoll.workflows.traces import Trace, trace_beside


@dataclass(frozen=True, kw_only=True, slots=True)
class Door:
    """What answers, and what is known of it."""

    url: str
    layout: Layout | None = None  # None: somebody's server
    folder: Path | None = None  # that a trace of the layout's load lies beside
    metrics: tuple[str, ...] | None = None  # the engines' own; None: not known, or not reachable
    certificate: Path | None = None  # that it shows, where it is asked by https
    bundle: Path | None = None  # None: nobody's, or not rendered

    @property
    def workload(self) -> Workload | None:
        return None if self.layout is None else self.layout.workload

    @property
    def slo(self) -> SLO | None:
        return None if self.layout is None else self.layout.slo

    def answer_s(self, workload: Workload, trace: Trace = ()) -> float | None:
        """How long one answer is predicted to take; None where there is no layout, or no prediction."""
        return None if self.layout is None else expected_answer_s(self.layout, workload, trace=trace)

    def refuse_if_down(self, shell: Shell | None = None) -> None:
        """Raise InputError where a load would go to whoever else listens there."""
        if self.bundle is not None and runner_of(self.bundle).is_down(self.bundle, shell=shell or RealShell()):
            raise InputError(f"{self.bundle} is not up; `atoll up {shlex.quote(str(self.bundle))}` starts it.")

    def trace_of(self, workload: Workload) -> Trace:
        """The rows that the load takes its requests from; raises InputError or BadTraffic when they are not there."""
        return () if self.folder is None else trace_beside(self.folder, workload)


def names_a_server(where: str) -> bool:
    """Whether a word is a URL or host:port, and not the path of a layout or a bundle."""
    path = Path(where)
    return "://" in where or not (path.exists() or path.suffix in {".yaml", ".yml"})


def find_door(where: str) -> Door:
    """Understand URL, LAYOUT or BUNDLE_DIR. A layout's bundle is looked for where `atoll up` and `render` put it.

    Raises:
        InputError: a path that is not there, or a folder without a bundle.
        BadDocument: a file that is no layout.
    """
    path = Path(where)
    if names_a_server(where):
        return Door(url=where)
    if path.is_dir():
        return _door_of_bundle(runner_of(path), path, beside=path)
    layout = read_layout(path)
    for runner in RUNNERS.values():
        bundle = find_deployable(path, to=runner.name).folder
        if (bundle / runner.bundle_file).exists():
            return _door_of_bundle(runner, bundle, beside=path.parent)
    return Door(url=f"http://127.0.0.1:{layout.router.port}", layout=layout, folder=path.parent)


def _door_of_bundle(runner: Runner, bundle: Path, *, beside: Path) -> Door:
    return Door(
        url=runner.door_url(bundle),
        layout=read_layout(bundle / "layout.yaml"),
        folder=beside,
        certificate=door_certificate(bundle),
        metrics=runner.metrics_urls(bundle),
        bundle=bundle,
    )
