"""The door with TLS: a real nginx shows the bundle's certificate, and a new one after a reload."""

import asyncio
import http.client
import shutil
import signal
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from atoll.documents import parse_yaml
from atoll.errors import InputError
from atoll.outside.certificates import only_this
from atoll.outside.files import write_whole
from atoll.outside.http import get_text
from atoll.outside.shell import RealShell
from atoll.render import RenderSettings, render_bundle
from atoll.render.tls import CERTIFICATE, KEY, DoorTls, listen_lines, version_in
from atoll.run.door_tls import door_certificate, door_scheme, door_tls
from atoll.run.process import nginx_command, nginx_release, read_plan
from atoll.workflows.diagnose import diagnose_bundle
from atoll.workflows.render import make_tls, write_bundle
from stand_ins.patience import PATIENCE_S, wait_until

GIVEN = Path(__file__).parents[1] / "data" / "tls"
RELEASE = nginx_release(RealShell())
needs_both = pytest.mark.skipif(RELEASE is None or shutil.which("openssl") is None, reason="no nginx or no openssl")


def bundle_of(layout, card, folder, to, tls, **more):
    bundle = render_bundle(layout, card, to=to, settings=RenderSettings(tls=tls, **more))
    write_bundle(bundle, folder)
    return bundle


@needs_both
@pytest.mark.parametrize("release", [RELEASE, None], ids=["known", "unknown"])
def test_the_door_speaks_tls_and_takes_a_new_certificate(release, two_pairs, card_of, tmp_path):
    """Who keeps a connection over the reload is answered once more where nginx can, with word that it ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    layout = two_pairs.replace(router=two_pairs.router.replace(port=port))
    tls = make_tls("self-signed", folder=None)
    bundle_of(layout, card_of(layout), tmp_path, "process", tls, nginx_version=release)
    conf = tmp_path / "nginx.conf"
    conf.write_text(conf.read_text().replace("keepalive_min_timeout 1s;", "keepalive_min_timeout 600s;"))
    certificate = door_certificate(tmp_path)
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
    argv = list(nginx_command(read_plan(tmp_path), RealShell()))
    nginx = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: listens(port))
        url = f"https://127.0.0.1:{port}/nginx-health"
        assert asyncio.run(get_text(url, certificate=certificate)) == "ok\n"
        context = only_this(certificate)
        context.set_alpn_protocols(["h2", "http/1.1"])
        with socket.create_connection(("127.0.0.1", port)) as plain, context.wrap_socket(plain) as dressed:
            assert (dressed.selected_alpn_protocol(), dressed.version()) == ("h2", "TLSv1.3")

        kept = http.client.HTTPSConnection("127.0.0.1", port, timeout=PATIENCE_S, context=only_this(certificate))
        assert ask(kept) == (200, "keep-alive")
        kept.auto_open = 0
        for given, path in (("cert.pem", CERTIFICATE), ("key.pem", KEY)):
            # another file: nginx takes one of the same second and inode for unchanged (ssl_object_cache_inheritable)
            write_whole(tmp_path / path, (GIVEN / given).read_text())
        nginx.send_signal(signal.SIGHUP)
        new = (GIVEN / "cert.pem").read_text().strip()
        wait_until(lambda: shown(port) == new)
        if release is not None and release >= (1, 27, 4):
            assert ask(kept) == (200, "close")
        kept.close()
    finally:
        nginx.send_signal(signal.SIGTERM)
        nginx.wait(PATIENCE_S)


def shown(port: int) -> str | None:
    """The certificate; None where a worker that is about to end took the connection."""
    try:
        return ssl.get_server_certificate(("127.0.0.1", port), timeout=1).strip()
    except OSError:
        return None


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(kept: http.client.HTTPSConnection) -> tuple[int, str | None]:
    kept.request("GET", "/nginx-health")
    answer = kept.getresponse()
    answer.read()
    return answer.status, answer.getheader("Connection")


@pytest.mark.parametrize("to", ["process", "compose"])
def test_a_bundle_holds_the_pair(to, two_pairs, card_of, tmp_path):
    """The key is for its owner alone and never part of the digest; nothing of it stands in a printed file."""
    tls = make_tls(f"{GIVEN / 'cert.pem'},{GIVEN / 'key.pem'}", folder=None)
    plain = bundle_of(two_pairs, card_of(two_pairs), tmp_path / "plain", to, None)
    bundle = bundle_of(two_pairs, card_of(two_pairs), tmp_path / "b", to, tls)
    assert (tmp_path / "b" / KEY).stat().st_mode & 0o777 == 0o600
    assert (door_scheme(tmp_path / "plain"), door_scheme(tmp_path / "b")) == ("http", "https")
    assert door_tls(tmp_path / "plain") is None
    assert door_tls(tmp_path / "b").key == (GIVEN / "key.pem").read_text()
    assert [finding.code for finding in diagnose_bundle(bundle)] == [finding.code for finding in diagnose_bundle(plain)]
    other = DoorTls(certificate=tls.certificate, key="another", owner=tls.owner)
    again = render_bundle(two_pairs, card_of(two_pairs), to=to, settings=RenderSettings(tls=other))
    assert again.digest == bundle.digest != plain.digest
    if to == "compose":
        door = parse_yaml(bundle.files["compose.yaml"], origin="compose.yaml")["services"]["nginx"]
        assert door["ports"] == ["${ATOLL_BIND:-127.0.0.1}:${ATOLL_PORT:-8080}:8443"]
        assert "./tls:/etc/nginx/tls:ro" in door["volumes"]
        assert door["user"] == "${ATOLL_NGINX_USER:-101:101}"
        assert f"ATOLL_NGINX_USER={tls.owner[0]}:{tls.owner[1]}\n" in bundle.files[".env"]
        assert (tmp_path / "b" / KEY).stat().st_uid == tls.owner[0]


def test_what_cannot_be_served_is_refused(two_pairs, card_of, tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text((GIVEN / "cert.pem").read_text())
    key.write_text("no key")
    for given, why in (
        (f"{cert}", "no file ''"),
        (f"{cert},{tmp_path / 'gone'}", "there is no file"),
        (f"{cert},{key}", "no certificate and its key"),
        ("self-made", "there is no file 'self-made'"),
    ):
        with pytest.raises(InputError, match=why):
            make_tls(given, folder=None)
    tls = DoorTls(certificate="c", key="k", owner=(1, 1))
    with pytest.raises(InputError, match="in a cluster it is the ingress's"):
        render_bundle(two_pairs, card_of(two_pairs), to="kubernetes", settings=RenderSettings(tls=tls))


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ("nginx version: nginx/1.31.3", ("listen 8443 ssl;", "http2 on;")),
        ("nginx:1.27.4-alpine", ("listen 8443 ssl;", "http2 on;")),
        ("nginx version: nginx/1.22.1", ("listen 8443 ssl http2;",)),
        ("example.com/nginx:stable", ("listen 8443 ssl http2;",)),
    ],
)
def test_http2_is_said_as_the_release_has_it(said, lines):
    assert listen_lines("8443", version_in(said))[: len(lines)] == lines
