"""`docker run` (podman, nerdctl) as a service in Compose's form."""

import re
from collections.abc import Mapping, Sequence

from atoll.doctor.compose import Service
from atoll.doctor.form import Form, gpu_devices, listing, mapping, scalar, value
from atoll.doctor.parts import Setting, word_node
from atoll.doctor.shell_text import within
from atoll.doctor.tree import Node
from atoll.doctor.words import Word, word_list

_PROGRAMS = {"docker", "podman", "nerdctl"}
_BEFORE = {"sudo", "exec", "env", "nohup", "time", "command", "-E", "eval"}
_RUNS_ANOTHER = {"ssh", "srun", "sudo", "timeout", "nice", "taskset", "numactl", "systemd-run"}
_GLOBAL_VALUES = {"-H", "--host", "-c", "--context", "--config", "-l", "--log-level", "--url", "--connection", "-n"}
# Options without a value, of `docker run --help` and `podman run --help`; all others take one.
_SWITCHES = {
    "--detach", "--interactive", "--tty", "--rm", "--privileged", "--init", "--read-only", "--publish-all",
    "--no-healthcheck", "--oom-kill-disable", "--sig-proxy", "--disable-content-trust", "--help", "--quiet",
    "--no-hosts", "--no-hostname", "--replace", "--tls-verify", "--rmi", "--env-host", "--http-proxy", "--passwd",
    "--read-only-tmpfs",
}  # fmt: skip
_SHORT_SWITCHES = "ditPq"
_LONG = {
    "-e": "--env", "-v": "--volume", "-p": "--publish", "-h": "--hostname", "-u": "--user", "-w": "--workdir",
    "-m": "--memory", "-l": "--label", "-a": "--attach", "-c": "--cpu-shares", "--net": "--network",
}  # fmt: skip

Given = tuple[str, Word | None, str]  # the option's long name, the word of its value, the value


def container_of(words: Sequence[Word], env_file: Mapping[str, Mapping[str, Setting]] | None = None) -> Service | None:
    """The container that a command line runs; None when it is another command, or names no image.

    Args:
        words: the command, its program first.
        env_file: what the files of --env-file hold, by their names.
    """
    start = _after_run(words)
    given, image = _options(words, start) if start is not None else ([], None)
    if image is None:
        return None
    near = word_node(words[0])
    form = Form(scalar(near, near.text or ""))
    form.set("image", word_node(words[image]) if words[image].direct else value(words[image]))
    form.set("command", word_list(words[image + 1 :], near) if len(words) > image + 1 else None)
    for name, word, text in given:
        _put(form, name, word or words[0], text)
    named = next((text for name, _, text in given if name == "--name" and "${" not in text), None)
    files = [text for name, _, text in given if name == "--env-file"]
    return Service(
        name=named or _short_name(words[image].text),
        node=form.node(),
        name_node=scalar(near, near.text or ""),
        project=words[0].source.path,
        env_file={key: setting for path in files for key, setting in (env_file or {}).get(path, {}).items()},
    )


def put_options(form: Form, words: Sequence[Word]) -> None:
    """Options of `podman run` that another form hands through, put into a service."""
    for name, word, text in _options(words, 0)[0]:
        _put(form, name, word or words[0], text)


def env_files_of(words: Sequence[Word]) -> list[str]:
    """The files that --env-file names."""
    start = _after_run(words)
    given = _options(words, start)[0] if start is not None else []
    return [text for name, _, text in given if name == "--env-file"]


def _short_name(image: str) -> str:
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0] or image


def _after_run(words: Sequence[Word]) -> int | None:
    """Where the options of `run` begin; None when this runs no container."""
    place = 0
    while place < len(words) and (words[place].text in _BEFORE or re.match(r"^\w+=", words[place].text)):
        place += 1
    if place < len(words) and words[place].text in _RUNS_ANOTHER:
        place = next((n for n, word in enumerate(words) if word.text in _PROGRAMS), place)
    if place >= len(words) or words[place].text.rpartition("/")[2] not in _PROGRAMS:
        return None
    place += 1
    while place < len(words) and words[place].text.startswith("-"):
        place += 2 if words[place].text in _GLOBAL_VALUES else 1
    if place < len(words) and words[place].text == "container":
        place += 1
    return place + 1 if place < len(words) and words[place].text in {"run", "create"} else None


def _options(words: Sequence[Word], place: int) -> tuple[list[Given], int | None]:
    """The options before the image, and where that stands."""
    given: list[Given] = []
    while place < len(words):
        word = words[place]
        if word.text == "--":
            return given, place + 1 if place + 1 < len(words) else None
        if not word.text.startswith("-"):
            if not _holds_options(word, words[place + 1 :]):
                return given, place
            place += 1
            continue
        found, taken = _option(words, place)
        given += found
        place += taken
    return given, None


def _holds_options(word: Word, rest: Sequence[Word]) -> bool:
    """Whether an unknown variable before the image stands for more options: `$GPU_FLAGS image`."""
    found = re.fullmatch(r"\$\{(\w+|[@*])\}", word.text)
    return found is not None and bool(rest) and not re.search(r"IMAGE|IMG|TAG|NAME", found[1], re.IGNORECASE)


def _option(words: Sequence[Word], place: int) -> tuple[list[Given], int]:
    word, following = words[place], words[place + 1] if place + 1 < len(words) else None
    name, equals, text = word.text.partition("=")
    if name.startswith("--"):
        long = _LONG.get(name, name)
        if equals:
            return [(long, within(word, len(name) + 1, text), text)], 1
        if name in _SWITCHES or following is None:
            return [(long, None, "true")], 1
        return [(long, following, following.text)], 2
    switches = re.match(rf"-[{_SHORT_SWITCHES}]*", word.text)
    rest = word.text[switches.end() :] if switches is not None else word.text[1:]
    flags: list[Given] = [(f"-{flag}", None, "true") for flag in (switches[0][1:] if switches is not None else "")]
    if not rest:
        return flags, 1
    long = _LONG.get(f"-{rest[0]}", f"-{rest[0]}")
    if len(rest) > 1:
        inner = rest[1:].removeprefix("=")
        return [*flags, (long, within(word, len(word.text) - len(inner), inner), inner)], 1
    return [*flags, (long, following, following.text)] if following is not None else flags, 2


_LISTS = {
    "--env": "environment", "--publish": "ports", "--volume": "volumes", "--cap-add": "cap_add",
    "--security-opt": "security_opt", "--group-add": "group_add", "--network-alias": "aliases",
}  # fmt: skip
_VALUES = {
    "--ipc": "ipc", "--shm-size": "shm_size", "--restart": "restart", "--runtime": "runtime", "--user": "user",
    "--name": "container_name", "--privileged": "privileged", "--hostname": "hostname", "--cpuset-cpus": "cpuset",
    "--pid": "pid",
}  # fmt: skip
_HEALTH = {
    "--health-cmd": "test", "--health-interval": "interval", "--health-timeout": "timeout",
    "--health-retries": "retries", "--health-start-period": "start_period",
}  # fmt: skip


def _put(form: Form, name: str, word: Word, text: str) -> None:
    here = value(word, text)
    if name in _LISTS:
        form.add(_LISTS[name], here)
    elif name in _VALUES:
        form.set(_VALUES[name], here)
    elif name == "--network":
        form.set("network_mode", here) if text in {"host", "none"} else form.add("networks", here)
    elif name == "--entrypoint":
        form.set("entrypoint", word_list([word], here) if text else listing(here, []))
    elif name == "--gpus":
        form.set("gpus", _gpus(word, text))
    elif name == "--device":
        form.add("devices", here)
    elif name == "--mount":
        form.add("volumes", _mount(word, text))
    elif name == "--stop-timeout":
        form.set("stop_grace_period", value(word, f"{text}s"))
    elif name == "--log-opt":
        option, _, setting = text.partition("=")
        form.set("logging", mapping(here, {"options": mapping(here, {option: value(word, setting)})}))
    elif name in _HEALTH:
        form.put_in("healthcheck", _HEALTH[name], here)


def _gpus(word: Word, text: str) -> Node:
    """`all`, `2`, `device=0,1` with the quotes that Docker's list of fields asks for."""
    near = value(word)
    named = re.search(r'device=([^"]+)', text.replace("'", ""))
    if named is not None:
        return gpu_devices(near, ids=[name.strip() for name in named[1].split(",") if "=" not in name])
    return gpu_devices(near, count=text.strip("\"'").removeprefix("count=").partition(",")[0])


def _mount(word: Word, text: str) -> Node:
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    near = value(word)
    named = {
        "type": fields.get("type", "volume"),
        "source": fields.get("source") or fields.get("src"),
        "target": fields.get("target") or fields.get("destination") or fields.get("dst"),
    }
    return mapping(near, {key: scalar(near, given) if given else None for key, given in named.items()})
