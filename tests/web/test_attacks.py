"""What an attacker would try, each with what it got. `python tests/web/test_attacks.py` prints the table."""

import io
import json
import os
import re
import socket
import stat
import tempfile
import threading
import time
import zipfile
from collections import Counter
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import quote

import pytest
import uvicorn

from atoll.layout.layout import Layout
from atoll.outside.files import write_whole
from atoll.store.catalog import Paper, Query, RunEntry
from atoll.store.folder import RunInfo, start_run, with_id
from atoll.store.opening import open_catalog
from atoll.traffic.record import Source
from atoll.web.app import create_app
from atoll.web.auth import QUESTIONS
from atoll.web.jobs import JobNote
from atoll.web.site import PAGES
from atoll.web.tokens import Role, open_private
from atoll.web.workspace import Workspace
from stand_ins.control_plane import HOST, OPERATOR, VIEWER, client_of, routes_of, site_over

EVIL = "<img src=x onerror=alert(1)>\"'"
CLOSING = "</script><img src=x onerror=alert(2)>"  # where a name may hold a slash
SECRET = "sk-not-for-anybodys-eyes-4711"
LAYOUT = Path(__file__).parents[1] / "data" / "bundles" / "h100-nvl-2xtp2.layout.yaml"


@dataclass(frozen=True)
class Got:
    """What one kind of attack got."""

    attack: str
    tries: int
    got: str
    held: bool


def got(attack, answers, fine):
    """Counted by status; `fine` says of an answer whether it is a refusal."""
    counts = Counter(answer.status_code for answer in answers)
    shown = ", ".join(
        f"{number} x {status}" if number > 1 else str(status) for status, number in sorted(counts.items())
    )
    return Got(attack, len(answers), shown, all(map(fine, answers)))


def refused(*statuses):
    return lambda answer: answer.status_code in statuses


def filled(path, value="x"):
    return re.sub(r"\{\w+(:\w+)?\}", value, path)


def hosts(site):
    names = ("evil.example", "127.0.0.1.evil.example:8090", "127.0.0.1:8090@evil.example", "evil.example#127.0.0.1")
    names += ("127.1", "2130706433", "0x7f.1", "0.0.0.0:8090", "", "127.0.0.1:8090, evil.example", "%3127.0.0.1")
    with client_of(site) as client:
        answers = [client.get(path, headers={"Host": name}) for name in names for path in ("/", "/api/runs", "/health")]
    yield got("foreign Host (DNS rebinding)", answers, refused(421))


def origins(site):
    changes = [filled(path) for method, path in routes_of(site) if method not in {"GET", "HEAD"}]
    with client_of(site, secret=None) as browser:
        browser.cookies.set("atoll-8090", OPERATOR)
        for shown, origin in (("foreign", "http://evil.example"), ("null", "null"), ("no", None)):
            headers = {} if origin is None else {"Origin": origin}
            answers = [browser.post(path, headers=headers) for path in changes]
            yield got(f"{shown} Origin, on every changing route", answers, refused(403))
        near = (f"https://{HOST}", f"http://{HOST}.evil.example", f"http://{HOST}/", "http://127.0.0.1:9999")
        answers = [browser.post(path, headers={"Origin": origin}) for path in changes[:5] for origin in near]
        yield got("an Origin that is almost ours", answers, refused(403))


def frames(site):
    run = next(entry.run_id for entry in fill(site).find_runs if entry.folder)
    with client_of(site) as client:
        paths = [filled(path) for method, path in routes_of(site) if method == "GET" and "/live" not in path]
        answers = [client.get(path) for path in [*paths, f"/runs/{quote(run, safe='')}/report", "/static/atoll.css"]]
    policy = re.compile("frame-ancestors '(none|self)'")
    yield got("framed by another site", answers, lambda one: policy.search(one.headers["content-security-policy"]))


def nobody(site):
    with client_of(site, secret=None) as client:
        tried = [(method, filled(path)) for method, path in routes_of(site) if path != "/health"]
        answers = [client.request(method, path) for method, path in tried]
        yield got("no token, on every route", answers, refused(401))
        answers = [
            client.get(path) for path in ("/static/../auth.py", "/static/%2e%2e/auth.py", "/static/..%2fauth.py")
        ]
        yield got("out of /static without a token", answers, refused(401, 404))


def viewers(site):
    with client_of(site, secret=VIEWER) as viewer:
        changes = [(method, path) for method, path in routes_of(site) if method not in {"GET", "HEAD"}]
        assert QUESTIONS & {path for _, path in changes}
        answers = [viewer.request(method, filled(path)) for method, path in changes if path not in QUESTIONS]
        answers += [viewer.request(method, filled(path) + "/") for method, path in changes]
        answers += [viewer.request(method, "/" + filled(path)) for method, path in changes]
        answers += [viewer.request(method, "/api/runs/x") for method in ("PUT", "PATCH", "DELETE", "PROPFIND")]
        yield got("a viewer changes something, on every changing route", answers, refused(403))
        before = sorted(site.workspace.root.rglob("*"))
        for path in QUESTIONS:
            viewer.post(path, data={"text": "x", "bundle": "x", "run": "x"})
        yield Got(
            "files that a viewer's questions leave behind",
            len(QUESTIONS),
            "none",
            sorted(site.workspace.root.rglob("*")) == before,
        )


TRICKS = (
    "..", ".", "../..", "../../../etc/passwd", "..%2f..%2fetc%2fpasswd", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "..%5c..%5cetc", "%00", "x%00.yaml", "a" * 5000, "%ff%fe", "%0d%0aSet-Cookie:%20a=b", "%E2%80%AE", "con", "~root",
    "$%7BHOME%7D", "-", "--help", "%25s%25n", "*", "'%20OR%20'1'='1", "²", "job.yaml", ".atoll", "0", "\U0001f4a9",
)  # fmt: skip


def paths(site):
    (site.workspace.root.parent / "outside.yaml").write_text("stolen: yes\n")
    changes = {"text": "x", "tag": "x", "fix": "x", "file": "x"}
    with client_of(site, raising=False) as client:
        for method in ("GET", "POST"):
            tried = [path for found, path in routes_of(site) if found == method and "{" in path]
            answers = [
                client.request(method, filled(path, trick), data=changes if method == "POST" else None)
                for path in tried
                for trick in TRICKS
            ]

            def fine(answer):
                safe = answer.status_code < 500 and "set-cookie" not in answer.headers
                return safe and not re.search("root:x|stolen", answer.text)

            yield got(f"path tricks in every id ({method})", answers, fine)
        streams = [path for method, path in routes_of(site) if re.search(r"\}/(live|words|log/.*)$", path)]
        assert len(streams) > 2
        answers = [client.get(filled(path, "nothing")) for path in streams]
        yield got("streams of nothing", answers, refused(404))
        run = next(entry.run_id for entry in fill(site).find_runs if entry.folder)
        langs = ("../../../../outside", "/../../../outside", "x/../../../../outside", "%00", "en/../../x")
        answers = [client.get(f"/runs/{quote(run, safe='')}/report?lang={lang}") for lang in langs]
        yield got("path tricks in a report's language", answers, refused(400, 422))
        folders = ("/etc", "\0", "/proc/self", f"{site.workspace.root}/../..", "x" * 5000)
        for number, folder in enumerate(folders):
            site.catalog.save(
                RunEntry(run_id=f"f{number}", name="f", engine="vllm", source=Source.MEASURED, folder=folder)
            )
        answers = [client.get(f"/runs/f{n}{end}") for n in range(len(folders)) for end in ("/report", "/export")]
        yield got("a catalogue that names folders outside", answers, refused(400, 404))
        site.workspace.root.joinpath("runs", "out").symlink_to("/etc")
        site.workspace.root.joinpath("boxes", "out.txt").symlink_to("/etc/passwd")
        pages = [client.get(path) for path in ("/boxes", "/runs", "/")]
        yield got(
            "links out of the workspace", pages, lambda one: one.status_code == 200 and ">boxes/out" not in one.text
        )


def archive(name="a.yaml", data="x", mode=0, flag=0, declared=None):
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w", zipfile.ZIP_DEFLATED) as opened:
        info = zipfile.ZipInfo(name)
        info.external_attr, info.compress_type = mode << 16, zipfile.ZIP_DEFLATED
        opened.writestr(info, data)
    made = bytearray(kept.getvalue())
    place = made.index(b"PK\x01\x02")
    made[place + 8] |= flag
    if declared is not None:
        made[place + 24 : place + 28] = declared.to_bytes(4, "little")
    return bytes(made)


def uploads(site):
    bombs = {
        "a zip bomb (100 MB of zeros)": archive(data=b"\0" * (100 << 20)),
        "1 GB declared": archive(declared=1 << 30),
        "a bomb that declares one byte": archive(data=b"\0" * (40 << 20), declared=1),
        "a link in a zip": archive(mode=stat.S_IFLNK | 0o777, data="/etc/passwd"),
        "a device in a zip": archive(mode=stat.S_IFCHR | 0o666),
        "an encrypted member": archive(flag=1),
        "an absolute name": archive(name="/etc/cron.d/x.yaml"),
        "a name with ..": archive(name="a/../../x.yaml"),
    }
    with client_of(site, raising=False) as client:
        for name, data in bombs.items():
            before = time.process_time()
            answer = client.post("/doctor/check", files={"files": ("s.zip", data)}, headers={"HX-Request": "true"})
            took_s = time.process_time() - before
            assert took_s < 5, name
            yield got(f"upload: {name}", [answer], refused(400))
        laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{c}: &{c} [{','.join([f'*{p}'] * 9)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)
        )
        answer = client.post("/doctor/check", data={"text": f"{laughs}services: {{x: {{image: y, command: *i}}}}"})
        yield got("upload: a billion laughs in YAML", [answer], refused(303, 400))
        answer = client.post("/doctor/check", data={"text": "services: " + "[" * 100_000})
        yield got("upload: 100,000 brackets", [answer], refused(303, 400))
        names = ("../../evil.yaml", "/etc/evil.yaml", "..\\evil.yaml", "evil\0.yaml")
        answers = [client.post("/doctor/check", files={"files": (name, b"x: 1")}) for name in names]
        answers += [client.post("/runs/import", files={"file": (name, b"x: 1")}) for name in names]
        yield got("path tricks in an upload's name", answers, refused(303, 400))
    written = [
        path for path in site.workspace.root.parent.rglob("*evil*") if not path.is_relative_to(site.workspace.root)
    ]
    yield Got("files written outside the workspace", 1, f"{len(written)} files", written == [])


@dataclass
class Filled:
    """What a site was filled with."""

    find_runs: tuple
    conversation: str
    job: str


def fill(site):
    """Everything that has a name, with names that are markup."""
    root = site.workspace.root
    layout = Layout.parse(LAYOUT.read_text(), origin="layout").replace(model=EVIL + CLOSING)
    write_whole(root / "boxes" / f"{EVIL}.txt", "x")
    write_whole(root / "layouts" / f"{EVIL}.yaml", layout.to_yaml())
    write_whole(root / "studies" / f"{EVIL}.yaml", "name: x\n")
    bundle = root / f"bundle-{EVIL}"
    write_whole(bundle / "layout.yaml", layout.to_yaml())
    write_whole(bundle / "nginx.conf", f"# {EVIL}\nevents {{}}\n")
    write_whole(
        bundle / "compose.yaml",
        f"services:\n  '{EVIL[:-1]}':\n    image: vllm/vllm-openai:latest\n    privileged: true\n",
    )
    write_whole(bundle / ".env", f"VLLM_API_KEY={SECRET}\nHF_TOKEN={SECRET}\n")
    folder = root / "runs" / f"run-{EVIL}"
    info = RunInfo(
        name=EVIL + CLOSING, engine=EVIL, source=Source.MEASURED, model=EVIL + CLOSING, atoll_version=EVIL, notes=(EVIL,),
        failure=EVIL, url=f"http://{EVIL}",
    )  # fmt: skip
    info = with_id(folder, info)
    start_run(folder, info, layout=layout, workload=None)
    study = root / "runs" / f"study-{EVIL}"
    write_whole(study / "study-run.yaml", "x: 1\n")
    summary = {"ttft_s": {"p50": EVIL}, "output_tokens_per_s": EVIL, "requests": EVIL, "errors": {EVIL: 1}}
    site.catalog.save(
        RunEntry(
            run_id=info.run_id, name=EVIL, engine=EVIL, source=Source.MEASURED, study=EVIL, model=EVIL + CLOSING, gpu=EVIL,
            folder=str(folder), host=EVIL, tags=(EVIL, CLOSING), summary={},
        )
    )  # fmt: skip
    site.catalog.save(
        RunEntry(
            run_id=f"id{EVIL}",
            name=EVIL,
            engine=EVIL,
            source=Source.SIMULATED,
            study=EVIL,
            tags=(EVIL,),
            summary=summary,
        )
    )
    content = {
        "title": EVIL, "door": EVIL, "model": EVIL, "system": EVIL + CLOSING,
        "messages": [{"role": "user", "text": EVIL + CLOSING}, {"role": "assistant", "text": CLOSING, "replica": EVIL, "failure": EVIL}],
    }  # fmt: skip
    site.catalog.keep(Paper(kind="conversation", key="abc", changed_at=1.0, words=EVIL, content=content))
    job = JobNote(
        id="1-abc",
        title=EVIL,
        argv=("bench", EVIL, CLOSING),
        target=f"runs/run-{EVIL}",
        started_at=1.0,
        started_by=EVIL,
    )
    job_folder = site.workspace.own / "jobs" / "1-abc"
    write_whole(job_folder / "job.yaml", job.to_yaml())
    write_whole(job_folder / "output.log", f"{EVIL}{CLOSING}\n")
    write_whole(
        folder / "live.jsonl",
        json.dumps({"elapsed_s": 1, "errors": {EVIL + CLOSING: 1}, "replicas": {CLOSING: {}}}) + "\n",
    )
    if EVIL not in {token.name for token in site.tokens.all()}:
        site.tokens.make(EVIL, Role.VIEWER, now=1.0)
    return Filled(find_runs=site.catalog.find(Query(limit=100)), conversation="abc", job="1-abc")


def every_page(site, client):
    """Each page that can be looked at in a filled site, by its address, and what the questions answer."""
    known = fill(site)
    upload = client.post(
        "/doctor/check",
        files={
            "files": (
                EVIL.replace('"', ""),
                f"services: {{'{EVIL[:-1]}': {{image: 'x:latest', privileged: true}}}}".encode(),
            )
        },
    )
    upload_id = upload.headers.get("location", "/doctor/none").split("/")[-1]
    ids = {
        "run_id": [quote(entry.run_id, safe="") for entry in known.find_runs],
        "box_id": [thing.id for thing in site.workspace.things("box")],
        "job_id": [known.job],
        "key": [known.conversation],
        "upload_id": [upload_id],
    }
    things = [thing.id for thing in site.workspace.things("box", "layout", "study", "bundle", "run", "study_run")]
    for method, path in routes_of(site):
        if method != "GET" or path.endswith(("/live", "/words")):
            continue
        name = re.search(r"\{(\w+)", path)
        for value in ids.get(name[1], things) if name else ["x"]:
            yield path, client.get(filled(path, value), follow_redirects=True)
    evil = quote(EVIL)
    for path in (f"/chat?find={evil}", f"/runs?study={evil}&model={evil}&tag={evil}&source={evil}", f"/none/{evil}",
                 f"/runs/{evil}", f"/jobs/{evil}", f"/boxes/{evil}", f"/doctor/{evil}", f"/doctor?bundle={evil}", f"/settings/look?lang={evil}",
                 f"/runs/compare?run={evil}", "/boxes?example=true"):  # fmt: skip
        yield path, client.get(path, follow_redirects=True)
    fields = dict.fromkeys(
        ("text", "gpu", "name", "role", "users", "bundle", "fix", "tag", "door", "model", "target", "rate"), EVIL
    )
    for method, path in routes_of(site):
        if method == "POST" and "revoke" not in path and "stop" not in path and not path.endswith(("delete", "forget")):
            yield f"POST {path}", client.post(filled(path), data=fields, follow_redirects=True)
            yield f"POST {path}", client.post(filled(path, evil), data=fields, headers={"HX-Request": "true"})
    topo = f"gpus:\n- index: 0\n  name: {json.dumps(EVIL)}\n"
    yield "POST /boxes/inspect", client.post("/boxes/inspect", data={"text": topo})
    for thing in site.workspace.things("bundle"):
        yield "POST /doctor/check", client.post("/doctor/check", data={"bundle": thing.id}, follow_redirects=True)


class _Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found += [(tag, name) for name, _ in attrs if name.startswith("on")] + [tag] * (tag == "img")


def is_page(answer):
    return "html" in answer.headers.get("content-type", "")


def markup_of(text):
    """Images and handlers that a browser would see in a page; ours have none."""
    parser = _Tags()
    parser.feed(text)
    return parser.found


def names(site):
    """Markup in every name: nothing of it is markup on a page."""
    with client_of(site, raising=False, Accept="text/html") as client:
        answers = list(every_page(site, client))
    wrong = [path for path, answer in answers if is_page(answer) and markup_of(answer.text)]
    shown = sum("&lt;img src=x" in answer.text for _, answer in answers)
    assert shown > 15
    yield Got(
        "markup in every name, on every page",
        len(answers),
        f"escaped on {shown} pages; {wrong or 'nowhere as markup'}",
        not wrong,
    )
    failed = sorted({path for path, answer in answers if answer.status_code >= 500})
    yield Got("... and no page fails by it", len(answers), ", ".join(failed) or "no 5xx", not failed)


def secrets(site):
    """Tokens and keys in pages, addresses, logs, the audit log."""
    os.environ["VLLM_API_KEY"] = SECRET
    try:
        with client_of(site, raising=False, Accept="text/html") as client:
            answers = list(every_page(site, client))
    finally:
        del os.environ["VLLM_API_KEY"]
    told = [path for path, answer in answers if SECRET in answer.text or SECRET in str(answer.headers)]
    yield Got("API keys of .env and environment in pages", len(answers), str(told or "nowhere"), not told)
    told = [path for path, answer in answers if OPERATOR in answer.text]
    yield Got("the token in pages", len(answers), str(told or "nowhere"), not told)
    with client_of(site, secret=None) as browser:
        answer = browser.get(f"/runs?tag=a&token={OPERATOR}")
        fine = (
            answer.headers["location"] == "/runs?tag=a"
            and answer.headers["referrer-policy"] == "same-origin"
            and not answer.text
        )
        yield Got(
            "the token in addresses and referrers", 1, f"{answer.status_code} to {answer.headers['location']}", fine
        )
        wrong = browser.get("/?token=guessed")
        yield Got("a wrong token becomes a cookie", 1, str(wrong.status_code), "set-cookie" not in wrong.headers)
    with client_of(site) as client:
        answer = client.get("/settings?token=planted%3B%20Domain=evil")
        yield Got(
            "a token planted beside a right one",
            1,
            str(answer.status_code),
            answer.status_code == 200 and "set-cookie" not in answer.headers,
        )
    written = [path for path in site.workspace.own.rglob("*") if path.is_file() and "uploads" not in path.parts]
    found = [
        path.name for path in written if OPERATOR.encode() in path.read_bytes() or SECRET.encode() in path.read_bytes()
    ]
    yield Got("secrets in what the control plane writes", len(written), str(found or "nowhere"), not found)


def bodies(site):
    def flood():
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(50):
            yield b"x" * (1 << 20)

    with client_of(site) as client:
        form, parts = "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"
        tried = {"/api/runs": "application/json", "/boxes/inspect": form, "/doctor/check": parts}
        answers = [client.post(path, content=flood(), headers={"Content-Type": kind}) for path, kind in tried.items()]
        yield got("50 MB, chunked", answers, refused(413))
        lengths = (str(50 << 20), "-1", "1e9", "\xb2", "0x10", "9" * 40, " 5", "5, 5")
        answers = [
            client.post("/boxes/inspect", content=b"", headers={"Content-Length": length.encode("latin-1")})
            for length in lengths
        ]
        yield got("50 MB declared, and lengths that are none", answers, refused(400, 413))


def guesses(site):
    odd = ("é" * 50, "x" * 60_000, "Basic b2xnYTp4", "\xff\xfe", "a b c")
    with client_of(site, secret=None) as client:
        answers = [client.get("/", headers={"Authorization": b"Bearer " + one.encode("latin-1")}) for one in odd]
        yield got("tokens that are none", answers, refused(401))
    with client_of(site, secret=None) as client:
        owner = {"Authorization": f"Bearer {OPERATOR}"}
        assert client.get("/settings", headers=owner).status_code == 200
        answers = [client.get("/", headers={"Authorization": f"Bearer guess{n}"}) for n in range(1000)]
        yield got("1,000 wrong tokens", answers, refused(401, 429))
        limited = sum(answer.status_code == 429 for answer in answers)
        yield Got("... of which are answered with 429", 1000, str(limited), limited == 980)
        answers = [client.get("/settings", headers=owner)]
        yield got("... the owner meanwhile, from the same address", answers, refused(200))
        right = {"Authorization": f"Bearer {VIEWER}"}
        yield got("... a right guess after them", [client.get("/", headers=right)], refused(429))


def smuggling(site):
    """Raw bytes at a real socket."""
    app = create_app(site, hosts=frozenset({"127.0.0.1"}), cookie="atoll-8090")
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, ws="none"))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        while not server.started:
            time.sleep(0.01)

        def ask(text):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as sent:
                sent.sendall(text.replace("\n", "\r\n").encode("latin-1"))
                sent.shutdown(socket.SHUT_WR)
                said = b""
                while piece := sent.recv(65536):
                    said += piece
            return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d+)", said)]

        ours, bearer = f"Host: 127.0.0.1:{port}\n", f"Authorization: Bearer {OPERATOR}\n"
        body = "name=x&role=operator"
        tried = {
            "two Hosts, ours last": f"GET / HTTP/1.1\nHost: evil.example\n{ours}{bearer}\n",
            "two Hosts, ours first": f"GET / HTTP/1.1\n{ours}Host: evil.example\n{bearer}\n",
            "no Host": f"GET / HTTP/1.1\n{bearer}\n",
            "two Origins": f"POST /settings/tokens HTTP/1.1\n{ours}Cookie: atoll-8090={OPERATOR}\nOrigin: http://evil.example\nOrigin: http://127.0.0.1:{port}\nContent-Length: 0\n\n",
            "two tokens": f"GET / HTTP/1.1\n{ours}Authorization: Bearer x\n{bearer}\n",
            "length and chunks": f"POST /settings/tokens HTTP/1.1\n{ours}{bearer}Content-Length: 4\nTransfer-Encoding: chunked\n\n0\n\nGET / HTTP/1.1\n{ours}\n",
            "two lengths": f"POST /settings/tokens HTTP/1.1\n{ours}{bearer}Content-Length: 4\nContent-Length: 20\n\n{body}",
            "a blank before the colon": f"GET / HTTP/1.1\nHost : evil.example\n{ours}{bearer}\n",
            "a folded header": f"GET / HTTP/1.1\n{ours}X-A: b\n Host: evil.example\n\n",
        }  # fmt: skip
        for name, text in tried.items():
            statuses = ask(text)
            yield Got(
                f"smuggling: {name}", 1, str(statuses), bool(statuses) and all(400 <= one < 500 for one in statuses)
            )
        statuses = ask(f"GET http://evil.example/settings HTTP/1.1\n{ours}\n")
        yield Got("smuggling: absolute form, no token", 1, str(statuses), statuses == [401])
        statuses = ask(f"GET http://127.0.0.1:{port}/settings HTTP/1.1\nHost: evil.example\n{bearer}\n")
        yield Got("smuggling: absolute form of ours, foreign Host", 1, str(statuses), statuses == [421])
        statuses = ask(
            f"GET / HTTP/1.1\n{ours}X-Forwarded-Host: 127.0.0.1\nX-Original-URL: /health\nX-HTTP-Method-Override: GET\n\n"
        )
        yield Got("smuggling: X-Forwarded-Host, X-Original-URL", 1, str(statuses), statuses == [401])
        server.should_exit = True
        thread.join()


ATTACKS = (hosts, origins, frames, nobody, viewers, paths, uploads, names, secrets, bodies, guesses, smuggling)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda one: one.__name__)
def test_the_attack_is_refused(site, attack):
    got = list(attack(site))
    assert got
    assert [one for one in got if not one.held] == []


def test_every_page_is_attacked(site):
    shown = {path for method, path in routes_of(site) if method == "GET"}
    assert {"/" if name == "home" else f"/{name}" for name in PAGES} <= shown


def _print_table():
    print(f"{'attack':58} {'tries':>5}  got")
    for attack in ATTACKS:
        with tempfile.TemporaryDirectory() as name:
            place = Path(name)
            kept = open_private(place / "tokens.db")
            catalog = open_catalog(f"sqlite:{place / 'runs.db'}")
            made = site_over(Workspace(place / "workspace"), catalog=catalog, kept=kept)
            for one in attack(made):
                print(f"{one.attack:58} {one.tries:>5}  {one.got}{'' if one.held else '   <-- FELL'}")


if __name__ == "__main__":
    _print_table()
