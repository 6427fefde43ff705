"""Which doors lead to a language model; of a door where nobody can tell, it is said."""

import pytest

from atoll.doctor.coverage import understood_all
from atoll.doctor.files import HeldFiles
from atoll.workflows.diagnose import ask, diagnose

MODEL, OTHER, UNKNOWN = "model", "other", "unknown"
UP = "upstream backend {{ server {}; }} "
LOCATIONS = (
    ("location / { proxy_pass http://127.0.0.1:8000; }", UNKNOWN),
    ("location / { proxy_pass http://localhost:8000/; }", UNKNOWN),
    ("location / { proxy_pass http://[::1]:8000; }", UNKNOWN),
    ("location / { proxy_pass http://host.docker.internal:8000; }", UNKNOWN),
    ("location / { proxy_pass http://backend:8000; }", UNKNOWN),
    ("location / { proxy_pass http://10.0.0.1:8080; }", UNKNOWN),
    ("location / { proxy_pass $somewhere; }", UNKNOWN),
    ("location / { set $up 127.0.0.1:8000; proxy_pass http://$up; }", UNKNOWN),
    ("location /api/ { proxy_pass http://10.1.1.1:8000/; }", UNKNOWN),
    ("location /v1/ { proxy_pass http://shop:8443; }", UNKNOWN),
    ("location /api/ { proxy_pass http://10.1.1.1:8000/v1/; }", MODEL),
    ("location / { proxy_pass http://10.1.1.1:8000/v1/; }", MODEL),
    ("location /v1 { proxy_pass http://127.0.0.1:8000; }", MODEL),
    ("location ^~ /v1/ { proxy_pass http://127.0.0.1:8000$request_uri; }", MODEL),
    ("location ~ ^/v1/ { proxy_pass https://gpu01.lab:8000; }", MODEL),
    ("location /v1/chat/completions { proxy_pass http://10.0.0.1:9000; }", MODEL),
    ("location / { proxy_pass http://127.0.0.1:8000; proxy_buffering off; }", MODEL),
    ("location /llm/ { proxy_pass http://10.0.0.1:8001/; }", MODEL),
    ("location / { proxy_pass http://vllm-0:8000; }", MODEL),
    ("location / { proxy_pass http://ollama:11434; }", MODEL),
    ("location / { set $up http://127.0.0.1:30000; proxy_pass $up; proxy_buffering off; }", MODEL),
    ("location / { proxy_pass http://127.0.0.1:3000; }", OTHER),
    ("location /grafana/ { proxy_pass http://10.0.0.9; }", OTHER),
    ("location /static/ { proxy_pass http://127.0.0.1:8000; }", OTHER),
    ("location / { proxy_pass http://open-webui:8080; }", OTHER),
)


def lead(files: dict[str, str], rule: str) -> str:
    diagnosis = diagnose(ask(["."]), HeldFiles(files))
    if any(found.rule == rule for found in diagnosis.findings):
        return MODEL
    return OTHER if understood_all(diagnosis.facts) else UNKNOWN


@pytest.mark.parametrize(("location", "wanted"), LOCATIONS)
def test_where_a_location_leads(location: str, wanted: str):
    assert lead({"site.conf": f"server {{ listen 80; {location} }}\n"}, "NG001") == wanted


def test_where_an_upstream_leads():
    site = "server { listen 80; location / { proxy_pass http://backend; } }"
    assert lead({"site.conf": UP.format("10.0.0.1:8000") + site}, "NG001") == UNKNOWN
    assert lead({"site.conf": UP.format("vllm:8000") + site}, "NG001") == MODEL
    assert lead({"sites-enabled/llm.conf": UP.format("10.0.0.1:8000") + site}, "NG001") == MODEL
    named = site.replace("listen 80;", "listen 80; server_name llm.example.org;")
    assert lead({"site.conf": UP.format("10.0.0.1:8000") + named}, "NG001") == MODEL


def test_the_ports_of_engines_that_are_there_tell():
    engine = "services:\n  e: {{image: 'vllm/vllm-openai:v0.33.0', command: org/m, ports: ['{}:8000']}}\n"
    site = "server {{ listen 80; location / {{ proxy_pass http://{}; }} }}"
    for port, address, wanted in (
        ("8000", "127.0.0.1:8000", MODEL),
        ("8000", "10.0.0.7:8000", MODEL),
        ("9000", "127.0.0.1:9000", MODEL),
        ("9000", "10.0.0.7:8443", UNKNOWN),
    ):
        files = {"compose.yaml": engine.format(port), "site.conf": site.format(address)}
        assert lead(files, "NG001") == wanted, (port, address)


TRAEFIK = (
    "http:\n  serversTransports: {{t: {{forwardingTimeouts: {{responseHeaderTimeout: 30s}}}}}}\n"
    "  services:\n    s: {{loadBalancer: {{servers: [{{url: 'http://{}'}}]}}}}\n"
)
OTHER_DOORS = (
    ("Caddyfile", "example.org {{\n  reverse_proxy {} {{\n    transport http {{\n read_timeout 30s\n }}\n  }}\n}}\n"),
    ("haproxy.cfg", "defaults\n  mode http\n  timeout server 30s\nbackend b\n  server s1 {}\n"),
    ("traefik.yml", TRAEFIK),
)


@pytest.mark.parametrize(("name", "text"), OTHER_DOORS)
def test_other_doors_are_judged_alike(name: str, text: str):
    for address, wanted in (("127.0.0.1:8000", UNKNOWN), ("vllm:8000", MODEL), ("grafana:3000", OTHER)):
        assert lead({name: text.format(address)}, "PX008") == wanted, address


def test_what_is_not_known_is_named():
    files = {
        "site.conf": "server { location / { proxy_pass http://10.0.0.1:8000; } location /b { proxy_pass http://$x; } }",
        "nginx.conf": "events {} stream { server { listen 1; proxy_pass 10.0.0.1:8000; } }",
    }
    unknown = {one.file: one.why for one in diagnose(ask(["."]), HeldFiles(files)).facts.not_understood}
    assert unknown == {
        "site.conf": "whether http://10.0.0.1:8000 (location /) and 1 more lead to a language model is not known",
        "nginx.conf": "stream {} passes connections on, which no rule looks into",
    }
