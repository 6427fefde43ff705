"""fleet.yaml: what it may say, and what inspect draws of it."""

import json

import pytest
from typer.testing import CliRunner

from atoll.cli.fleet_picture import tell_fleet
from atoll.cli.main import make_app
from atoll.errors import AtollError
from atoll.layout.fleet import Fleet, Network, host_names
from atoll.workflows.fleet import is_fleet, read_fleet

CAPTURE = "\tGPU0\tGPU1\nGPU0\t X \tNV12\nGPU1\tNV12\t X \n"
HALL = """\
name: hall
boxes:
  - {name: a, count: 2, gpu: H100-SXM-80GB, gpus: 8, price_per_hour: 24}
  - {name: old, box: topo.txt, gpu: H100-NVL-94GB}
network: {kind: infiniband, gbit: 400, rails: 8}
"""


@pytest.fixture
def hall(tmp_path):
    (tmp_path / "topo.txt").write_text(CAPTURE)
    path = tmp_path / "fleet.yaml"
    path.write_text(HALL)
    return path


def test_a_fleet_is_read_with_the_captures_beside_it(hall):
    known = read_fleet(hall)
    assert [(kind.name, kind.count, len(kind.box.gpus)) for kind in known.kinds] == [("a", 2, 8), ("old", 1, 2)]
    assert known.gpus == 18
    assert known.kinds[0].watts == 8 * 700
    assert Fleet.parse(known.fleet.to_yaml(), origin="again") == known.fleet
    assert [host for entry in known.fleet.boxes for host in host_names(entry)] == ["a-1", "a-2", "old"]


def test_inspect_draws_each_box_and_the_network(hall):
    assert (
        "\n".join(tell_fleet(read_fleet(hall), width=80))
        == """\
hall: 3 boxes, 18 GPUs
    2 x a    8 x H100-SXM-80GB, 80 GiB each; NVLink {0-7}; 5.6 kW; 24 an hour
    1 x old  2 x H100-NVL-94GB, 94 GiB each; NVLink {0,1}; 0.8 kW

┌──────────┐ ┌──────────┐ ┌─────┐
│   a-1    │ │   a-2    │ │ old │
│ ■■■■■■■■ │ │ ■■■■■■■■ │ │ ■■  │
└─────┬────┘ └─────┬────┘ └──┬──┘
──────┴────────────┴─────────┴───
Network: 8 x NDR InfiniBand (400 Gbit/s) a box."""
    )


def test_inspect_as_json_has_the_boxes_and_their_islands(hall):
    done = CliRunner().invoke(make_app(["inspect"]), ["inspect", str(hall), "--json"])
    document = json.loads(done.stdout)
    assert (document["count"], document["gpus"]) == (3, 18)
    assert document["boxes"][1]["islands"] == [[0, 1]]
    assert document["network"]["rails"] == 8


def test_many_boxes_are_drawn_as_one_frame_a_kind(tmp_path):
    path = tmp_path / "racks.yaml"
    path.write_text("name: racks\nboxes: [{name: nvl72, count: 12, gpu: GB200-186GB, gpus: 72}]\n")
    lines = list(tell_fleet(read_fleet(path), width=80))
    assert lines[0] == "racks: 12 boxes, 864 GPUs"
    assert any("12 x nvl72" in line and "│" in line for line in lines)
    assert any("72 GPUs" in line for line in lines)


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"kind": "ethernet", "gbit": 100}, "100 GbE, one port a box"),
        ({"kind": "roce", "gbit": 400, "rails": 2}, "2 x 400 GbE with RoCE a box"),
        ({"kind": "infiniband", "gbit": 200}, "HDR InfiniBand (200 Gbit/s), one port a box"),
    ],
)
def test_a_network_in_words(network, words):
    assert Network(**network).words == words


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ("count: 2", "count: 0", "boxes[0].count", "1 or more"),
        ("count: 2", "count: 9999", "boxes[0].count", "4,096 or less"),
        ("gpus: 8", "gpus: 80", "boxes[0] (a)", "has 1 to 16 GPUs, not 80"),
        (", gpus: 8", "", "boxes[0]", "say what a box is"),
        ("H100-SXM-80GB", "H1000", "boxes[0] (a)", "no GPU"),
        ("topo.txt", "gone.txt", "gone.txt", ""),
        ("name: old", "name: a", "fleet.yaml", "two entries have the name a"),
        ("infiniband", "token-ring", "network.kind", "'ethernet', 'roce' or 'infiniband'"),
        ("rails: 8", "rails: .inf", "network.rails", "a finite number"),
        ("price_per_hour: 24", "price_per_hour: -1", "price_per_hour", "0 or more"),
        ("gpu: H100-NVL-94GB", "gpu: H100-NVL-94GB, gpus: 2", "boxes[1]", "leave `gpus` out"),
    ],
)
def test_what_does_not_fit_is_one_sentence_that_names_the_place(hall, old, new, where, what):
    hall.write_text(HALL.replace(old, new))
    with pytest.raises(AtollError) as error:
        read_fleet(hall)
    assert where in str(error.value)
    assert what in str(error.value)
    assert error.value.exit_code == 2


def test_a_box_document_is_no_fleet(tmp_path, hall):
    other = tmp_path / "box.yaml"
    other.write_text("gpus: [{index: 0}]\n")
    assert is_fleet(hall)
    assert not is_fleet(other)
    assert not is_fleet(tmp_path / "topo.txt")
