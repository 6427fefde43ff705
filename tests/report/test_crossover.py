"""The chart of layouts under rising load."""

import json
from pathlib import Path

import altair as alt
import jsonschema
import pytest

from atoll.inventory.catalog import find_gpu, make_box
from atoll.model.catalog import find_card
from atoll.plan.search import search_layouts
from atoll.plan.workbench import Workbench
from atoll.report.crossover import crossover_chart
from atoll.report.vega import chart_svg
from stand_ins.goals import plain_goal

SCHEMA = json.loads((Path(alt.__file__).parent / "vegalite" / "v6" / "schema" / "vega-lite-schema.json").read_text())


def search(**load):
    box = make_box("H100-NVL-94GB", 4)
    bench = Workbench(
        box=box, card=find_card("Qwen2.5-32B-Instruct"), kinds=dict.fromkeys(range(4), find_gpu("H100-NVL-94GB"))
    )
    goal = plain_goal(prompt=2000, output=1500, **load)
    return search_layouts(bench, goal, model="Qwen2.5-32B-Instruct")


@pytest.mark.parametrize("load", [{"users": 30}, {"users": 1000}, {"rate": 1.0}], ids=str)
def test_the_chart_is_vega_lite_and_can_be_drawn(load):
    spec = crossover_chart(search(**load))
    jsonschema.validate(spec, SCHEMA)
    drawing = chart_svg(spec)
    assert drawing.startswith("<svg")
    assert "Output tokens per second" in drawing


def test_flips_are_marked_and_told_in_the_title():
    found = search(users=30)
    spec = crossover_chart(found)
    (flip,) = found.flips
    assert spec["title"]["text"] == f"{flip.before} up to about {flip.load:.0f} users, then {flip.after}"
    marks = [layer for layer in spec["hconcat"][0]["layer"] if layer["mark"]["type"] == "rule"]
    assert [mark["data"]["values"][0]["load"] for mark in marks] == [30, flip.load]


def test_a_layout_that_cannot_keep_up_has_no_point_there():
    spec = crossover_chart(search(rate=3.0))
    assert len(spec["data"]["values"]) < 4 * 7
