"""A study runs every variant once, survives being cut, and says who came first."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from atoll.analyse import summarise
from atoll.errors import BadRun, InputError, StartFailed
from atoll.store.catalog import Query
from atoll.store.folder import RunInfo, finish_run, start_run
from atoll.traffic import Arrivals, Record, RecordTable, Workload
from atoll.traffic.trace import parse_trace
from atoll.workflows.load import LoadOptions
from atoll.workflows.runs import list_runs
from atoll.workflows.study import Roads, find_study_folder, read_result, resume_study, run_study
from atoll.workflows.traces import rest_of_trace

STUDY = """
name: two
box: {gpu: A100-SXM-80GB, gpus: 2}
model: Qwen/Qwen2.5-7B-Instruct
workload: {users: 2, duration: 10s, warmup: 1s, prompt: 10, output: 2}
variants:
  - {name: one, tensor_parallel: 2}
  - {name: both, tensor_parallel: 1, replicas: 2}
"""


class StillClock:
    def now(self):
        return 0.0

    def wall(self):
        return 1_750_000_000.0

    async def sleep(self, seconds):
        pass


class Cut(BaseException):
    """Stands for kill -9: nothing of ours catches it."""


@dataclass
class Stand:
    """Answers every second with a wait of 0.1 s a tensor-parallel rank; cuts or fails where it is told to."""

    cut_after_s: dict[str, float] = field(default_factory=dict)
    fails: frozenset[str] = frozenset()
    asked: list[tuple[str, float]] = field(default_factory=list)
    traces: list[tuple] = field(default_factory=list)

    def table(self, layout, seconds):
        wait = 0.1 * layout.replicas[0].tensor_parallel
        return RecordTable.from_records(
            Record(number=i, user=i % 2, sent_s=float(i), token_s=[i + wait, i + wait + 0.5], done_s=i + wait + 0.5,
                   output_tokens=2, prompt_tokens=10, replica="0")
            for i in range(int(seconds))
        )  # fmt: skip

    def simulate(self, layout, workload, profile, trace, study):
        self.traces.append(trace)
        return self.table(layout, workload.duration_s)

    def measure(self, layout, workload, folder, *, engine, say, profile, trace):
        self.traces.append(trace)
        self.asked.append((layout.name, workload.duration_s))
        if layout.name in self.fails:
            raise StartFailed("replica 0 ran out of memory; give it another GPU.")
        info = RunInfo(name=layout.name, engine=engine, atoll_version="0")
        start_run(folder, info, layout=layout, workload=workload)
        cut = self.cut_after_s.pop(layout.name, None)
        table = self.table(layout, cut or workload.duration_s)
        finish_run(folder, info, table, summarise(table))
        if cut is not None:
            raise Cut
        return table

    @property
    def roads(self):
        return Roads(simulate=self.simulate, measure=self.measure, clock=StillClock())


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(STUDY)


def run(stand, engine="emulated", **options):
    return run_study(Path("study.yaml"), engine=engine, out=Path("out"), roads=stand.roads, **options)


def test_every_variant_is_run_and_the_shorter_wait_comes_first():
    result = run(Stand(), engine="simulated")
    assert [place.name for place in result.ranking] == ["both", "one"]
    assert result.ranking[0].against_baseline.difference("ttft_s", "p95").difference == pytest.approx(-0.1)


def test_a_measured_run_has_its_prediction_beside_it():
    result = run(Stand())
    assert result.variant("both").predicted == result.variant("both").run.summary


TROUBLED = """
name: outage
box: {gpu: A100-SXM-80GB, gpus: 2}
model: Qwen/Qwen2.5-7B-Instruct
workload: {users: 8, duration: 60s, prompt: 500, output: 200}
slow: [0=1.5]
variants:
  - {name: well, replicas: 2, slow: []}
  - {name: slow, replicas: 2}
  - {name: dead, replicas: 2, slow: [], fail: [{replica: 1, at: 20s, back: 40s}]}
"""


def test_a_replica_that_dies_or_is_slow_is_part_of_a_study_and_survives_a_resume():
    Path("study.yaml").write_text(TROUBLED)
    result = run_study(Path("study.yaml"), engine="simulated", out=Path("out"))
    tables = {variant.name: variant.run.table for variant in result.variants}
    assert set(tables["well"].error) == {None}
    lost = [at for at, error in zip(tables["dead"].done_s, tables["dead"].error, strict=True) if error]
    assert lost
    assert set(lost) == {20.0}
    while_dead = [r for at, r in zip(tables["dead"].sent_s, tables["dead"].replica, strict=True) if 20 < at < 40]
    assert set(while_dead) == {"0"}
    took = {name: (table.done_s - table.sent_s).mean() for name, table in tables.items()}
    assert took["slow"] > 1.1 * took["well"]
    (Path("out") / "slow" / "run.yaml").unlink()
    again = resume_study(Path("out")).variant("slow").run.table
    assert (again.done_s == tables["slow"].done_s).all()


@pytest.mark.parametrize("engine", ["emulated", "vllm"])
def test_what_goes_wrong_only_in_virtual_time_is_refused_before_anything_is_written(engine):
    Path("study.yaml").write_text(TROUBLED)
    stand = Stand()
    sentence = (
        r"study\.yaml: fail and slow are for virtual time only; run it with --engine simulated, or leave them out"
    )
    with pytest.raises(InputError, match=sentence):
        run(stand, engine=engine)
    assert not stand.asked
    assert not Path("out").exists()


def test_a_cut_variant_goes_on_where_it_stopped_and_a_finished_one_is_not_measured_again():
    stand = Stand(cut_after_s={"both": 4.0})
    with pytest.raises(Cut):
        run(stand)
    before = read_result(Path("out"))
    assert before.variant("one").run.info.complete
    assert not before.variant("both").run.info.complete
    result = resume_study(Path("out"), roads=stand.roads)
    assert [name for name, _ in stand.asked] == ["one", "both", "both"]
    assert stand.asked[2][1] == pytest.approx(10 - 3.6)  # the cut piece's last token came at 3.6 s
    both = result.variant("both").run
    assert both.table.number.tolist() == list(range(4 + 6))
    assert both.table.sent_s[4] == pytest.approx(3.6)
    assert both.summary.measured == 8  # each piece has a warm-up of one second, in which one request was sent
    assert result.variant("both").resumed


def trace_of(rows):
    """Requests of ten and two tokens, a second apart."""
    return "timestamp,prompt_tokens,output_tokens\n" + "".join(f"{second},10,2\n" for second in range(rows))


def with_a_trace():
    """The study with a workload that names a trace, which stands beside it."""
    text = Path("study.yaml").read_text()
    before, _, after = text.partition("workload:")
    _, _, after = after.partition("}")
    Path("traffic").mkdir()
    Path("traffic/day.csv").write_text(trace_of(10))
    Path("study.yaml").write_text(f"{before}workload: {{trace: traffic/day.csv}}{after}")


@pytest.mark.parametrize("engine", ["simulated", "emulated"])
def test_a_studys_trace_goes_to_the_simulator_and_to_the_load_generator_and_is_kept(engine):
    with_a_trace()
    stand = Stand()
    result = run(stand, engine, load=LoadOptions(duration="10s"))
    assert result.study.workload.arrivals is Arrivals.TRACE
    assert {len(trace) for trace in stand.traces} == {10}
    assert Path("out/trace.csv").read_text() == trace_of(10)
    assert result.study.workload.trace == "trace.csv"


def test_a_cut_replay_goes_on_with_the_rows_that_were_not_sent():
    def piece(seconds):
        return RecordTable.from_records(
            Record(number=i, user=i, due_s=float(i), sent_s=float(i), done_s=i + 1.0) for i in range(seconds)
        )

    trace = parse_trace(trace_of(10), origin="t")
    replay = Workload(trace="t.csv")
    rest = rest_of_trace(trace, replay, [piece(4), piece(3)])
    assert [row.due_s for row in rest] == [2.0, 3.0, 4.0]  # those due at 7, 8 and 9; the last sent was due at 3 + 2
    assert rest_of_trace(trace, Workload(trace="t.csv", users=3, requests=5), [piece(4)]) == trace


def test_a_trace_that_is_not_there_is_told_before_anything_is_written():
    with_a_trace()
    Path("traffic/day.csv").unlink()
    with pytest.raises(InputError, match=r"traffic/day.csv"):
        run(Stand())
    assert not Path("out").exists()


def test_resuming_a_finished_study_measures_nothing():
    stand = Stand()
    first = run(stand)
    asked = list(stand.asked)
    again = resume_study(Path("out"), roads=stand.roads)
    assert stand.asked == asked
    assert [place.name for place in again.ranking] == [place.name for place in first.ranking]


def test_a_variant_that_does_not_start_is_a_row_with_its_reason():
    result = run(Stand(fails=frozenset({"one"})))
    assert result.variant("one").failure == "replica 0 ran out of memory; give it another GPU."
    assert [place.name for place in result.ranking] == ["both"]


def test_a_variant_that_did_not_start_is_tried_again_on_resumption():
    run(Stand(fails=frozenset({"one"})))
    stand = Stand()
    result = resume_study(Path("out"), roads=stand.roads)
    assert [name for name, _ in stand.asked] == ["one"]
    assert result.variant("one").failure is None
    assert {place.name for place in result.ranking} == {"one", "both"}


def test_a_folder_that_holds_a_study_is_not_written_over():
    run(Stand())
    with pytest.raises(InputError, match="already holds a study, this one"):
        run(Stand())


def test_it_is_said_which_variant_runs_and_how_long_the_rest_will_take():
    said = []
    run_study(Path("study.yaml"), engine="emulated", out=Path("told"), roads=Stand().roads, say=said.append)
    places = [line for line in said if line.startswith("variant ")]
    assert len(places) > 1
    assert places[0].startswith(f"variant 1 of {len(places)}, about ")
    assert places[0].endswith(" left")


def test_it_is_said_when_the_file_has_changed_since():
    run(Stand())
    Path("study.yaml").write_text(STUDY.replace("users: 2", "users: 3"))
    with pytest.raises(InputError, match=r"study.yaml has changed since it was started \(workload\)"):
        run(Stand())


def test_a_shorter_duration_is_kept_for_the_resumption():
    stand = Stand()
    run(stand, load=LoadOptions(duration="5s"))
    assert {seconds for _, seconds in stand.asked} == {5.0}
    assert read_result(Path("out")).study.workload.duration_s == 5.0


def test_a_variant_that_is_not_there_is_refused_before_anything_is_written():
    with pytest.raises(InputError, match="has no variant three"):
        run(Stand(), only=["three"])
    assert not Path("out").exists()


def test_a_study_is_found_by_its_file_or_its_folder():
    run_study(Path("study.yaml"), engine="simulated", roads=Stand().roads)
    assert find_study_folder(Path("study.yaml")) == Path("runs/two-simulated")
    assert find_study_folder(Path("runs/two-simulated")) == Path("runs/two-simulated")
    with pytest.raises(BadRun, match="No study was started"):
        find_study_folder(Path("runs"))


def test_an_engine_that_is_none_is_refused():
    with pytest.raises(InputError, match="--engine magic is not one of"):
        run(Stand(), engine="magic")


@pytest.mark.parametrize("name", ["실험", "a b", "🚀", ".hidden"])
def test_a_studys_folder_may_have_any_name_and_its_runs_are_in_the_catalogue(name):
    said = []
    result = run_study(Path("study.yaml"), engine="emulated", out=Path(name), roads=Stand().roads, say=said.append)
    assert not [line for line in said if "catalogue" in line]
    kept = {entry.run_id for entry in list_runs(Query())}
    assert kept == {variant.run.info.run_id for variant in result.variants}


def test_a_resumed_variant_keeps_its_id():
    with pytest.raises(Cut):
        run(Stand(cut_after_s={"one": 4.0}))
    begun = read_result(Path("out"), rank=False).variant("one").run.info.run_id
    assert resume_study(Path("out"), roads=Stand().roads).variant("one").run.info.run_id == begun
