"""A layout, measured: its engines come up, the load is sent, and all is taken down again."""

from atoll.run.process import PROCESS_FILE
from atoll.store.folder import is_run
from atoll.traffic.workload import Workload
from atoll.workflows.measure import measure_layout
from stand_ins.layouts import two_pairs


def test_the_run_stands_beside_the_deployment_that_it_measured(tmp_path):
    load = Workload.model_validate({"users": 2, "requests": 6, "prompt": 8, "output": 8})
    said = []
    table = measure_layout(two_pairs(), load, tmp_path / "1", engine="emulated", say=said.append)
    assert table.outcome == ("ok",) * 6
    assert is_run(tmp_path / "1")
    assert (tmp_path / "1" / "deployment" / PROCESS_FILE).is_file()
    assert any("answers after" in line for line in said)
