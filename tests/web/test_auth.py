"""The guard before every route, attacked one way after the other."""

import re

import pytest

from atoll.web.auth import QUESTIONS
from atoll.web.site import PAGES
from stand_ins.control_plane import HOST, OPERATOR, VIEWER, client_of


def test_without_a_token_nobody_comes_in(site):
    with client_of(site, secret=None) as nobody:
        for path in ("/", "/runs", "/api/runs", "/settings"):
            answer = nobody.get(path)
            assert answer.status_code == 401
            assert answer.json()["error"] == "Open the link that `atoll serve` printed: it carries the token."
        assert nobody.get("/health").status_code == 200
        assert nobody.get("/static/atoll.css").status_code == 200


def test_a_person_without_a_token_gets_a_page(site):
    with client_of(site, secret=None, Accept="text/html") as nobody:
        answer = nobody.get("/")
    assert answer.status_code == 401
    assert "Open the link that `atoll serve` printed" in answer.text


def test_the_printed_link_becomes_a_cookie_by_a_redirect(site):
    with client_of(site, secret=None) as browser:
        answer = browser.get("/runs?tag=a&token=" + OPERATOR)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/runs?tag=a"
        cookie = answer.headers["set-cookie"]
        assert cookie.startswith(f"atoll-8090={OPERATOR};")
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert browser.get("/settings").status_code == 200


def test_the_redirect_leads_nowhere_else(site):
    with client_of(site, secret=None) as browser:
        answer = browser.get(f"http://{HOST}//evil.example/x?token={OPERATOR}")
    assert answer.headers["location"] == "/evil.example/x"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:8090", "127.0.0.1:8090.evil.example", "", "lan", "10.0.0.7"]
)
def test_a_foreign_host_is_misdirected(site, host):
    with client_of(site) as client:
        assert client.get("/", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "127.0.0.1", "127.0.0.1:9", "[::1]:8090", "[::1]", "BOX.lan:80"])
def test_our_own_names_are_answered_at_any_port(site, host):
    with client_of(site) as client:
        assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("origin", "status"), [(None, 403), ("http://evil.example", 403), ("null", 403), (f"http://{HOST}", 200)]
)
def test_a_change_by_cookie_needs_our_own_origin(site, origin, status):
    with client_of(site, secret=None) as browser:
        browser.cookies.set("atoll-8090", OPERATOR)
        headers = {} if origin is None else {"Origin": origin}
        answer = browser.post("/settings/tokens", data={"name": "x", "role": "viewer"}, headers=headers)
    assert answer.status_code == status


def test_a_viewer_sees_and_changes_nothing(site):
    with client_of(site, secret=VIEWER) as viewer:
        assert viewer.get("/settings").status_code == 200
        answer = viewer.post("/settings/tokens", data={"name": "x", "role": "operator"})
    assert answer.status_code == 403
    assert answer.json()["error"] == "This token may look and not change anything; an operator's may."


def test_no_page_offers_a_viewer_a_change(site):
    with client_of(site, secret=VIEWER) as viewer:
        pages = {path: viewer.get(path).text for path in ("/", *(f"/{name}" for name in PAGES if name != "home"))}
    offered = {path: set(re.findall(r'method="post" action="([^"]+)"', text)) for path, text in pages.items()}
    kept = {"/studies"}  # its form checks, and has no button that keeps
    assert {path: found - QUESTIONS - kept for path, found in offered.items() if found - QUESTIONS - kept} == {}


def test_too_many_wrong_tokens_are_answered_with_429(site):
    with client_of(site, secret="wrong") as guesser:
        answers = [guesser.get("/").status_code for _ in range(22)]
    assert answers == [401] * 20 + [429] * 2


def test_a_body_over_the_limit_is_refused(site):
    with client_of(site) as client:
        assert client.post("/api/runs", content=b"x" * (9 << 20)).status_code == 413
        assert client.post("/api/runs", content=(b"x" * (1 << 20) for _ in range(9))).status_code == 413
        assert client.post("/api/runs", headers={"Content-Length": str(1 << 30)}).status_code == 413


def test_an_import_may_be_larger_than_other_bodies_and_has_its_own_limit(client):
    taken = client.post("/runs/import", files={"file": ("big.json", b" " * (9 << 20))})
    assert taken.status_code == 400  # read, and no result of a load generator
    refused = client.post("/runs/import", headers={"Content-Length": str(65 << 20)})
    assert (refused.status_code, "64 MiB" in refused.text) == (413, True)


def test_every_answer_carries_the_headers(client):
    for path in ("/", "/health", "/none", "/api/runs/none"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none';")
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
