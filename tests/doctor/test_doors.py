"""Doors other than nginx: what they lead to, how long they wait, and what the same rules say of them."""

import pytest

from atoll.doctor.caddy import doors_of_caddyfile, parse_caddyfile
from atoll.doctor.door import seconds, split_address
from atoll.doctor.examine import examine
from atoll.doctor.files import HeldFiles
from atoll.doctor.tree import Source
from atoll.errors import BadDocument
from atoll.workflows.diagnose import ask, correct, diagnose

ENGINES = """\
services:
  a:
    image: vllm/vllm-openai:v0.33.0
    command: [org/m, --served-model-name, chat, big]
    ports: ["127.0.0.1:9000:8000"]
  door: {image: "example/door:1"}
"""
RULES = ("PX007", "PX008", "PX009", "PX010")


def said(files: dict[str, str]) -> list[tuple[str, int, str]]:
    found = diagnose(ask(["."], select=RULES), HeldFiles({"compose.yaml": ENGINES} | files)).findings
    return [(one.rule, one.line, one.what) for one in found]


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a:8000", ("a", 8000)),
        ("http://a/v1", ("a", 80)),
        (":8000", ("localhost", 8000)),
        ("[::1]:9", ("[::1]", 9)),
        ("{$UP}", None),
        ("", None),
    ],
)
def test_addresses(text, address):
    assert split_address(text) == address


@pytest.mark.parametrize(
    ("text", "value"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("7", 7), ("0", 0), ("${T}", None), ("soon", None)]
)
def test_durations(text, value):
    assert seconds(text) == value


CADDYFILE = """\
{
    email ops@example.org   # global options
}
(common) {
    encode gzip
}
llm.example.org,
www.example.org {
    import common
    handle_path /v1/* {
        reverse_proxy /v1/* a:8001 http://b:8000 {
            to c:8000
            flush_interval -1
            transport http {
                response_header_timeout 30s
                dial_timeout 5s
            }
        }
    }
    respond "{not a brace}" 404
}
"""


def test_a_caddyfile_gives_its_doors():
    (door,) = doors_of_caddyfile(Source("Caddyfile", CADDYFILE))
    assert [(one.host, one.port) for one in door.backends] == [("a", 8001), ("b", 8000), ("c", 8000)]
    assert [(one.setting, one.seconds, one.node.line) for one in door.waits] == [("response_header_timeout", 30.0, 15)]
    (simple,) = doors_of_caddyfile(Source("Caddyfile", ":80\nreverse_proxy a:8000"))
    assert [one.port for one in simple.backends] == [8000]


@pytest.mark.parametrize(("text", "line"), [(":80 {\n  a\n", 1), (":80\n}\n", 2)])
def test_a_damaged_caddyfile_is_no_nginx(text, line):
    with pytest.raises(BadDocument, match=f"line {line}: this is not a Caddyfile"):
        parse_caddyfile(Source("Caddyfile", text))
    (finding,) = diagnose(ask(["Caddyfile"], select=["AT"]), HeldFiles({"Caddyfile": text})).findings
    assert "nginx" not in finding.what


DOORS = {
    "Caddyfile": (
        ":80 {\n  reverse_proxy a:9000 {\n    transport http {\n      read_timeout 60s\n    }\n  }\n}\n",
        2,
        4,
    ),
    "haproxy.cfg": ("defaults\n  mode http\n  timeout server 60000\nbackend x\n  server a1 a:9000 check\n", 5, 3),
    "envoy.yaml": (
        (
            "static_resources:\n  clusters:\n    - name: x\n      load_assignment:\n        endpoints:\n          - lb_endpoints:\n"
            "              - endpoint: {address: {socket_address: {address: a, port_value: 9000}}}\n"
        ),
        7,
        None,
    ),
    "traefik.yaml": (
        (
            "http:\n  services:\n    x:\n      loadBalancer:\n        servers:\n          - url: 'http://a:9000'\n"
            "  serversTransports:\n    t:\n      forwardingTimeouts:\n        responseHeaderTimeout: 60s\n"
        ),
        6,
        10,
    ),
    "litellm.yaml": (
        (
            "model_list:\n  - model_name: x\n    litellm_params:\n      model: openai/big\n      api_base: http://a:9000/v1\n"
            "      timeout: 60\n"
        ),
        5,
        6,
    ),
}


@pytest.mark.parametrize("name", DOORS)
def test_every_door_is_held_against_the_engine_and_mended(name):
    text, port_line, wait_line = DOORS[name]
    wanted = [("PX007", port_line)] + ([("PX008", wait_line)] if wait_line else [])
    assert sorted((rule, line) for rule, line, _ in said({name: text})) == wanted
    made = correct(ask(["."], select=RULES), HeldFiles({"compose.yaml": ENGINES, name: text}), risky=True)
    assert made.left.findings == ()
    assert [one.path for one in made.files] == [name]


def test_labels_of_traefik():
    labels = "    labels: [traefik.enable=true, traefik.http.services.a.loadbalancer.server.port=9000]\n"
    compose = ENGINES.replace("    ports:", f"{labels}    ports:")
    assert said({"compose.yaml": compose}) == [("PX007", 5, "Traefik asks a on port 9000; it listens on 8000")]


def test_a_static_file_of_traefik_counts_where_engines_are_near():
    text = "entryPoints:\n  web:\n    address: ':80'\n    transport:\n      respondingTimeouts: {writeTimeout: 30s, readTimeout: 60s}\n"
    assert said({"traefik.yml": text}) == [("PX008", 5, "Traefik gives up after 30 s (writeTimeout)")]


def test_litellm_asks_for_what_is_served_and_keeps_its_key():
    text = "model_list:\n  - {model_name: x, litellm_params: {model: NAME, api_base: 'http://a:8000'}}\ngeneral_settings: {master_key: KEY}\n"
    fine = text.replace("NAME", "hosted_vllm/chat").replace("KEY", "os.environ/KEY")
    assert said({"litellm.yaml": fine}) == []
    assert said({"litellm.yaml": text.replace("NAME", "openai/org/m").replace("KEY", "sk-1")}) == [
        ("PX010", 2, "LiteLLM asks a for org/m; it serves big and chat"),
        ("PX009", 3, "LiteLLM's master key is written out"),
    ]
    other = text.replace("NAME", "gpt-4o").replace("KEY", "os.environ/KEY")
    assert said({"litellm.yaml": other}) == []


def test_a_port_that_is_published_and_a_door_to_something_else():
    assert said({"Caddyfile": ":80 {\n  reverse_proxy localhost:9000\n}\n"}) == []
    assert (
        said({"Caddyfile": ":80 {\n  reverse_proxy door:3000 {\n    transport http {\n read_timeout 5s\n }\n }\n}\n"})
        == []
    )


def test_an_nginx_snippet_that_leads_to_a_program_of_this_machine(facts_of):
    script = "vllm serve org/m --port 8000\n"
    snippet = "location / {\n  proxy_pass http://127.0.0.1:8000;\n}\n"
    (route,) = facts_of({"serve.sh": script, "llm.conf": snippet}).routes
    assert [service.name for service in route.services] == ["m"]
    assert facts_of({"llm.conf": "location /v1/ {\n  proxy_pass http://10.0.0.2:8000;\n}\n"}).routes != ()
    assert facts_of({"web.conf": "location / {\n  proxy_pass http://10.0.0.2:8000;\n}\n"}).routes == ()


def test_other_engines_are_split_and_reached(facts_of):
    text = """\
services:
  sg:
    image: lmsysorg/sglang:v0.5.5
    command: python3 -m sglang.launch_server --model-path org/m --tp 2 --pp-size 2 --host 0.0.0.0 --port 30001
    gpus: [{device_ids: ["0", "1"]}]
  silent:
    image: lmsysorg/sglang:v0.5.5
    command: python3 -m sglang.launch_server --model-path org/m
  tgi:
    image: ghcr.io/huggingface/text-generation-inference:3.3
    command: --model-id org/m --num-shard 2
    gpus: [{device_ids: ["2", "3"]}]
"""
    found = diagnose(ask(["x.yaml"], select=["TP007", "VL023"]), HeldFiles({"x.yaml": text})).findings
    assert [(one.rule, one.line) for one in found] == [("TP007", 5), ("VL023", 6)]
    assert {service.name: service.listen_port for service in facts_of({"x.yaml": text}).services} == {
        "sg": 30001,
        "silent": 30000,
        "tgi": 80,
    }


@pytest.mark.parametrize("name", ["measured.csv", "notes"])
def test_commands_quoted_in_a_table_start_nothing(name, facts_of):
    row = "{}, H100, docker run --gpus 1 vllm/vllm-openai:v0.32.0 --model org/m\n"
    facts = facts_of({name: f"id, gpu, notes\n{row.format('a')}{row.format('b')}"})
    assert not facts.projects
    assert [finding.rule for finding in examine(facts)] == ["AT002"]
