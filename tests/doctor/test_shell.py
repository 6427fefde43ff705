"""Shell scripts as commands: variables, arrays, loops, branches, `"$@"`; every word with its place."""

import pytest

from atoll.doctor.launch import commands_in, first_started
from atoll.doctor.shell import plain_letters, read_script
from atoll.doctor.tree import Source
from atoll.doctor.words import split_words


def script(text: str, **more):
    source = Source("run.sh", text)
    return read_script(plain_letters(source), source, **more)


def texts(text: str, **more) -> list[str]:
    return [" ".join(word.text for word in command.words) for command in script(text, **more).commands]


@pytest.mark.parametrize(
    ("text", "commands"),
    [
        ("a=5; vllm --port=$a\na=6; vllm --port=${a}", ["vllm --port=5", "vllm --port=6"]),
        ("vllm ${M:-org/m} \\\n  --x 'a b' \"c $HOME\"", ["vllm org/m --x a b c ${HOME}"]),
        ("A=(--x '1 2'); A+=(--y)\nvllm \"${A[@]}\"", ["vllm --x 1 2 --y"]),
        ('E="--x 1"\nE+=" --y 2"\nvllm $E', ["vllm --x 1 --y 2"]),
        ("for i in 0 1; do vllm --port $((8000 + i)) & done", ["vllm --port 8000", "vllm --port 8001"]),
        ("for i in {0..2}; do vllm $i; done", ["vllm 0", "vllm 1", "vllm 2"]),
        ("for i in $(seq 0 1); do vllm $i; done", ["vllm 0", "vllm 1"]),
        ("f() { exec vllm m | tee log; }", ["exec vllm m", "tee log"]),
        ("ID=$(docker run -d x)", ["docker run -d x"]),
        ("vllm $(cat m) > log 2>&1 &", ["vllm ${output}", "cat m"]),
        ('vllm "$@"', ["vllm ${@}"]),
        ("vllm ${A:-${B:-c}} é ${A}", ["vllm c é ${A}"]),
        ("if (( ; then vllm m", ["vllm m"]),
        ("", []),
    ],
)
def test_commands_of_a_script(text, commands):
    assert texts(text) == commands


def test_what_the_arms_of_an_if_hold_is_told_apart():
    made = script("if x; then a 1; elif y; then a 2; fi; case $z in p) a 3;; q) a 4;; esac; a 5").commands
    arms = [command.branch for command in made if command.words[0].text == "a"]
    assert len(set(arms)) == 5
    assert arms[-1] == ""


def test_a_word_of_a_variable_stands_where_its_value_is_written():
    (command,) = script("ARGS='--swap-space 4'\nvllm serve m $ARGS").commands
    assert [(word.text, word.line) for word in command.words[3:]] == [("--swap-space", 1), ("4", 1)]
    assert not command.words[3].direct


def test_variables_of_a_file_that_is_sourced():
    read = {"x.env": {"TP": "4"}}
    assert texts(". x.env\nvllm -tp $TP", read=lambda name, by: read.get(name)) == [". x.env", "vllm -tp 4"]


def test_documents_are_found():
    text = "cat > compose.yaml <<EOF\nservices: {}\nEOF\n"
    (document,) = script(text).documents
    assert text[document.start : document.end] == "services: {}\n"


@pytest.mark.parametrize(
    ("line", "model", "size"),
    [
        ("bash -c 'source x.sh; exec vllm serve \"$@\"' -- --model org/m -tp 2", "org/m", 2),
        ("bash -ec 'vllm serve org/m ${EXTRA}'", "org/m", None),
        ("bash -c 'vllm serve org/m --x ${EXTRA}'", "org/m", 1),
        ("env A=1 python3 -m vllm.entrypoints.openai.api_server --model org/m", "org/m", 1),
        ("/opt/venv/bin/vllm serve org/m '-tp 2'", "org/m", 2),
        ('"vllm serve org/m -tp 2"', "org/m", 2),
        ("bash -c 'if a; then vllm serve org/m; fi'", "org/m", 1),
    ],
)
def test_how_a_command_line_comes_to_start_vllm(line, model, size):
    source = Source("x", line)
    command = first_started(commands_in(split_words(plain_letters(source), source, script=False)))
    assert command is not None
    assert (command.model, command.world_size) == (model, size)
