"""Tokens, conversations and the audit log: one set of tests, on SQLite and over MongoDB's protocol."""

from threading import Thread

import pytest

from atoll.errors import CatalogFailed
from atoll.store.mongo import MongoCatalog
from atoll.store.opening import open_catalog
from atoll.web.audit import FILE
from atoll.web.pages.chat import KIND
from atoll.web.tokens import Role, Tokens, open_private
from atoll.web.workspace import Workspace
from stand_ins.clock import ManualClock
from stand_ins.control_plane import client_of, site_over
from stand_ins.mongo import mongo_server
from stand_ins.patience import PATIENCE_S, wait_until


@pytest.fixture(scope="module")
def mongo(tmp_path_factory):
    with mongo_server(tmp_path_factory.mktemp("mongo")) as server:
        yield server


@pytest.fixture(params=["sqlite", "mongodb"])
def reopen(request, tmp_path):
    """Opens the site anew, as a server that was started again: (workspace's catalogue, where tokens are kept)."""
    name = "k" + str(abs(hash(request.node.name)))
    url = request.getfixturevalue("mongo").url(name) if request.param == "mongodb" else None

    def opened():
        catalog = open_catalog(url or f"sqlite:{tmp_path / 'runs.db'}")
        kept = catalog if url else open_private(tmp_path / "state" / "tokens.db")
        site = site_over(Workspace(tmp_path / "workspace"), catalog=catalog, kept=kept)
        site.door = "http://127.0.0.1:9"
        return site

    return opened


def test_tokens_conversations_and_the_audit_log_outlive_the_server(reopen):
    with client_of(reopen()) as client:
        made = client.post("/settings/tokens", data={"name": "김 팀장", "role": "viewer"})
        secret = made.text.partition('id="secret">')[2].partition("<")[0]
        begun = client.post("/chat/begin", data={"door": "door", "model": "m", "system": "존댓말로"})
    site = reopen()
    with client_of(site, secret=secret) as viewer:
        assert "존댓말로" in viewer.get(begun.headers["location"]).text
        assert viewer.post("/chat/begin", data={"door": "door", "model": "m"}).status_code == 403
        page = viewer.get("/settings?find=김").text
        assert "make a viewer&#39;s token for 김 팀장" in page
        assert "begin conversation" not in page
        assert secret not in page
    assert "begin conversation" in (site.workspace.own / FILE).read_text()
    again = reopen()
    (token,) = [one for one in again.tokens.all() if not one.id.startswith("here-")]
    assert token.role is Role.VIEWER
    with client_of(again) as client:
        assert client.post(f"/settings/tokens/{token.id}/revoke").status_code == 303
        assert client.post(f"/settings/tokens/{token.id}/revoke").status_code == 400
        assert client.post(f"{begun.headers['location']}/delete").status_code == 303
    last = reopen()
    with client_of(last, secret=secret) as viewer:
        assert viewer.get("/").status_code == 401
    last = reopen()
    with client_of(last) as client:
        assert client.get(begun.headers["location"]).status_code == 404


def test_what_one_server_revokes_another_one_sees(reopen):
    first, second = reopen(), reopen()
    token, secret = first.tokens.make("a", Role.VIEWER, now=1.0)
    second.tokens.refresh()
    assert second.tokens.check(secret) == token
    first.tokens.revoke(token.id)
    second.tokens.refresh()
    assert second.tokens.check(secret) is None
    first.close()
    second.close()


def test_only_hashes_are_kept_and_nobody_else_may_read_them(tmp_path):
    path = tmp_path / "state" / "tokens.db"
    tokens = Tokens(open_private(path), now=ManualClock().now)
    _, secret = tokens.make("김", Role.VIEWER, now=1.0)
    files = list(path.parent.iterdir())
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert all(secret.encode() not in file.read_bytes() for file in files)
    assert tokens.check("käse") is None
    tokens.close()


def test_while_their_catalogue_fails_the_tokens_that_were_known_hold(tmp_path):
    clock = ManualClock()
    tokens = Tokens(open_private(tmp_path / "tokens.db"), now=clock.now)
    token, secret = tokens.make("a", Role.VIEWER, now=1.0)
    tokens.close()
    clock.advance(2.0)
    assert tokens.stale
    tokens.refresh()
    assert not tokens.stale
    assert tokens.check(secret) == token
    with pytest.raises(CatalogFailed):
        tokens.make("b", Role.VIEWER, now=1.0)


def test_a_mongodb_that_is_killed_under_writes_from_the_page_loses_nothing_acknowledged(mongo, tmp_path):
    def opened():
        catalog = MongoCatalog(mongo.url("killed"), timeout_s=0.3)
        site = site_over(Workspace(tmp_path / "workspace"), catalog=catalog, kept=catalog)
        site.door = "http://127.0.0.1:9"
        return site

    begun, tokens, refused = [], [], []

    def write(client):
        while not refused:
            conversation = client.post("/chat/begin", data={"door": "door", "model": "m"})
            if conversation.status_code == 303:
                begun.append(conversation.headers["location"].rpartition("/")[2])
            token = client.post("/settings/tokens", data={"name": f"t{len(tokens)}", "role": "viewer"})
            if token.status_code == 200:
                tokens.append(token.text.partition('id="secret">')[2].partition("<")[0])
            refused.extend(one for one in (conversation, token) if one.status_code >= 400)

    site = opened()
    with client_of(site, Accept="text/html") as client:
        writing = Thread(target=write, args=(client,))
        writing.start()
        wait_until(lambda: len(tokens) >= 5 or refused)
        mongo.kill()
        writing.join(PATIENCE_S)
        assert not writing.is_alive()
        assert {answer.status_code for answer in refused} == {503}
        assert "The catalogue&#39;s MongoDB could not be used" in refused[0].text
        assert client.get("/deployments").status_code == 200  # what the folders say is there
        assert client.get("/health").status_code == 503
    mongo.start()
    again = opened()
    assert {paper.key for paper in again.catalog.papers(KIND, limit=10_000)} >= set(begun)
    assert all(again.tokens.check(secret) for secret in tokens)
    assert len(tokens) >= 5
    again.close()
