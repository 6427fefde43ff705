"""The command line's promises: one JSON document on stdout, one sentence for an error, exit codes 0, 1 and 2."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from atoll.cli.main import COMMANDS, guarded, main, make_app
from stand_ins.patience import PATIENCE_S

EXAMPLE = Path(__file__).parents[2] / "examples" / "four-h100-nvl"
TOPO = str(EXAMPLE / "topo.txt")
MODEL = "Qwen/Qwen2.5-32B-Instruct"


def atoll(*arguments, cwd, stdin=None):
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "atoll", *arguments], cwd=cwd, env=environment, input=stdin, capture_output=True, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["inspect", TOPO, "--json"], "islands"),
        (["model", MODEL, "--json"], "kv_bytes_per_token"),
        (["plan", "--box", TOPO, "--gpu", "H100-NVL-94GB", "--model", MODEL, "--users", "8", "--prompt", "500",
          "--output", "100", "--json"], "choices"),
        (["simulate", "--gpu", "H100-SXM-80GB", "--gpus", "4", "--tp", "2", "--replicas", "2", "--model", MODEL,
          "--users", "30", "--prompt", "2000", "--output", "150", "--requests", "60", "--json"], "ttft_s"),
        (["runs", "list", "--json"], "runs"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else value,
)  # fmt: skip
def test_json_is_one_document_and_nothing_else(arguments, key, tmp_path):
    done = atoll(*arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert key in json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "no-such-file"], "There is no file no-such-file"),
        (["model", "no/such-model"], "no/such-model"),
        (["plan", "--model", MODEL, "--users", "8", "--prompt", "10", "--output", "10"], "--box FILE"),
        (["simulate", "no-such.yaml"], "no-such.yaml"),
        (["study", "run", "no-such.yaml"], "no-such.yaml"),
        (["study", "resume", "."], "No study was started"),
        (["compare", "a"], "at least two runs"),
        (["compare", "a", "b"], "a is no run"),
        (["render", "no-such.yaml", "--to", "compose"], "no-such.yaml"),
        (["down", "no-such-folder"], "no-such-folder"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_bad_input_is_one_sentence_and_exit_2(arguments, words, tmp_path):
    done = atoll(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert words in " ".join(done.stderr.split())


def test_text_that_is_no_capture_is_refused_on_standard_input(tmp_path):
    done = atoll("inspect", "-", cwd=tmp_path, stdin="hello\n")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_wrong_option_is_exit_2(tmp_path):
    assert atoll("inspect", "--no-such-option", cwd=tmp_path).returncode == 2


def test_the_table_of_commands_says_what_each_says_of_itself():
    """`atoll --help` is shown without bringing in a single command."""
    commands = typer.main.get_group(make_app()).commands
    said = {name: (command.help or "").split("\n\n")[0].replace("\n", " ") for name, command in commands.items()}
    assert said == dict(COMMANDS)


def test_help_of_a_command_is_asked_for_as_elsewhere(tmp_path):
    for words in (["help", "gpus"], ["gpus", "-h"]):
        done = atoll(*words, cwd=tmp_path)
        assert (done.returncode, "The kinds of GPU" in done.stdout) == (0, True)
    assert atoll("help", cwd=tmp_path).stdout == atoll("--help", cwd=tmp_path).stdout
    assert "Did you mean 'bench'" in atoll("bech", cwd=tmp_path).stderr


def test_a_shell_completes_commands_and_options(tmp_path):
    for words, position, expected in [("atoll ben", "1", "bench"), ("atoll bench --use", "2", "--users")]:
        asked = os.environ | {"_ATOLL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
        done = subprocess.run(
            [sys.executable, "-m", "atoll"], cwd=tmp_path, env=asked, capture_output=True, text=True, timeout=PATIENCE_S
        )
        assert done.stdout.split() == [expected]


def test_the_version_is_shown(tmp_path):
    assert atoll("--version", cwd=tmp_path).stdout.startswith("atoll ")


def test_no_cell_of_a_table_is_cut_at_80_columns(tmp_path):
    eight = ["plan", "--gpu", "RTX-PRO-6000-SERVER-96GB", "--gpus", "8", "--model", MODEL, "--formula"]
    for arguments in (
        ["model", MODEL],
        ["model", "Qwen/Qwen3-30B-A3B"],
        [*eight, "--users", "50", "--slo-ttft", "1s"],
        [*eight, "--rate", "5", "--policy", "random_two_least_conn"],
        ["plan", "--gpu", "H100", "--gpus", "16", "--model", MODEL, "--formula", "--slo-ttft", "1s"],
        ["emulate", "--help"],
    ):
        done = atoll(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "…" not in done.stdout, done.stdout
        assert max(len(line) for line in done.stdout.splitlines()) <= 80


def test_a_queue_that_never_ends_has_no_length(tmp_path):
    plan = ["plan", "--gpu", "L4", "--gpus", "2", "--model", "Qwen/Qwen2.5-7B-Instruct", "--rate", "500", "--formula"]
    done = atoll(*plan, cwd=tmp_path)
    assert "grows: requests come faster" in done.stdout
    assert " min" not in done.stdout.partition("Why")[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["inspect", "--gpus", "0"], "Invalid value for '--gpus'"),
        (["inspekt"], "No such command 'inspekt'"),
        (["bench", "--jsn"], "No such option: --jsn"),
        (["model"], "Missing argument"),
        (["model", MODEL, "--kv-cache-dtype", "int3"], "kv_cache_dtype int3 is not one of auto, "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_usage_is_one_sentence_too(arguments, words, tmp_path):
    done = atoll(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("atoll: ")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_no_words_at_all_show_the_help(tmp_path):
    done = atoll(cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "")
    assert "inspect" in done.stdout


def test_ctrl_c_while_modules_are_imported_is_no_traceback(tmp_path):
    """The finder stands in for a Ctrl-C that comes while the first module of the command line is looked for."""
    code = (
        "import sys\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *rest):\n"
        "        if name == 'rich.console': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from atoll.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert (done.returncode, done.stderr) == (130, "")


@pytest.mark.parametrize("group", ["study", "runs", "exchange"])
def test_the_help_of_a_group_has_an_example(group, tmp_path):
    assert f"Example: atoll {group}" in " ".join(atoll(group, "--help", cwd=tmp_path).stdout.split())


def test_brackets_in_a_title_are_no_markup(capsys):
    from atoll.cli import show

    show.show_table("[bold] of 한글", ("a [red]", "b"), [("[emerg] bind", "x")])
    printed = capsys.readouterr().out
    assert "[bold] of 한글" in printed
    assert "[emerg] bind" in printed


def test_a_study_of_which_nothing_ran_is_a_failed_run(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "name: none\nbox: {gpu: L4, gpus: 1}\nmodel: Qwen/Qwen2.5-72B-Instruct\n"
        "workload: {users: 1, duration: 5s, prompt: 10, output: 5}\nvariants: [{name: one, tensor_parallel: 1}]\n"
    )
    done = atoll("study", "run", "study.yaml", "-o", "out", "--json", cwd=tmp_path)
    assert done.returncode == 1
    assert "does not fit" in json.loads(done.stdout)["variants"][0]["failure"]
    assert "No variant of none ran" in done.stderr


def test_a_terminal_that_knows_ascii_only_is_no_reason_to_stop(tmp_path):
    environment = os.environ | {"COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "atoll", "inspect"]
    done = subprocess.run([*command, TOPO], cwd=tmp_path, env=environment, capture_output=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"GPU 0" in done.stdout
    (tmp_path / "모델.json").write_text("{")
    plain = subprocess.run(
        [sys.executable, "-m", "atoll", "model", "모델.json"], cwd=tmp_path, env=environment,
        capture_output=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert plain.returncode == 2
    assert plain.stderr.startswith(b"atoll: ")


def test_long_names_of_variants_cost_no_figure(tmp_path):
    name = "a-name-that-nobody-would-call-short-of-a-variant"
    (tmp_path / "study.yaml").write_text(
        "name: long\nbox: {gpu: L4, gpus: 2}\nmodel: Qwen/Qwen2.5-0.5B-Instruct\n"
        "workload: {users: 2, duration: 5s, prompt: 10, output: 5}\n"
        f"variants: [{{name: {name}-1, tensor_parallel: 1}}, {{name: {name}-2, tensor_parallel: 2}}]\n"
    )
    done = atoll("study", "run", "study.yaml", "-o", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "…" not in done.stdout
    assert done.stdout.count(" ms") >= 6
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_a_fault_of_our_own_is_a_sentence_with_a_file_to_send(capsys):
    def fail() -> None:
        raise RuntimeError("no such thing at http://me:hidden@host/ with api_key=sk-123 and Bearer abc.def")

    with pytest.raises(SystemExit) as ended:
        guarded(fail)
    said = capsys.readouterr().err
    assert ended.value.code == 70
    assert said.startswith("atoll: A fault of atoll's own, RuntimeError: no such thing")
    assert len(said.splitlines()) == 1
    path = Path(said.partition("please send ")[2].partition(". What")[0])
    story = path.read_text()
    assert "in fail" in story
    for secret in ("hidden", "sk-123", "abc.def"):
        assert secret not in said + story
    path.unlink()
    path.parent.rmdir()


NO_TEXT = "n\udcff"  # as the byte 0xff of a command line arrives


@pytest.mark.parametrize(
    "words",
    [
        ["simulate", "--gpu", "H100-NVL-94GB", "--gpus", "2", "--model", NO_TEXT, "--users", "2"],
        ["simulate", "--gpu", NO_TEXT, "--model", MODEL],
        ["plan", "--gpu", "H100-NVL-94GB", "--gpus", "2", "--model", NO_TEXT],
        ["emulate", "--gpu", "H100-NVL-94GB", "--model", NO_TEXT],
        ["bench", "http://127.0.0.1:1", "--model", NO_TEXT],
        ["bench", "http://127.0.0.1:1", "--header", f"X-A: {NO_TEXT}"],
        ["bench", "http://127.0.0.1:1", "--api-key", NO_TEXT],
        ["runs", "tag", NO_TEXT, "good"],
        ["runs", "list", "--tag", NO_TEXT],
        ["study", "run", NO_TEXT],
        ["render", "layout.yaml", "--bind", NO_TEXT],
    ],
    ids=lambda words: f"{words[0]} {words[words.index(NO_TEXT) - 1] if NO_TEXT in words else '--header'}",
)
def test_a_value_that_is_no_text_is_one_sentence_in_every_command(words, capsys):
    with pytest.raises(SystemExit) as ended:
        guarded(lambda: make_app(words[:1])(words, standalone_mode=False))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert said.count("\n") == 1
    assert "n\\udcff" in said


@pytest.mark.parametrize("name", ["m\udcff", "m\nb", "m\u2028", "m\x1b[31m"])
def test_a_model_folder_whose_name_no_layout_can_hold_is_one_sentence(name, tmp_path, capsys):
    (tmp_path / name).mkdir()
    for words in (["simulate", "--gpus", "2"], ["plan", "--gpus", "2", "--users", "2"], ["emulate"]):
        wanted = [*words, "--gpu", "H100-NVL-94GB", "--model", str(tmp_path / name)]
        with pytest.raises(SystemExit) as ended:
            guarded(lambda wanted=wanted: make_app(wanted[:1])(wanted, standalone_mode=False))
        assert ended.value.code == 2
        assert "holds the character" in capsys.readouterr().err


def test_files_whose_names_are_no_text_are_files_like_others(tmp_path, capsys):
    shutil.copy(TOPO, tmp_path / NO_TEXT)
    compose = tmp_path / f"compose{NO_TEXT}.yaml"
    compose.write_text("services: {a: {image: vllm/vllm-openai, command: [m/x]}}\n")
    guarded(lambda: make_app(["inspect"])(["inspect", str(tmp_path / NO_TEXT)], standalone_mode=False))
    guarded(lambda: make_app(["doctor"])(["doctor", str(compose), "--format", "sarif"], standalone_mode=False))
    assert "composen%FF.yaml" in capsys.readouterr().out


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_files_are_written_though_nobody_reads_what_is_printed(json_too, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = ["plan", "--box", TOPO, "--gpu", "H100-NVL-94GB", "--model", MODEL, "--formula", "-o", "layout.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "atoll", *command, *json_too], cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    os.close(writer)
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)
    assert (tmp_path / "layout.yaml").exists()


@pytest.mark.parametrize(
    ("words", "ours"),
    [
        (("bench", "h", "--concurrency", "5"), "--users"),
        (("bench", "h", "--num-prompts", "5"), "--requests"),
        (("bench", "h", "--input-len", "5"), "--prompt"),
        (("plan", "--request-rate", "5"), "--rate"),
        (("inspect", "--concurrency", "5"), None),
    ],
)
def test_the_words_of_other_load_generators_are_answered_with_ours(words, ours, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["atoll", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = " ".join(capsys.readouterr().err.split())
    assert (f"here that is {ours}." in said) == (ours is not None)
