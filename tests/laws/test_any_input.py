"""Any input gives a result or one sentence of ours: mutants of files that we know, from a seed.

`ATOLL_FUZZ_S=3600 pytest tests/laws/test_any_input.py` goes on for so many seconds a reader; ATOLL_FUZZ_SEED chooses
other mutants.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from atoll.cost.profile import MachineProfile
from atoll.doctor.files import HeldFiles
from atoll.errors import AtollError, BadDocument, BadTraffic
from atoll.inventory.parse import parse_box
from atoll.layout.layout import Layout
from atoll.layout.study import Study
from atoll.load.conversations import read_conversations
from atoll.model.parse import parse_card
from atoll.render.process import ProcessPlan
from atoll.run.deployment import DeploymentState
from atoll.store.folder import RunInfo
from atoll.store.foreign import read_foreign
from atoll.traffic.trace import parse_trace
from atoll.workflows.diagnose import ask, diagnose

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SEED = int(os.environ.get("ATOLL_FUZZ_SEED", "7"))
SECONDS = float(os.environ.get("ATOLL_FUZZ_S", "0"))
FEWEST = 150  # mutants of each reader when no time is given
LONGEST_S = 10.0

# What a value in a file may be instead of what it should be.
ODD = [
    "0", "-1", "1e400", "-1e400", "nan", "null", "true", "[]", "{}", "''", "9" * 30, "9" * 5000, "0-99999999999",
    "1.5", "\\x1b[31m", "\u2028", "\r", "\n", "\0", "&a", "*a", "!!python/object:os.system", "[" * 500, "{{ x }}", "가",
    "../../x", "x" * 5000, "%", "$(id)", "\ufffd", ":", "- ", "\t",
]  # fmt: skip


def mutant(text: str, dice: random.Random) -> str:
    """The text with one to four things done to it: values replaced, lines and spans moved, cut, doubled, bytes changed."""
    for _ in range(dice.randint(1, 4)):
        lines = text.split("\n")
        place, other = dice.randrange(len(lines)), dice.randrange(len(lines))
        what = dice.randrange(8)
        if what == 0:
            head, sign, _ = lines[place].partition(dice.choice([":", "=", ",", " "]))
            lines[place] = head + sign + " " + dice.choice(ODD)
        elif what == 1:
            lines[place], lines[other] = lines[other], lines[place]
        elif what == 2:
            del lines[min(place, other) : max(place, other) // 4 + min(place, other)]
        elif what == 3:
            lines[place:place] = lines[other : other + dice.randint(1, 20)] * dice.randint(1, 3)
        elif what == 4:
            lines[place] = " " * dice.randint(0, 8) + lines[place].lstrip()
        text = "\n".join(lines)
        at = dice.randrange(len(text) + 1)
        if what == 5:
            text = text[:at]
        elif what == 6:
            text = text[:at] + dice.choice(ODD) + text[at + dice.randint(0, 5) :]
        elif what == 7:
            text = text[:at] + chr(dice.randrange(0x300)) + text[at + 1 :]
    return text


def look(text: str) -> object:
    return diagnose(ask(["compose.yaml", "nginx.conf"]), HeldFiles({"compose.yaml": text, "nginx.conf": text}))


def look_as(name: str) -> Callable[[str], object]:
    """A file of this name, beside what it may name."""
    compose = "services:\n  a:\n    build: .\n    entrypoint: [/run.sh]\n    volumes: ['./run.sh:/run.sh']\n"
    return lambda text: diagnose(ask(["."]), HeldFiles({"compose.yaml": compose, name: text}))


def conversations(text: str) -> object:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "talks.jsonl"
        path.write_text(text, errors="surrogatepass")
        return read_conversations(path)


TRACE = "due_s,prompt_tokens,output_tokens\n" + "".join(f"{n / 4},{20 + n},5\n" for n in range(20))
PROFILE = """name: machine\nweights_time: 1.1\nlink_time: 0.9\nline: {step_s: 0.01, per_decode_s: 0.0001}
reduces:\n  - {gpus: [0, 1], points: [[1024, 0.00001], [1048576, 0.0001]], source: nccl-tests}\n"""
RUN = """schema_version: 2\nrun_id: a:b:4cc3d5b3f8\nname: r\nengine: external\nsource: measured\nurl: http://127.0.0.1:1
started_at: 1796067428.8\natoll_version: 0.1.0\ncomplete: true\nwindows: [[0, 5.5]]\nnotes: [a]\n"""
DEPLOYMENT = json.dumps(
    {
        "version": 1, "name": "n", "kind": "process", "engine": "vllm", "model": "m", "url": "http://127.0.0.1:1",
        "created_at": 1.5, "folder": {"device": 1, "inode": 2}, "secret": "0" * 32, "replicas": [
            {"name": "replica-0", "number": 0, "gpus": [0], "host": "127.0.0.1", "port": 1, "health_path": "/health",
             "log": "logs/replica-0.log", "pid": 5, "started": 6}],
        "router": {"name": "router", "host": "127.0.0.1", "port": 2, "health_path": "/", "log": "logs/router.log"},
    },
    indent=1,
)  # fmt: skip
TALKS = '{"messages": [{"role": "user", "content": "hello there"}], "max_tokens": 9}\n{"prompt": "hi"}\n'

FIELD = DATA / "doctor" / "field"
SCRIPT = """#!/bin/bash
A=(--x "a b" $1); for i in 0 1; do CUDA_VISIBLE_DEVICES=$i vllm serve ${M:-org/m} "${A[@]}" --port $((8000 + i)) & done
if [ -n "$X" ]; then exec vllm serve "$@"; else bash -c 'vllm serve m $0'; fi
cat > compose.yaml <<EOF
services: {a: {image: "vllm/vllm-openai:$TAG"}}
EOF
docker run -d --gpus '"device=0,1"' -e A=b -p 1:2 $OPTS vllm/vllm-openai --model m
"""
DOCKERFILE = """ARG T=v1
FROM vllm/vllm-openai:${T} AS a
ENV A=b C="d e"
COPY run.sh /
ENTRYPOINT ["vllm", "serve"]
CMD ["m", "--x", \\
  "y"]
"""
UNIT = "[Service]\nEnvironment=A=b\nExecStart=-/bin/vllm serve $A \\\n  --x ${B} %i\n"
HAPROXY = "defaults\n  mode http\n  timeout server 30s\nbackend vllm\n  server a 10.0.0.1:8000 check\n"
TRAEFIK = (
    "http:\n  services:\n    a: {loadBalancer: {servers: [{url: 'http://a:1'}]}}\nentryPoints:\n  w: {address: ':80'}\n"
)
RAY = """applications:
  - import_path: ray.serve.llm:build_openai_app
    args: {llm_configs: [{model_loading_config: {model_id: m}, engine_kwargs: {a: 1, b: [1], c: {d: e}, f: true}}]}
"""
CHART = "modelArtifacts: {name: m}\ndecode: {containers: [{name: v, image: x/vllm:1, modelCommand: vllmServe, args: [--x]}]}\n"
FORMS: dict[str, Path | str] = {
    "run.sh": SCRIPT,
    "README.md": f"# Run\n\n```bash\n{SCRIPT}```\n",
    "Dockerfile": DOCKERFILE,
    "a.service": UNIT,
    "vllm.container": FIELD / "f10-quadlet" / "vllm.container",
    "Caddyfile": FIELD / "f12-caddy" / "Caddyfile",
    "litellm.yaml": FIELD / "f16-litellm" / "litellm.yaml",
    "isvc.yaml": FIELD / "f18-kserve" / "isvc.yaml",
    "values.yaml": FIELD / "f19-helm" / "values.yaml",
    "deployment.yaml": FIELD / "f19-helm" / "templates" / "deployment.yaml",
    "chart.yaml": CHART,
    "Makefile": "A ?= 1\nup:\n\t@docker run $(A) vllm/vllm-openai m --x $$X \\\n\t\t--y\n",
    "traefik.toml": "[http.services.a.loadBalancer]\n[[http.services.a.loadBalancer.servers]]\nurl = 'http://a:1'\n",
    "haproxy.cfg": HAPROXY,
    "traefik.yaml": TRAEFIK,
    "serve.yaml": RAY,
}

READERS: dict[str, tuple[Callable[[str], object], list[Path | str]]] = {
    "topology": (lambda text: parse_box(text, origin="f"), sorted((DATA / "topo").glob("*.txt"))),
    "layout": (lambda text: Layout.parse(text, origin="f"), sorted((DATA / "bundles").glob("*.layout.yaml"))),
    "study": (lambda text: Study.parse(text, origin="f"), sorted((ROOT / "examples").rglob("study.yaml"))),
    "foreign": (
        lambda text: read_foreign(text, origin="f"),
        sorted(p for p in (DATA / "foreign").rglob("*") if p.is_file()),
    ),
    "trace": (lambda text: parse_trace(text, origin="f"), [TRACE]),
    "config": (
        lambda text: parse_card(text, name="m", origin="f"),
        sorted((ROOT / "src" / "atoll" / "data" / "models").glob("*.json")),
    ),
    "profile": (lambda text: MachineProfile.parse(text, origin="f"), [PROFILE]),
    "run": (lambda text: RunInfo.parse(text, origin="f"), [RUN]),
    "processes": (lambda text: ProcessPlan.parse(text, origin="f"), sorted((DATA / "bundles").rglob("process.yaml"))),
    "deployment": (lambda text: DeploymentState.parse(text, origin="f"), [DEPLOYMENT]),
    "conversations": (conversations, [TALKS]),
    "doctor": (look, sorted([*(DATA / "bundles").rglob("compose.yaml"), *(DATA / "bundles").rglob("nginx.conf")])),
    "doctor field": (look, sorted([*FIELD.rglob("*.y*ml"), *FIELD.rglob("*.conf")])),
    **{f"doctor {name}": (look_as(name), [path]) for name, path in FORMS.items()},
}


@pytest.mark.parametrize("name", READERS)
def test_any_input_gives_a_result_or_one_sentence(name):
    read, paths = READERS[name]
    golden = [path if isinstance(path, str) else path.read_bytes()[:100_000].decode(errors="replace") for path in paths]
    assert golden
    dice = random.Random(f"{SEED} {name}")
    counts: Counter[str] = Counter()
    ends = time.monotonic() + SECONDS
    fewest = FEWEST if " " not in name else 50  # the doctor has many forms
    while sum(counts.values()) < fewest or time.monotonic() < ends:
        text = mutant(dice.choice(golden), dice)
        began = time.process_time()
        try:
            read(text)
            counts["accepted"] += 1
        except AtollError as error:
            counts["refused"] += 1
            assert str(error).strip()
        except Exception as error:
            kept = Path(os.environ.get("TMPDIR", "/tmp")) / f"atoll-fuzz-{name.replace(' ', '-')}"
            kept.write_text(text, errors="surrogatepass")
            raise AssertionError(f"{name}: {type(error).__name__}: {error}; the input is {kept}") from error
        assert time.process_time() - began < LONGEST_S, f"{name}: mutant {sum(counts.values())} of seed {SEED} is slow"
    assert counts["refused"] > 0 or name.startswith("doctor")  # which has findings instead
    if SECONDS:
        print(f"{name}: seed {SEED}, {sum(counts.values())} inputs, {dict(counts)}")


def test_any_argument_gives_a_result_or_one_sentence(tmp_path):
    """In a process of its own, whose memory is bounded at 1 GB above what it starts with."""
    wanted = ["--seed", str(SEED), "--count", "300", "--seconds", str(SECONDS)]
    work = tmp_path / "work"
    work.mkdir()
    said = subprocess.run(
        [sys.executable, ROOT / "tests" / "laws" / "odd_commands.py", *wanted],
        cwd=work,
        env=os.environ | {"XDG_DATA_HOME": str(tmp_path), "OPENBLAS_NUM_THREADS": "1", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr[-2000:]
    counts = json.loads(said.stdout.splitlines()[-1])
    if SECONDS:
        print(counts)
    assert counts["what_fell"] == []
    assert counts["ok"] > 0
    assert counts["refused"] > 0


@pytest.mark.parametrize(
    "points", [[[0, 1e-5]], [[8, -1e-5], [16, 1e-5]], [[16, 1e-5], [8, 1e-5]], [[8, float("inf")]]]
)
def test_a_measured_curve_that_cannot_be_is_refused(points):
    with pytest.raises(BadDocument, match=r"points are \(bytes, seconds\) above 0, sizes rising"):
        MachineProfile.from_plain({"reduces": [{"gpus": [0, 1], "points": points}]}, origin="profile.yaml")


@pytest.mark.parametrize("figure", ["inf", "1e400", "9" * 400, "nan"])
def test_a_trace_with_figures_without_end_is_refused(figure):
    with pytest.raises(BadTraffic, match="is not a time and two token counts"):
        list(parse_trace(f"due_s,prompt_tokens,output_tokens\n0,{figure},5\n", origin="t.csv"))


def test_the_doctor_reads_figures_without_end():
    text = "services:\n  a:\n    image: vllm/vllm-openai:v0.32.0\n    command: [m/x, --max-model-len, '{n}']\n"
    text += "    healthcheck: {{test: [CMD, x], retries: {n}, interval: 5s, start_period: 1s}}\n"
    assert diagnose(
        ask(["compose.yaml"]),
        HeldFiles({"compose.yaml": text.format(n="9" * 400).replace("{{", "{").replace("}}", "}")}),
    )


def test_an_anchor_that_is_used_twice_is_read_without_a_warning():
    text = RUN.replace("name: r", "name: &a r").replace("engine: external", "engine: &a external")
    assert RunInfo.parse(text, origin="run.yaml").engine == "external"


def test_a_wanted_answer_without_end_is_none():
    assert conversations('{"prompt": "hi", "max_tokens": 1e400}\n')
