"""The control plane's routes over a real catalogue, asked in process."""

from urllib.parse import quote

import pytest

import atoll

ENTRY = {
    "run_id": "study:2xTP2",
    "name": "2xTP2",
    "engine": "emulated",
    "study": "nvl",
    "started_at": 5.0,
    "tags": ["a"],
}


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


def test_a_catalogue_that_fails_makes_the_backend_unhealthy(site, client):
    site.catalog.close()
    answer = client.get("/health")
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("The catalogue fails: ")


def test_parallel_requests_do_not_mix(client):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        entries = [ENTRY | {"run_id": f"r{n}", "started_at": float(n)} for n in range(40)]
        assert {a.status_code for a in pool.map(lambda e: client.post("/api/runs", json=e), entries)} == {201}
    listed = client.get("/api/runs").json()["runs"]
    assert [run["run_id"] for run in listed] == [f"r{n}" for n in reversed(range(40))]
