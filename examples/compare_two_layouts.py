"""One instance over four cards against two over two, under thirty users, in virtual time."""

from atoll.analyse import compare_runs, summarise, window_of
from atoll.inventory.catalog import make_box
from atoll.layout import EngineFlags, Layout, Replica
from atoll.traffic import Lengths, Workload
from atoll.units import show_seconds
from atoll.workflows.simulate import simulate

box = make_box("H100-NVL-94GB", 4)
workload = Workload(
    users=30,
    duration="5m",
    prompt=Lengths(mean=1500),
    output=Lengths(kind="uniform", mean=1000, low=500, high=1500),
)
groups = {"1xTP4": [(0, 1, 2, 3)], "2xTP2": [(0, 1), (2, 3)]}
runs = {}
for name, gpus in groups.items():
    replicas = tuple(Replica(gpus=group, tensor_parallel=len(group)) for group in gpus)
    layout = Layout(
        name=name, model="Qwen/Qwen2.5-32B-Instruct", box=box, replicas=replicas, flags=EngineFlags(max_num_seqs=32)
    )
    runs[name] = simulate(layout, workload)
    summary = summarise(runs[name], workload=workload)
    print(f"{name}: TTFT p95 {show_seconds(summary.ttft_s.p95)}, TPOT {show_seconds(summary.tpot_s.p50)}")
one, two = runs.values()
rows = (window_of(one, workload).rows(one), window_of(two, workload).rows(two))
change = compare_runs(one, two, names=("1xTP4", "2xTP2"), rows=rows).difference("tpot_s", "mean")
print("a token of 2xTP2 against one of 1xTP4:", change.verdict)
