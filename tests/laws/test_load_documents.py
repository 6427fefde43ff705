"""A load, its targets and the layout that carries both: what is written is read again as it was."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout, Replica
from atoll.model.catalog import find_card
from atoll.render import render_bundle
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Lengths, Workload

SECONDS = st.floats(0.001, 1e5)
LENGTHS = st.one_of(
    st.builds(lambda mean: Lengths(mean=mean), st.one_of(st.integers(1, 100_000), st.floats(1, 1e5))),
    st.builds(
        lambda low, more: Lengths(kind="uniform", mean=low, low=low, high=low + more), *[st.integers(1, 900)] * 2
    ),
    st.builds(
        lambda mean, sigma: Lengths(kind="lognormal", mean=mean, sigma=sigma), st.floats(1, 9e3), st.floats(0, 2)
    ),
)
STARTS = st.one_of(st.sampled_from(["spread", "at_once", "45s"]), SECONDS)
ENDS = st.sampled_from([{}, {"duration": "10m"}, {"requests": 300}, {"duration_s": 7.5, "requests": 3}])


@st.composite
def workloads(draw):
    plain = {"prompt": draw(LENGTHS), "output": draw(LENGTHS), "seed": draw(st.integers(0, 2**31))} | draw(ENDS)
    if draw(st.booleans()):
        return Workload(
            rate=draw(st.floats(0.01, 1e3)), arrivals=draw(st.sampled_from(["poisson", "constant"])), **plain
        )
    warmup = draw(st.one_of(st.none(), SECONDS))
    return Workload(users=draw(st.integers(1, 10_000)), start=draw(STARTS), warmup_s=warmup, **plain)


SLOS = st.builds(SLO, ttft_s=st.one_of(st.none(), SECONDS), tpot_s=st.one_of(st.none(), SECONDS))


@given(workloads())
def test_a_workload_is_read_as_it_was_written(load):
    assert Workload.parse(load.to_yaml(), origin="workload.yaml") == load
    assert Workload.parse(load.to_json(), origin="workload.json") == load


@given(SLOS)
def test_targets_are_read_as_they_were_written(slo):
    assert SLO.parse(slo.to_yaml(), origin="slo.yaml") == slo


@given(st.one_of(st.none(), workloads()), st.one_of(st.none(), SLOS), st.sampled_from(["compose", "process"]))
@settings(max_examples=25, deadline=None)
def test_a_layout_and_its_bundle_carry_the_load(load, slo, form):
    replica = Replica(gpus=(0, 1), tensor_parallel=2, port=8001)
    box, model = make_box("H100-NVL-94GB", 2), "Qwen/Qwen2.5-7B-Instruct"
    layout = Layout(name="one", model=model, box=box, replicas=(replica,), workload=load, slo=slo)
    assert Layout.parse(layout.to_yaml(), origin="layout.yaml") == layout
    files = render_bundle(layout, find_card(model), to=form).files
    assert Layout.parse(files["layout.yaml"], origin="layout.yaml") == layout
