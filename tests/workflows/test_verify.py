"""Answers of replicas held against each other and against an earlier time."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from atoll.cli.main import guarded, make_app
from atoll.errors import InputError, NoMeasurement, RunFailed
from atoll.workflows.verify import Answers, hold_against, read_answers, read_prompts, verify


class _Greedy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._say({"data": [{"id": "m"}]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(asked)
        self._say({"choices": [{"text": self.server.answer(asked["prompt"])}]})

    def _say(self, plain):
        data = json.dumps(plain).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(answer):
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Greedy)
        server.answer, server.asked = answer, []
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}", server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


PROMPTS = ("one", "two", "three")


def test_replicas_that_agree_and_one_that_does_not(serve):
    first, asked = serve(lambda prompt: f" answer to {prompt}")
    second, _ = serve(lambda prompt: " answer to two, but" if prompt == "two" else f" answer to {prompt}")
    now, found = verify([first, second], prompts=PROMPTS)
    assert (found.compared, found.same, found.different) == (3, 2, 1)
    (parting,) = found.partings
    assert (parting.source, parting.against, parting.number, parting.prompt) == (second, first, 2, "two")
    assert (parting.common, parting.length, parting.got, parting.expected) == (14, 19, ", but", "")
    assert now.answers[first][0] == " answer to one"
    assert [(one["temperature"], one["max_tokens"], one["model"]) for one in asked.asked] == [(0, 64, "m")] * 3


def test_an_earlier_time_is_what_all_are_held_against(serve, tmp_path):
    url, server = serve(lambda prompt: prompt)
    before, alone = verify([url], prompts=PROMPTS)
    assert (alone.compared, alone.different) == (0, 0)
    (tmp_path / "before.json").write_text(before.to_json())
    server.answer = lambda prompt: prompt.replace("three", "thrice")
    _, found = verify([url], prompts=PROMPTS, before=read_answers(tmp_path / "before.json"))
    assert (found.compared, found.different) == (3, 1)
    assert found.partings[0].against == f"{url} before"
    with pytest.raises(InputError, match="Ask the same again"):
        hold_against(before, before.replace(tokens=8))


def test_nothing_to_compare_and_nobody_there(serve):
    silent, _ = serve(lambda _prompt: "")
    with pytest.raises(NoMeasurement, match="empty"):
        verify([silent], prompts=PROMPTS)
    with pytest.raises(RunFailed, match="did not answer"):
        verify(["http://127.0.0.1:9"], prompts=PROMPTS)


def test_the_prompts_that_come_along_and_own_ones(tmp_path):
    assert len(set(read_prompts(None))) == 24
    (tmp_path / "p.txt").write_text("# mine\n\n 안녕하세요 \nb\n")
    assert read_prompts(tmp_path / "p.txt") == ("안녕하세요", "b")
    (tmp_path / "p.txt").write_text("# none\n")
    with pytest.raises(InputError, match="one a line"):
        read_prompts(tmp_path / "p.txt")


def test_the_command_keeps_answers_and_its_code_says_whether_they_differ(serve, tmp_path):
    url, server = serve(lambda prompt: f"{prompt}!")
    app, kept = make_app(["verify"]), str(tmp_path / "a.json")
    done = CliRunner().invoke(app, ["verify", url, "-o", kept])
    assert (done.exit_code, "Answers kept in" in done.output) == (0, True)
    assert Answers.parse((tmp_path / "a.json").read_text(), origin="a").model == "m"
    same = CliRunner().invoke(app, ["verify", url, "--against", kept])
    assert (same.exit_code, "0 of 24 answers differ" in same.output) == (0, True)
    server.answer = lambda prompt: f"{prompt}[red]?"
    other = CliRunner().invoke(app, ["verify", url, "--against", kept])
    assert other.exit_code == 1
    assert "24 of 24 answers differ (m)." in other.output
    assert "... and 19 more; --json has all." in other.output
    assert json.loads(CliRunner().invoke(app, ["verify", url, "--against", kept, "--json"]).stdout)["compared"] == 24
    assert CliRunner().invoke(app, ["verify", url, "--against", kept, "--allow", "24"]).exit_code == 0
    with pytest.raises(SystemExit) as refused:
        guarded(lambda: app(["verify", url, "-o", kept], standalone_mode=False))
    assert refused.value.code == 2
