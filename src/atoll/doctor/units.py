"""systemd units and Podman's quadlets: the containers and engines that they keep running."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from atoll.doctor.assemble import env_settings
from atoll.doctor.compose import Project, Service
from atoll.doctor.docker_run import container_of, env_files_of, put_options
from atoll.doctor.form import Form, Lettered, scalar, value
from atoll.doctor.inside import started_in
from atoll.doctor.launch import commands_in, first_started
from atoll.doctor.letters import Letter
from atoll.doctor.parts import Setting, word_node
from atoll.doctor.sources import Sources
from atoll.doctor.substitution import interpolate
from atoll.doctor.tree import Source
from atoll.doctor.words import Word, split_words, word_list

IS_UNIT = re.compile(r"\.(service|container)$")
IS_SUPERVISOR = re.compile(r"(?m)^\[program:[^\]]+\]")  # supervisord keeps programs running too


@dataclass(frozen=True, kw_only=True)
class Entry(Lettered):
    """`Key=value` of a section, lines that end with a backslash joined."""

    section: str
    key: str

    @property
    def text(self) -> str:
        return super().text.strip()

    def words(self, variables: Mapping[str, str] | None = None) -> tuple[Word, ...]:
        """Split as systemd splits a command line; what stands in `variables` is filled in."""
        return split_words(_filled(self.letters, variables or {}), self.source, script=False)


def _filled(letters: Sequence[Letter], variables: Mapping[str, str]) -> list[Letter]:
    text = "".join(letter.text for letter in letters)
    made: list[Letter] = []
    at = 0
    for match in re.finditer(r"\$\{\w+\}|\$[A-Za-z_]\w*|%%|\$\$", text):
        made += letters[at : match.start()]
        known = match[0][0] if match[0] in {"%%", "$$"} else interpolate(match[0], variables)
        if known.startswith("$") and not known.startswith("${") and len(known) > 1:
            known = f"${{{known[1:]}}}"
        made += [Letter(char, letters[match.start()].offset) for char in known]
        at = match.end()
    return [*made, *letters[at:]]


def entries_of(source: Source) -> tuple[Entry, ...]:
    """The settings of a unit in their order."""
    made: list[Entry] = []
    section, key, start, line = "", "", 0, 0
    letters: list[Letter] = []
    for number, text in enumerate(source.lines, start=1):
        offset, bare = source.start(number), text.strip()
        if bare.startswith(("#", ";")) or (not bare and not key):
            continue
        first = 0
        if not key:
            head = re.match(r"\s*\[([^\]]+)\]", text)
            if head is not None:
                section = head[1]
                continue
            named = re.match(r"\s*([A-Za-z]\w*)\s*=\s*", text)
            if named is None:
                continue
            key, start, line, first = named[1], offset, number, named.end()
        body = text.rstrip()
        continued = body.endswith("\\")
        body = body[:-1] if continued else body
        letters += [Letter(char, offset + first + place) for place, char in enumerate(body[first:])]
        if continued:
            letters.append(Letter(" ", offset + len(body)))
            continue
        made.append(Entry(section=section, key=key, letters=tuple(letters), source=source, start=start, line=line))
        letters, key = [], ""
    if key:
        made.append(Entry(section=section, key=key, letters=tuple(letters), source=source, start=start, line=line))
    return tuple(made)


def unit_projects(units: Sequence[Source], sources: Sources) -> Iterator[Project]:
    """One project for each folder of units that run containers or engines: they are of one machine."""
    folders: dict[str, list[Service]] = {}
    kinds: dict[str, list[Source]] = {}
    for source in units:
        quadlet = re.search(r"^\s*\[Container\]", source.text, re.MULTILINE) is not None
        service = _quadlet(source, sources) if quadlet else _unit(source, sources)
        if service is None:
            sources.not_understood(source.path, "a unit whose program is not known")
            continue
        sources.understood(source, "quadlet" if quadlet else "systemd unit")
        folders.setdefault(source.folder, []).append(service)
        kinds.setdefault(source.folder, []).append(source)
    for folder, services in folders.items():
        root = scalar(services[0].name_node, folder)
        yield Project(name=folder, sources=tuple(kinds[folder]), root=root, services=tuple(services), origin="unit")


def _environment(entries: Sequence[Entry], sources: Sources) -> tuple[list[Word], dict[str, Setting]]:
    """The variables that a unit sets itself, and those of its files that lie here."""
    own = [word for one in entries if one.key == "Environment" for word in one.words() if "=" in word.text]
    own += [word for one in entries if one.key == "environment" for word in _listed(one)]
    files: dict[str, Setting] = {}
    for one in entries:
        found = sources.near(one.text.lstrip("-"), one.source) if one.key == "EnvironmentFile" else None
        files |= env_settings(found) if found is not None else {}
    return own, files


def _listed(one: Entry) -> list[Word]:
    """Supervisord's `A="b",C="d"`."""
    return [replace(word, text=word.text.rstrip(",")) for word in one.words() if "=" in word.text]


def _known(own: Sequence[Word], files: Mapping[str, Setting]) -> dict[str, str]:
    named = {name: setting.value for name, setting in files.items() if setting.value is not None}
    return {**named, **{word.text.partition("=")[0]: word.text.partition("=")[2] for word in own}}


def _unit(source: Source, sources: Sources) -> Service | None:
    """The engine or container of a `.service`."""
    entries = [one for one in entries_of(source) if one.section == "Service" or one.section.startswith("program:")]
    own, files = _environment(entries, sources)
    for one in entries:
        if one.key not in {"ExecStart", "command"}:
            continue
        words = _without_prefix(one.words(_known(own, files)))
        service = _container(words, source, sources) or _program(_of_script(words, source, sources), own, files)
        if service is not None:
            return replace(service, name=_stem(source))
    return None


def _without_prefix(words: tuple[Word, ...]) -> tuple[Word, ...]:
    """`-/usr/bin/x`, `@`, `+`, `!`: systemd's own marks before a program."""
    if not words:
        return words
    bare = words[0].text.lstrip("-@:+!")
    return (replace(words[0], text=bare, direct=False), *words[1:]) if bare != words[0].text else words


def _stem(source: Source) -> str:
    return posixpath.splitext(source.name)[0]


def _container(words: Sequence[Word], source: Source, sources: Sources) -> Service | None:
    named = {path: sources.near(path, source) for path in env_files_of(words)}
    return container_of(words, {path: env_settings(found) for path, found in named.items() if found is not None})


def _of_script(words: tuple[Word, ...], source: Source, sources: Sources) -> tuple[Word, ...]:
    """The vLLM command of a script that a unit runs, where a file of its name lies beside the unit."""
    for place, word in enumerate(words[:3]):
        if "/" in word.text and " " not in word.text:
            script = sources.near(posixpath.basename(word.text), source)
            found = started_in(script, words[place + 1 :])
            if found is not None:
                return (*found.program, *found.words)
    return words


def _program(words: Sequence[Word], own: Sequence[Word], files: Mapping[str, Setting]) -> Service | None:
    started = first_started(commands_in(words))
    if started is None:
        return None
    near = word_node(words[0])
    form = Form(scalar(near, "vllm"))
    form.set("command", word_list(words, near))
    for word in (*own, *started.environment.values()):
        form.add("environment", value(word))
    return Service(
        name="vllm",
        node=form.node(),
        name_node=scalar(near, near.text or ""),
        project=near.source.path,
        env_file=files,
        on_host=True,
    )


_SCALARS = {"ShmSize": "shm_size", "ContainerName": "container_name", "HostName": "hostname", "User": "user"}
_LISTS = {
    "PublishPort": "ports", "Volume": "volumes", "AddDevice": "devices", "AddCapability": "cap_add",
    "GroupAdd": "group_add",
}  # fmt: skip
_HEALTH = {
    "HealthCmd": "test", "HealthInterval": "interval", "HealthTimeout": "timeout", "HealthRetries": "retries",
    "HealthStartPeriod": "start_period",
}  # fmt: skip


def _quadlet(source: Source, sources: Sources) -> Service | None:
    """The container of a `.container` (podman-systemd.unit(5))."""
    entries = entries_of(source)
    inside = [one for one in entries if one.section == "Container"]
    image = next((one for one in inside if one.key == "Image"), None)
    if image is None:
        return None
    own, files = _environment(inside, sources)
    form = Form(image.node)
    words = image.words()
    form.set("image", word_node(words[0]) if words else None)
    for word in own:
        form.add("environment", value(word))
    for one in entries:
        if one.section == "Container":
            _put(form, one)
        elif one.section == "Service" and one.key == "Restart":
            form.set("restart", one.node)
        elif one.section == "Service" and one.key == "TimeoutStopSec" and one.text:
            form.set("stop_grace_period", scalar(one.node, f"{one.text}s" if one.text.isdecimal() else one.text))
    return Service(
        name=_stem(source), node=form.node(), name_node=image.node, project=source.path, env_file=files
    )  # fmt: skip


def _put(form: Form, one: Entry) -> None:
    if one.key == "Exec":
        form.set("command", word_list(one.words(), one.node))
    elif one.key == "Entrypoint":
        form.set("entrypoint", word_list(one.words(), one.node))
    elif one.key in _SCALARS:
        form.set(_SCALARS[one.key], one.node)
    elif one.key in _LISTS:
        form.add(_LISTS[one.key], one.node)
    elif one.key == "Network":
        form.set("network_mode", one.node) if one.text == "host" else form.add("networks", one.node)
    elif one.key in _HEALTH:
        form.put_in("healthcheck", _HEALTH[one.key], one.node)
    elif one.key == "StopTimeout":
        form.set("stop_grace_period", scalar(one.node, f"{one.text}s"))
    elif one.key == "PodmanArgs":
        put_options(form, one.words())
