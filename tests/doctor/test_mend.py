"""Fixes as edits of the text: what is there stays, in every way in which files are written."""

import pytest

from atoll.doctor.checks import all_rules
from atoll.doctor.examine import examine
from atoll.doctor.finding import Edit, Finding
from atoll.doctor.mend import RISKY_TOO, mend
from atoll.doctor.rule import Rule
from stand_ins.examples import facts_of


def mended(files: dict[str, str], *select: str) -> dict[str, str]:
    """The files as the fixes leave them."""
    made = mend(lambda texts: examine(facts_of({**files, **texts}), select=select), lambda path: files[path], RISKY_TOO)
    return {**files, **{one.path: one.after for one in made.files}}


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


STACK = """services:
  a: {image: "vllm/vllm-openai:v0.32.0", command: m}
  b: {image: "vllm/vllm-openai:v0.32.0", command: m}
  nginx: {image: "nginx:1.31.3", volumes: ["./nginx.conf:/etc/nginx/nginx.conf"]}
"""


def test_directives_are_added_beside_what_is_there():
    after = mended({"nginx.conf": NGINX, "compose.yaml": STACK}, "NG020", "NG016", "NG001")["nginx.conf"]
    assert "        server a:8000 resolve;   # first\n" in after
    assert "        least_conn;\n" in after
    assert "location /v1/ { proxy_pass http://vllm; proxy_read_timeout 1800s; }  # the door" in after
    assert "    # two engines\n" in after


def test_a_direct_proxy_pass_is_looked_up_again_through_a_variable():
    text = "events {}\nhttp { server { location /v1/ {\n  proxy_pass http://vllm:8000;\n} } }\n"
    after = mended({"nginx.conf": text, "compose.yaml": STACK.replace("  a:", "  vllm:")}, "NG020")["nginx.conf"]
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


def test_whoever_writes_fixes_says_what_they_change():
    for rule in all_rules():
        written = [found for found in rule.check(facts_of(rule.page.fails)) if found.edits]
        assert not written or rule.risk is not None, rule.id


@pytest.mark.parametrize("rule", [pytest.param(rule, id=rule.id) for rule in all_rules()])
def test_the_fixes_of_every_failing_example_settle_and_start_nothing_new(rule: Rule):
    files = dict(rule.page.fails)
    after = mended(files)
    before, left = examine(facts_of(files)), examine(facts_of(after))
    assert mended(after) == after
    assert [finding.what for finding in left if finding.edits] == []
    # the invented --max-batch-size becomes --max-num-seqs, whose small value can now be judged
    assert {finding.rule for finding in left} - {finding.rule for finding in before} <= {"VL009"}


def test_a_block_that_ends_on_its_last_directives_line_gets_its_lines_inside():
    text = "events {}\nhttp {\n  upstream vllm {\n    server a:8000; server b:8000; keepalive 64; }\n  server { location /v1/ { proxy_pass http://vllm; } }\n}\n"
    after = mended({"nginx.conf": text}, "NG006", "NG005")["nginx.conf"]
    assert "keepalive 64; keepalive_timeout 4s; }\n" in after


def test_a_volume_of_the_last_service_is_declared_below_it():
    text = "services:\n  mongo:\n    image: mongo:7.0\n"
    assert compose(text, "MG001") == (
        text + "    volumes:\n      - mongo_data:/data/db\n\nvolumes:\n  mongo_data: {}\n"
    )


def test_json_in_a_plain_string_stays_one_word_for_yaml():
    text = "services:\n  vllm:\n" + IMAGE + "    command: org/m --compilation-config 3 --swap-space 4\n"
    assert "    command: org/m --compilation-config '{\"mode\":3}'\n" in compose(text, "VL001", "VL006")


def test_a_fix_that_spoils_a_file_is_left_out_and_the_others_are_made():
    def look(texts):
        text = texts.get("a.yaml", "one two")
        if "BAD" in text:
            return (Finding(rule="AT001", file="a.yaml", line=1, what="not readable"),)
        places = [(text.find(word), word, new) for word, new in (("one", "BAD"), ("two", "good"))]
        return tuple(
            Finding(
                rule=f"X{word}",
                file="a.yaml",
                line=1,
                what=word,
                edits=(Edit(file="a.yaml", start=at, end=at + 3, text=new),),
            )
            for at, word, new in places
            if at >= 0
        )

    made = mend(look, lambda _: "one two")
    assert [one.after for one in made.files] == ["one good"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_line_ends_stay_of_one_kind(line_end):
    text = (
        "services:\n  vllm:\n"
        + IMAGE
        + "    command:\n      - org/m\n      - --swap-space=4\n      - -tp\n      - '2'\n"
    )
    after = compose(text.replace("\n", line_end))
    assert "shm_size: 16gb" in after
    assert after.count("\n") == after.count(line_end)


def test_a_fix_that_mends_nothing_is_not_made_again_and_again():
    def look(texts):
        text = texts.get("a.yaml", "one")
        return (
            Finding(rule="X", file="a.yaml", line=1, what="w", edits=(Edit(file="a.yaml", start=0, end=0, text="+"),)),
        ) * len(text[:1])

    assert mend(look, lambda _: "one").files == ()


def test_one_line_of_nginx_gets_no_directive_twice():
    text = (
        "events {}\nhttp {\n  upstream litellm { server 127.0.0.1:8101; }\n"
        "  server { listen 8100; location / { proxy_pass http://litellm; proxy_set_header Host $host; } }\n}\n"
    )
    config = (
        "model_list:\n  - model_name: q\n    litellm_params: {model: openai/q, api_base: http://127.0.0.1:8000/v1}\n"
    )
    after = mended({"nginx.conf": text, "litellm_config.yaml": config})["nginx.conf"]
    assert after.count("proxy_http_version 1.1;") == 1
    assert after.count('proxy_set_header Connection "";') == 1


def test_a_command_that_two_releases_share_gets_no_option_that_the_older_one_refuses():
    text = (
        'x-c: &c [--model, Qwen/Qwen3-8B, --max-model-len, "8192"]\nservices:\n'
        "  new:\n    image: vllm/vllm-openai:v0.33.0\n    command: *c\n"
        "  old:\n    image: vllm/vllm-openai:v0.8.4\n    command: *c\n"
    )
    assert "--shutdown-timeout" not in compose(text, "VL001", "VL018")


def test_a_key_stays_in_a_release_that_is_newer_than_the_lists():
    text = (
        "services:\n  a:\n    image: vllm/vllm-openai:v0.99.0\n    command: [Qwen/Qwen3-8B]\n"
        "    environment:\n      VLLM_API_KEY: ${KEY}\n      VLLM_USE_V1: '0'\n"
    )
    after = compose(text, "VL021")
    assert "VLLM_API_KEY" in after
    assert "VLLM_USE_V1" not in after


def test_a_download_whose_end_is_waited_for_is_not_restarted():
    text = (
        "services:\n  load:\n    image: vllm/vllm-openai:v0.33.0\n    entrypoint: hf\n    command: download Qwen/Qwen3-8B\n"
        "  a:\n    image: vllm/vllm-openai:v0.33.0\n    command: [Qwen/Qwen3-8B]\n"
        "    depends_on:\n      load:\n        condition: service_completed_successfully\n"
    )
    assert compose(text, "DC009").count("restart: unless-stopped") == 1
