"""The control plane's routes over a real catalogue, asked in process."""

from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient

import atoll
from atoll.errors import InputError
from atoll.store.opening import open_catalog
from atoll.web.app import app_from_environment, create_app

ENTRY = {
    "run_id": "study:2xTP2",
    "name": "2xTP2",
    "engine": "emulated",
    "study": "nvl",
    "started_at": 5.0,
    "tags": ["a"],
}


@pytest.fixture
def client(tmp_path):
    with ask(create_app(open_catalog(f"sqlite:{tmp_path / 'runs.db'}"))) as made:
        yield made


def ask(app, host="127.0.0.1:8090", **options):
    return TestClient(app, base_url=f"http://{host}", **options)


def test_health_says_the_version(client):
    assert client.get("/health").json() == {"status": "ok", "version": atoll.__version__}


def test_a_saved_run_is_listed_and_found(client):
    assert client.get("/api/runs").json() == {"runs": []}
    saved = client.post("/api/runs", json=ENTRY)
    assert saved.status_code == 201
    assert client.get("/api/runs").json() == {"runs": [saved.json()]}
    assert client.get("/api/runs/study:2xTP2").json()["name"] == "2xTP2"
    assert client.get("/api/runs", params={"tag": "b"}).json() == {"runs": []}
    assert client.get("/api/runs", params={"study": "nvl", "limit": 1}).json()["runs"][0]["tags"] == ["a"]


@pytest.mark.parametrize("run_id", ["실험:2xTP2:1f", "🚀", ".hidden", "-x", "a b", "50%?#&=+"])
def test_an_address_holds_a_run_id_of_any_script(client, run_id):
    place = f"/api/runs/{quote(run_id, safe='')}"
    assert client.post("/api/runs", json=ENTRY | {"run_id": run_id}).status_code == 201
    assert client.get(place).json()["run_id"] == run_id
    assert client.delete(place).status_code == 204
    assert client.get(place).status_code == 404


def test_a_run_that_is_not_there_is_404_with_the_sentence(client):
    answer = client.get("/api/runs/none")
    assert answer.status_code == 404
    assert "has no run none" in answer.json()["error"]
    assert client.delete("/api/runs/none").status_code == 404


def test_a_run_can_be_forgotten(client):
    client.post("/api/runs", json=ENTRY)
    assert client.delete("/api/runs/study:2xTP2").status_code == 204
    assert client.get("/api/runs").json() == {"runs": []}


@pytest.mark.parametrize("change", [{"run_id": "../x"}, {"unknown": 1}, {"started_at": "soon"}])
def test_a_run_with_a_bad_field_is_refused(client, change):
    answer = client.post("/api/runs", json=ENTRY | change)
    assert answer.status_code == 422
    assert next(iter(change)) in answer.text


def test_a_catalogue_that_fails_makes_the_backend_unhealthy(tmp_path):
    catalog = open_catalog(f"sqlite:{tmp_path / 'runs.db'}")
    with ask(create_app(catalog), raise_server_exceptions=False) as client:
        catalog.close()
        assert client.get("/health").status_code == 500


@pytest.fixture
def app(tmp_path, monkeypatch):
    """The application as its container starts it, with a key and a name of its own."""
    monkeypatch.setenv("ATOLL_CATALOG", f"sqlite:{tmp_path / 'runs.db'}")
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    monkeypatch.setenv("ATOLL_HOSTS", "runs.example, *.lan")
    return app_from_environment()


ROUTES = [
    ("GET", "/api/runs"),
    ("POST", "/api/runs"),
    ("DELETE", "/api/runs/x"),
    ("GET", "/openapi.json"),
    ("GET", "/"),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize("header", [None, "Bearer wrong", "Bearer ", "secret", "Basic secret", "Bearer s\u00e9cret"])
def test_every_route_but_health_wants_the_key(app, method, path, header):
    headers = {} if header is None else {"Authorization": header.encode("latin-1")}
    with ask(app) as client:
        answer = client.request(method, path, headers=headers, json=ENTRY)
        assert answer.status_code == 401
        assert "VLLM_API_KEY" in answer.json()["error"]
        assert client.get("/api/runs", headers={"Authorization": "Bearer secret"}).json() == {"runs": []}
        assert client.get("/health", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1:8090", "localhost", "[::1]:8090", "runs.example:80", "a.lan", "LOCALHOST"])
def test_the_backend_answers_under_its_own_names(app, host):
    with ask(app, host) as client:
        assert client.get("/api/runs", headers={"Authorization": "Bearer secret"}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "runs.example.evil", "10.0.0.7", "backend"])
@pytest.mark.parametrize("path", ["/api/runs", "/health", "/"])
def test_the_backend_refuses_a_foreign_name_with_or_without_a_key(app, client, host, path):
    for one in (app, client.app):
        asked = ask(one, host).get(path, headers={"Authorization": "Bearer secret"}, follow_redirects=False)
        assert asked.status_code == 400


@pytest.mark.parametrize("name", ["a*b", "http://a", "*.*.lan"])
def test_a_name_that_is_none_is_refused_when_the_backend_starts(tmp_path, name):
    with open_catalog(f"sqlite:{tmp_path / 'runs.db'}") as catalog, pytest.raises(InputError, match="ATOLL_HOSTS"):
        create_app(catalog, hosts=[name])


def test_parallel_requests_do_not_mix(client):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        entries = [ENTRY | {"run_id": f"r{n}", "started_at": float(n)} for n in range(40)]
        assert {a.status_code for a in pool.map(lambda e: client.post("/api/runs", json=e), entries)} == {201}
    listed = client.get("/api/runs").json()["runs"]
    assert [run["run_id"] for run in listed] == [f"r{n}" for n in reversed(range(40))]
