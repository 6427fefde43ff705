"""Fixes as edits of the text: what is there stays, in every way in which files are written."""

import pytest

from atoll.doctor.examine import examine
from atoll.doctor.examples import facts_of
from atoll.doctor.mend import mend


def mended(files: dict[str, str], *select: str) -> dict[str, str]:
    """The files as the fixes leave them."""
    made, _ = mend(lambda texts: examine(facts_of({**files, **texts}), select=select), lambda path: files[path])
    return {**files, **{one.path: one.after for one in made}}


def compose(text: str, *select: str) -> str:
    return mended({"compose.yaml": text}, *select)["compose.yaml"]


IMAGE = "    image: vllm/vllm-openai:v0.32.0\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    command: [org/m, --swap-space, '4', -tp, '2']\n", "    command: [org/m, -tp, '2']\n"),
        ("    command: [org/m, -tp, '2', --swap-space=4]\n", "    command: [org/m, -tp, '2']\n"),
        ("    command: org/m --swap-space 4 -tp 2  # why\n", "    command: org/m -tp 2  # why\n"),
        ("    command: org/m -tp 2 --swap-space 4\n", "    command: org/m -tp 2\n"),
        (
            "    command: >-\n      org/m\n      --swap-space 4\n      -tp 2\n",
            "    command: >-\n      org/m\n      -tp 2\n",
        ),
        (
            "    command: |\n      org/m \\\n      --swap-space 4 \\\n      -tp 2\n",
            "    command: |\n      org/m \\\n      -tp 2\n",
        ),
        ("    command:\n      - org/m\n      - --swap-space  # old\n      - '4'\n", "    command:\n      - org/m\n"),
    ],
)
def test_an_option_goes_with_its_value(before, after):
    head = "services:\n  vllm:\n" + IMAGE
    assert compose(head + before, "VL001") == head + after


def test_an_option_that_came_out_of_a_variable_is_left_alone():
    text = "services:\n  vllm:\n" + IMAGE + "    command: org/m ${EXTRA:---swap-space 4}\n"
    assert compose(text, "VL001") == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "  vllm:\n" + IMAGE + "    command: m -tp 2 # two\n",
            "  vllm:\n" + IMAGE + "    command: m -tp 2 # two\n    shm_size: 16gb\n",
        ),
        (
            "  vllm: {image: 'vllm/vllm-openai:v0.32.0', command: m -tp 2}\n",
            "  vllm: {image: 'vllm/vllm-openai:v0.32.0', command: m -tp 2, shm_size: 16gb}\n",
        ),
        (
            "  vllm:\n" + IMAGE + "    command: >-\n      m\n      -tp 2\n\n  other: {image: 'x:1'}\n",
            "  vllm:\n"
            + IMAGE
            + "    command: >-\n      m\n      -tp 2\n    shm_size: 16gb\n\n  other: {image: 'x:1'}\n",
        ),
    ],
)
def test_a_key_is_added_where_the_service_ends(before, after):
    assert compose("services:\n" + before, "DC004") == "services:\n" + after


def test_a_service_that_is_only_an_anchors_copy_is_mended_at_the_anchor():
    text = "x-v: &v\n  image: vllm/vllm-openai:v0.32.0\n  command: m -tp 2\nservices:\n  a: *v\n"
    assert compose(text, "DC004") == text.replace("-tp 2\n", "-tp 2\n  shm_size: 16gb\n")


def test_a_published_port_moves_to_loopback_and_keeps_its_comment():
    text = (
        "services:\n  vllm:\n"
        + IMAGE
        + "    command: m\n    ports:\n      - 8001:8000  # ours\n  web: {image: 'x:1', depends_on: [vllm]}\n"
    )
    assert '      - "127.0.0.1:8001:8000"  # ours\n' in compose(text, "DC003")


NGINX = """events {}
http {
    # two engines
    upstream vllm {
        server a:8000;   # first
        server b:8000;
    }
    server {
        location /v1/ { proxy_pass http://vllm; }  # the door
    }
}
"""


def test_directives_are_added_beside_what_is_there():
    after = mended({"nginx.conf": NGINX}, "NG020", "NG016", "NG001")["nginx.conf"]
    assert "        server a:8000 resolve;   # first\n" in after
    assert "        least_conn;\n" in after
    assert "location /v1/ { proxy_pass http://vllm; proxy_read_timeout 1800s; }  # the door" in after
    assert "    # two engines\n" in after


def test_a_direct_proxy_pass_is_looked_up_again_through_a_variable():
    text = "events {}\nhttp { server { location /v1/ {\n  proxy_pass http://vllm:8000;\n} } }\n"
    after = mended({"nginx.conf": text}, "NG020")["nginx.conf"]
    assert "set $engine http://vllm:8000; proxy_pass $engine;" in after
    assert "resolver 127.0.0.11" in after


def test_gpus_are_pinned_anew_inside_the_islands():
    topo = "        GPU0 GPU1 GPU2 GPU3\nGPU0 X NV12 SYS SYS\nGPU1 NV12 X SYS SYS\nGPU2 SYS SYS X NV12\nGPU3 SYS SYS NV12 X\n"
    text = (
        "services:\n"
        "  a:\n" + IMAGE + "    command: m -tp 2\n    gpus: [{device_ids: ['0', '2']}]\n"
        "  b:\n" + IMAGE + "    command: m -tp 2\n    gpus: [{device_ids: ['1', '3']}]\n"
    )
    after = mended({"compose.yaml": text, "topo.txt": topo}, "TP001")["compose.yaml"]
    assert """device_ids: ['0', "1"]""" in after
    assert """device_ids: ["2", '3']""" in after


def test_a_secret_becomes_a_variable():
    text = (
        "services:\n  vllm:\n"
        + IMAGE
        + "    command: m\n    environment:\n      - HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz0123456789\n"
    )
    assert '- "HF_TOKEN=${HF_TOKEN:?put HF_TOKEN into .env}"' in compose(text, "DC013")


def test_mending_twice_changes_nothing():
    once = mended({"nginx.conf": NGINX})
    assert mended(once) == once
