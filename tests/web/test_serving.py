"""Where `atoll serve` listens and under which names it answers."""

import pytest
from fastapi.testclient import TestClient

from atoll.errors import InputError
from atoll.web.serving import (
    ENGINE_VARIABLE,
    TOKEN_VARIABLE,
    Serving,
    app_from_environment,
    check_exposure,
    hosts_of,
    make_application,
)


def test_an_address_that_others_reach_needs_tls_or_a_proxy(tmp_path):
    for host in ("0.0.0.0", "::", "10.1.2.3", "box.lan"):
        with pytest.raises(InputError, match="Add --tls CERT,KEY"):
            check_exposure(Serving(workspace=tmp_path, host=host))
        check_exposure(Serving(workspace=tmp_path, host=host, tls="self-signed"))
        check_exposure(Serving(workspace=tmp_path, host=host, behind_proxy="10.1.2.4"))
    for host in ("127.0.0.1", "localhost", "::1", "127.9.9.9"):
        check_exposure(Serving(workspace=tmp_path, host=host))


@pytest.mark.parametrize("name", ["a*b", "http://a", "*.*.lan", "a b", ""])
def test_a_host_name_that_is_none_is_refused(tmp_path, name):
    with pytest.raises(InputError, match="is no host name"):
        hosts_of(Serving(workspace=tmp_path, host_names=(name,)))


def test_in_the_compose_stack_token_and_names_come_by_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ATOLL_CATALOG", f"sqlite:{tmp_path / 'runs.db'}")
    monkeypatch.setenv("ATOLL_TOKEN", "secret")
    monkeypatch.setenv("ATOLL_HOSTS", "runs.example, *.lan")
    monkeypatch.setenv("ATOLL_WORKSPACE", str(tmp_path / "ws"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with TestClient(app_from_environment(), base_url="http://runs.example") as client:
        assert client.get("/api/runs").status_code == 401
        assert client.get("/api/runs", headers={"Authorization": "Bearer secret"}).json() == {"runs": []}
        assert client.get("/health", headers={"Host": "evil.example"}).status_code == 421


def test_inside_the_stack_nothing_is_written_beside_the_catalogue_and_the_workspace(tmp_path):
    """Its container has a read-only file system, and no home."""
    known = {"HOME": "/proc/nothing", TOKEN_VARIABLE: "x", ENGINE_VARIABLE: "http://nginx:8080/v1"}
    serving = Serving(workspace=tmp_path / "w", catalog=f"sqlite:{tmp_path / 'runs.db'}", environment=known)
    app, _ = make_application(serving, port=8090)
    with TestClient(app, base_url="http://127.0.0.1:8090", headers={"Authorization": "Bearer x"}) as client:
        assert 'id="secret"' in client.post("/settings/tokens", data={"name": "a", "role": "viewer"}).text
