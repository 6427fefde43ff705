"""Commands with odd arguments, from a seed: each ends with a result or one sentence, in little time and memory.

    python tests/laws/odd_commands.py --seed 7 --count 200      # one line of JSON: how many ended how, and what fell

It is a process of its own, so that its memory can be bounded (BYTES above what it starts with). What the commands
write goes to the folder in which it is started.
"""

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from atoll.cli.main import OWN_FAULT, guarded, make_app

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
BYTES = 10**9
SECONDS = 10.0  # of processor time, generous: a busy machine does not count
TOPO = "topo.txt"
SMALL = ["--gpu", "H100-NVL-94GB", "--gpus", "2", "--model", "Qwen/Qwen2.5-7B-Instruct", "--users", "3"]
LOAD = ["--requests", "5", "--prompt", "20", "--output", "5", "--seed", "1"]
GOOD: list[list[str]] = [
    ["inspect", TOPO], ["inspect", TOPO, "--json"], ["inspect", "--gpu", "A100-SXM-80GB", "--gpus", "4"],
    ["model", "Qwen/Qwen2.5-7B-Instruct", "--gpu", "H100-NVL-94GB"], ["model", "config.json"],
    ["plan", *SMALL, "--prompt", "20", "--output", "5", "--slo-ttft", "1s", "--slo-tpot", "50ms"],
    ["simulate", *SMALL, *LOAD, "--tp", "2"], ["simulate", "layout.yaml", *LOAD, "--users", "2"],
    ["simulate", *SMALL, "--tp", "1", "--duration", "2s", "--think", "1s", "--prompt", "8-20", "--output", "5"],
    ["simulate", *SMALL, "--tp", "2", "--trace", "trace.csv"], ["simulate", *SMALL, *LOAD, "--profile", "profile.yaml"],
    ["render", "layout.yaml", "--to", "compose", "-o", "out"], ["render", "layout.yaml", "--to", "process", "-o", "out"],
    ["render", "layout.yaml", "-o", "out", "--bind", "127.0.0.1", "--models", "/data"],
    ["doctor", "compose.yaml", "--format", "text"], ["doctor", ".", "--select", "NG", "--box", TOPO],
    ["up", "layout.yaml", "--to", "process", "--dry-run", "-o", "out"], ["down", "bundle"], ["status", "bundle"],
    ["logs", "bundle", "-n", "5", "--replica", "0"], ["exchange", "import", "vllm.json", "-o", "out"],
    ["compare", "run", "run"], ["report", "run", "-o", "r.html"], ["runs", "list"],
    ["study", "show", "study"], ["bench", "http://127.0.0.1:1", *LOAD, "--users", "2", "--connect-timeout", "1s"],
    ["validate", "table.csv"],
]  # fmt: skip
VALUES = [
    "", "0", "-1", "1.5", "1e400", "-1e400", "nan", "inf", "9" * 30, "9" * 5000, "가", "\x1b[31m", "[/nope]", "a\nb",
    "\u2028", "0s", "-5m", "1e300h", "nans", "lognormal:0:0", "lognormal:1:1e9", "9-1", "1-" + "9" * 30, "http://[::1",
    "http://me:pw@[::]:0/", "x" * 5000, "%s", "{}", "$(id)", "\udcff", "--", "-", "é" * 200, "null", "true",
]  # fmt: skip
NEAR = [
    "1",
    "2",
    "3",
    "7",
    "0.5",
    "64",
    "100",
    "1s",
    "10ms",
    "1-3",
    "lognormal:20:1",
    "text",
    "json",
    TOPO,
    "layout.yaml",
]
# Not `/`: how long the doctor takes for a whole machine is the machine's own, not a matter of an odd argument.
PATHS = ["/dev/zero", "/dev/null", "/proc/self/mem", ".", "nothing", "bytes.bin", "empty", "huge.json", "pipe"]


def set_up() -> None:
    """The files that GOOD names, a few bad ones beside them."""
    for name, source in {
        TOPO: next(iter(sorted((DATA / "topo").glob("*.txt")))),
        "layout.yaml": next(iter(sorted((DATA / "bundles").glob("*.layout.yaml")))),
        "vllm.json": DATA / "foreign" / "vllm.json",
        "compose.yaml": DATA / "doctor" / "stack-a" / "compose.yaml",
        "study.yaml": next(iter(sorted((ROOT / "examples").rglob("study.yaml")))),
    }.items():
        shutil.copy(source, name)
    Path("trace.csv").write_text("due_s,prompt_tokens,output_tokens\n0,20,5\n1,20,5\n")
    Path("profile.yaml").write_text("name: machine\nweights_time: 1.1\n")
    config = {"model_type": "qwen2", "num_hidden_layers": 4, "hidden_size": 512, "num_attention_heads": 8}
    more = {"num_key_value_heads": 4, "intermediate_size": 1024, "vocab_size": 1000, "max_position_embeddings": 4096}
    Path("config.json").write_text(json.dumps(config | more))
    Path("bytes.bin").write_bytes(random.Random(3).randbytes(3000))
    Path("empty").write_text("")
    Path("huge.json").write_text('{"a": ' + "[" * 100_000)
    os.mkfifo("pipe")
    for words in (
        ["render", "layout.yaml", "--to", "process", "-o", "bundle"],
        ["simulate", *SMALL, *LOAD, "--tp", "2", "-o", "run"],
    ):
        assert ends(words)[0] == "ok"


def odd(dice: random.Random) -> list[str]:
    """A good command with one to three of its words changed; where it writes stays in this folder."""
    words = list(dice.choice(GOOD))
    for _ in range(min(dice.choice([1, 1, 1, 2, 3]), len(words) - 1)):
        place = dice.randrange(1, len(words))
        after_out = words[place - 1] in {"-o", "--out"}
        if dice.random() < 0.1 and not after_out and len(words) > 2:
            del words[place]
        elif not words[place].startswith("-") and dice.random() < 0.9:
            kinds = [VALUES, NEAR] if after_out else [VALUES, VALUES, NEAR, NEAR, NEAR, PATHS]
            words[place] = dice.choice(dice.choice(kinds))
        else:
            words.insert(place if not after_out else len(words), dice.choice(VALUES))
    return words


def ends(words: list[str]) -> tuple[str, str]:
    """How the command ends ("ok", "refused" or what fell), and what it said."""
    said = io.StringIO()
    code: object = 0
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            guarded(lambda: make_app(words[:1])(words, standalone_mode=False))
    except SystemExit as end:
        code = end.code
    except BaseException as error:  # noqa: BLE001 - whatever guarded lets through is a fault
        return f"{type(error).__name__}: {error}", said.getvalue()
    if code == OWN_FAULT:
        return "exit 70", said.getvalue()
    return ("ok" if not code else "refused"), said.getvalue()


def main() -> None:
    """Try so many, or for so long."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", default="7")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=0.0)
    asked = parser.parse_args()
    set_up()
    for name in {words[0] for words in GOOD}:
        make_app([name])
    # Written memory, not addresses: the JavaScript engine that draws charts reserves gigabytes of those and fills none.
    began_with = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (began_with + BYTES, began_with + BYTES))
    signal.signal(signal.SIGPROF, signal.default_int_handler)  # of what never ends: KeyboardInterrupt, exit 130
    dice = random.Random(f"{asked.seed} commands")
    counts: Counter[str] = Counter()
    fell: list[dict[str, object]] = []
    until = time.monotonic() + asked.seconds
    while counts.total() < asked.count or time.monotonic() < until:
        words = odd(dice)
        signal.setitimer(signal.ITIMER_PROF, 3 * SECONDS)
        began = time.process_time()
        end, said = ends(words)
        took = time.process_time() - began
        signal.setitimer(signal.ITIMER_PROF, 0)
        if end in {"ok", "refused"} and took >= SECONDS:
            end = "slow"
        if end == "refused" and not said.strip():
            end = "without a word"
        counts[end if end in {"ok", "refused"} else "fell"] += 1
        if end not in {"ok", "refused"}:
            fell.append(
                {"words": [word[:80] for word in words], "end": end[:300], "said": said[-300:], "seconds": took}
            )
        shutil.rmtree("out", ignore_errors=True)
    print(json.dumps({"seed": asked.seed, **counts, "what_fell": fell[:20]}), file=sys.__stdout__)


if __name__ == "__main__":
    main()
