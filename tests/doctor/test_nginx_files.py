"""nginx configurations: includes, inheritance, versions, and which service is behind them."""

import pytest

from atoll.doctor.examine import examine
from atoll.doctor.nginx import parse_nginx
from atoll.doctor.nginx_values import nginx_bytes, nginx_seconds
from atoll.doctor.tree import Source
from atoll.errors import BadDocument
from stand_ins.examples import facts_of

MAIN = "events {}\nhttp {\n  include conf.d/*.conf;\n  proxy_read_timeout 900s;\n}\n"
SITE = "upstream vllm { server vllm-0:8000; }\nserver { location /v1/ { proxy_pass http://vllm; } }\n"


def test_directives_know_their_lines_and_arguments():
    tree = parse_nginx(Source("x", "events {}\nhttp {\n  log_format a 'b \"c\"' # why\n    'd';\n}\n"))
    line = tree[1].block[0]
    assert (line.name, line.args, line.line) == ("log_format", ("a", 'b "c"', "d"), 3)


@pytest.mark.parametrize("text", ["http {", "}", "listen 80", "a 'b", ";", "a { b }", "x \\"])
def test_damage_is_one_sentence_with_a_line(text):
    with pytest.raises(BadDocument, match=r"^line \d+: this is not an nginx configuration"):
        parse_nginx(Source("x", text))


def test_includes_are_followed_and_inherit(facts_of):
    facts = facts_of({"nginx.conf": MAIN, "conf.d/site.conf": SITE})
    assert len(facts.nginx) == 1
    route = facts.routes[0]
    assert (route.location.find("proxy_read_timeout").arg, route.location.directive.file) == (
        "900s",
        "conf.d/site.conf",
    )


def test_fragments_of_one_folder_are_one_configuration(facts_of):
    files = {
        "conf.d/a.conf": "upstream vllm { server v:8000; }\n",
        "conf.d/b.conf": "server { location /v1/ { proxy_pass http://vllm; } }\n",
    }
    facts = facts_of(files)
    assert len(facts.nginx) == 1
    assert facts.routes[0].location.upstream.name == "vllm"


COMPOSE = """services:
  vllm-0: {image: "vllm/vllm-openai:v0.32.0", command: m}
  web: {image: "example/web:1"}
  nginx: {image: "nginx:%s", volumes: ["./nginx.conf:/etc/nginx/nginx.conf", "./conf.d:/etc/nginx/conf.d"]}
"""


@pytest.mark.parametrize(
    ("tag", "modern", "resolves"),
    [
        ("1.25.5", False, False),
        ("1.27", False, True),
        ("1.29.6", False, True),
        ("1.29.7-alpine", True, True),
        ("alpine", True, True),
    ],
)
def test_the_images_tag_is_the_version(tag, modern, resolves, facts_of):
    facts = facts_of({"compose.yaml": COMPOSE % tag, "nginx.conf": MAIN, "conf.d/site.conf": SITE})
    assert (facts.nginx[0].modern, facts.nginx[0].resolves_upstreams) == (modern, resolves)


def test_a_location_to_another_service_is_no_route_to_a_model(facts_of):
    site = (
        "server { location /v1/ { proxy_pass http://web:3000; } location /llm/ { proxy_pass http://vllm-0:8000/; } }\n"
    )
    facts = facts_of({"compose.yaml": COMPOSE % "1.27", "nginx.conf": MAIN, "conf.d/site.conf": site})
    assert [route.location.path for route in facts.routes] == ["/llm/"]


def test_variables_and_maps_lead_to_their_hosts(facts_of):
    site = "server { location /v1/ { set $up http://vllm-0:8000; proxy_pass $up; } }\n"
    facts = facts_of({"compose.yaml": COMPOSE % "1.27", "nginx.conf": MAIN, "conf.d/site.conf": site})
    assert [service.name for service in facts.routes[0].services] == ["vllm-0"]


def test_a_published_port_leads_to_its_service(facts_of):
    compose = "services:\n  v: {image: 'vllm/vllm-openai:v0.32.0', command: m, ports: ['127.0.0.1:8001:8000']}\n"
    site = "server { location /ai/ { proxy_pass http://127.0.0.1:8001/; } }\n"
    facts = facts_of({"compose.yaml": compose, "site.conf": site})
    assert [service.name for service in facts.routes[0].services] == ["v"]


@pytest.mark.parametrize(("text", "seconds"), [("60", 60), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), ("$x", None)])
def test_times(text, seconds):
    assert nginx_seconds(text) == seconds


@pytest.mark.parametrize(("text", "size"), [("1m", 2**20), ("64K", 2**16), ("0", 0), ("$x", None)])
def test_sizes(text, size):
    assert nginx_bytes(text) == size


def test_a_host_nginx_is_not_told_to_ask_dockers_dns():
    text = "upstream v { server vllm-0:8000; server vllm-1:8000; }\nserver { location /v1/ { proxy_pass http://v; } }\n"
    said = [finding for finding in examine(facts_of({"nginx.conf": text})) if finding.rule == "NG020"]
    assert said
    assert all("127.0.0.11" not in finding.fix for finding in said)
