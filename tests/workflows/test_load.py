"""What a document carries, and what the command line says otherwise."""

import pytest

from atoll.errors import InputError
from atoll.inventory.catalog import make_box
from atoll.layout.layout import Layout, Replica
from atoll.load.pace import parse_steps
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Arrivals, Start, Workload
from atoll.workflows.door import find_door
from atoll.workflows.load import LoadOptions, load_of, slo_of
from atoll.workflows.render import render_layout

WRITTEN = Workload(users=8, prompt=1500, output=300, duration="2m", start="10s", seed=7)


def of(written=WRITTEN, **options):
    steps = options.pop("steps", ())
    return load_of(written, LoadOptions(**options), steps=steps)


def test_an_option_replaces_just_its_field():
    assert of() == WRITTEN
    assert of(users=60) == WRITTEN.replace(users=60)
    assert of(prompt="200-2000").output == WRITTEN.output
    assert of(ramp="45s") == of(start="45s") == WRITTEN.replace(start=45)
    assert of(start="at_once").start is Start.AT_ONCE


def test_nothing_written_and_nothing_said():
    assert of(None) == Workload()


def test_what_takes_the_place_of_what():
    assert of(requests=100).duration_s is None
    assert of(WRITTEN.replace(duration_s=None, requests=9), duration="1m").requests is None
    at_rate = of(rate=2.0)
    assert (at_rate.users, at_rate.rate, at_rate.arrivals) == (None, 2.0, Arrivals.POISSON)
    back = of(at_rate.replace(arrivals="bursty", burstiness=0.5), users=4)
    assert (back.users, back.rate, back.arrivals, back.burstiness) == (4, None, Arrivals.CLOSED, 1.0)
    assert of(at_rate.replace(arrivals="constant"), rate=3.0).arrivals is Arrivals.CONSTANT


def test_steps_say_themselves_when_users_come():
    load = of(None, steps=parse_steps("10@30s,20@1m"))
    assert (load.users, load.duration_s, load.start) == (20, 90, Start.AT_ONCE)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"users": 3, "rate": 1.0}, "not both"),
        ({"rate": 0.0}, "--rate 0 sends nothing"),
        ({"rate": 2.0, "think": "1s"}, "--think is for users who send back to back"),
        ({"arrivals": "bursty"}, "--arrivals is for requests that come at a rate"),
        ({"start": "soon"}, "--start soon is neither spread nor at_once nor a duration such as 45s."),
        ({"start": "45s", "ramp": "30s"}, "--start and --ramp say two things of when users start."),
        ({"spawn_rate": 0.0}, "--spawn-rate 0 starts nobody"),
        ({"warmup": "5m"}, "A warm-up of 300 s leaves nothing of the 120 s"),
        ({"shared_prefix": 2000}, "A shared prefix of 2000 tokens is longer than the prompts, 1500."),
    ],
)
def test_what_makes_no_sense_is_one_sentence(options, sentence):
    with pytest.raises(InputError) as caught:
        of(**options)
    assert sentence in str(caught.value)


def test_targets_are_replaced_one_by_one():
    assert slo_of(None, None, None) is None
    assert slo_of(SLO(ttft_s=1, tpot_s=0.05), "2s", None) == SLO(ttft_s=2, tpot_s=0.05)


def test_the_door_of_a_url_a_layout_and_a_bundle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    replica = Replica(gpus=(0,), tensor_parallel=1, port=8123)
    model = "Qwen/Qwen2.5-7B-Instruct"
    layout = Layout(
        name="one",
        model=model,
        box=make_box("H100-NVL-94GB", 1),
        replicas=(replica,),
        workload=WRITTEN,
        engine="emulated",
    )
    (tmp_path / "layout.yaml").write_text(layout.to_yaml())
    assert find_door("http://there:8000").url == "http://there:8000"
    assert find_door("http://there:8000").workload is None
    before = find_door("layout.yaml")
    assert (before.url, before.workload, before.metrics) == ("http://127.0.0.1:8080", WRITTEN, None)
    moved = layout.replace(router=layout.router.replace(port=8099))
    render_layout(moved, to="process", folder=tmp_path / "one-process")
    for where in ("layout.yaml", "one-process"):
        door = find_door(where)
        assert (door.url, door.workload) == ("http://127.0.0.1:8099", WRITTEN)
        assert door.metrics == ("http://127.0.0.1:8123/metrics",)
        with pytest.raises(InputError, match="one-process is not up; `atoll up"):  # somebody else may listen there
            door.refuse_if_down()
    render_layout(moved, to="compose", folder=tmp_path / "files")
    assert find_door("files").url == "http://127.0.0.1:8099"
    with pytest.raises(InputError, match="holds no bundle"):
        find_door(str(tmp_path))
    with pytest.raises(InputError, match="There is no file"):
        find_door("elsewhere.yaml")
