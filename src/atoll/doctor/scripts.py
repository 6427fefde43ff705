"""Shell scripts and the commands in a README: the containers that they run and the engines that they start."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from atoll.doctor.assemble import env_settings, read_env
from atoll.doctor.compose import Project, Service
from atoll.doctor.docker_run import container_of, env_files_of
from atoll.doctor.form import Form, listing, scalar, value
from atoll.doctor.launch import commands_in, started_by
from atoll.doctor.letters import Letter
from atoll.doctor.makefiles import IS_MAKEFILE, shell_letters
from atoll.doctor.parts import Setting, word_node
from atoll.doctor.shell import Document, Script, ShellCommand, plain_letters, read_script
from atoll.doctor.tree import Node, Source
from atoll.doctor.words import word_list

Near = Callable[[str, Source], Source | None]  # (name as written, the file that names it) -> that file

# What shows that a text starts an engine, or brings its image.
STARTS_ENGINE = re.compile(
    r"\bvllm\s+serve\b|vllm\.entrypoints\.|vllm[\w-]*/vllm|/vllm[\w.-]*:|vllm-openai|sglang\.launch_server|lmsysorg/sglang"
    r"|text-generation-inference|\bnim/\w|llama-server|ghcr\.io/ggml-org/llama\.cpp"
)
_FENCE = re.compile(
    r"^([ \t]*)(```+|~~~+)[ \t]*(?P<kind>[\w+-]*)[^\n]*\n(?P<body>.*?)^[ \t]*\2[ \t]*$", re.MULTILINE | re.DOTALL
)
_SHELL_KINDS = {"", "bash", "sh", "shell", "console", "zsh", "shell-session", "text", "cmd"}
_SPEAKS_ONLY = {
    "echo", "printf", "grep", "pgrep", "pkill", "kill", "which", "pip", "pip3", "git", "cat", "alias", "kubectl",
}  # fmt: skip


def script_of(source: Source, near: Near) -> Script:
    """A file's commands."""

    def read(name: str, by: Source) -> Mapping[str, str] | None:
        found = near(name, by) if "${" not in name else None
        return {key: text for key, (text, _) in read_env(found).items()} if found is not None else None

    letters = shell_letters(source) if IS_MAKEFILE.search(source.path) else plain_letters(source)
    return read_script(letters, source, read=read)


def script_within(source: Source, document: Document) -> Script:
    """A script that another one writes, or hands to a shell, as a here-document."""
    return read_script(plain_letters(source)[document.start : document.end], source)


def project_of_script(source: Source, script: Script, near: Near) -> Project | None:
    """The engines and other containers that a script starts; None when there are none."""
    services = list(_services(script.commands, source, near))
    return _project(source.path, source, services) if services else None


def projects_of_readme(source: Source, near: Near) -> Iterator[Project]:
    """One for each block of commands in a Markdown text that starts an engine."""
    for block in _FENCE.finditer(source.text):
        if block["kind"].lower() not in _SHELL_KINDS or not STARTS_ENGINE.search(block["body"]):
            continue
        script = read_script(_typed(source, block.start("body"), block.end("body")), source)
        services = [one for one in _services(script.commands, source, near) if one.serves_llm]
        if services:
            yield _project(f"{source.path}:{services[0].line}", source, services)


def _typed(source: Source, start: int, end: int) -> list[Letter]:
    """What is typed in a block: prompts taken off."""
    made: list[Letter] = []
    for line in re.finditer(r"[^\n]*\n?", source.text[start:end]):
        prompt = re.match(r"\s*[$>#]\s(?=\S)", line[0])
        first = prompt.end() if prompt is not None and not line[0].lstrip().startswith("# ") else 0
        made += [Letter(char, start + line.start() + first + place) for place, char in enumerate(line[0][first:])]
    return made


def _project(name: str, source: Source, services: Sequence[Service]) -> Project:
    root = scalar(services[0].name_node, name)
    return Project(name=name, sources=(source,), root=root, services=tuple(_told_apart(services)), origin="script")


def _told_apart(services: Sequence[Service]) -> Iterator[Service]:
    """Names that stand several times get the line, and the round of a loop."""
    counts = Counter(service.name for service in services)
    seen: Counter[tuple[str, int]] = Counter()
    for service in services:
        seen[service.name, service.line] += 1
        number = seen[service.name, service.line]
        alone = counts[service.name] == 1
        suffix = "" if alone else f" (line {service.line}{f', round {number}' if number > 1 else ''})"
        yield replace(service, name=f"{service.name}{suffix}")


def _services(commands: Sequence[ShellCommand], source: Source, near: Near) -> Iterator[Service]:
    for outer in commands:
        if not outer.words or outer.words[0].text in _SPEAKS_ONLY:
            continue
        inner = _on_another_machine(outer) or commands_in(outer.words)
        for command in inner if len(inner) > 1 or inner[0].words != outer.words else (outer,):
            service = _container(command, source, near) or _program(command)
            if service is not None:
                yield _in_branch(service, outer.branch or _machine(outer))


def _on_another_machine(command: ShellCommand) -> tuple[ShellCommand, ...]:
    """What `ssh HOST "..."` runs there."""
    last = command.words[-1]
    if command.words[0].text != "ssh" or len(command.words) < 3 or " " not in last.text:
        return ()
    return read_script(last.letters, last.source).commands


def _machine(command: ShellCommand) -> str:
    """The machine that `ssh` names: what runs on two of them does not meet."""
    if command.words[0].text != "ssh":
        return ""
    named = (word.text for word in command.words[1:] if re.match(r"(?!-)[\w.@${}-]*[a-zA-Z}]", word.text))
    return next(named, "ssh")


def _container(command: ShellCommand, source: Source, near: Near) -> Service | None:
    files = {path: _settings(path, source, near) for path in env_files_of(command.words)}
    return container_of(command.words, files)


def _settings(path: str, source: Source, near: Near) -> dict[str, Setting]:
    found = near(path, source) if "${" not in path else None
    return env_settings(found) if found is not None else {}


def _program(command: ShellCommand) -> Service | None:
    """VLLM started on the machine itself."""
    if any(word.text.rpartition("/")[2] in {"docker", "podman", "nerdctl"} for word in command.words[:3]):
        return None  # of a container that something else made
    found = started_by(command)
    if found is None:
        return None
    near = word_node(found.program[0]) if found.program else word_node(command.words[0])
    form = Form(scalar(near, "vllm"))
    form.set("command", word_list(command.words, near))
    for word in found.environment.values():
        form.add("environment", value(word))
    model = found.text("--served-model-name") or found.model or "vllm"
    return Service(
        name=model.rpartition("/")[2] or "vllm",
        node=form.node(),
        name_node=scalar(near, near.text or ""),
        project=near.source.path,
        env_file={},
        on_host=True,
    )


def _in_branch(service: Service, branch: str) -> Service:
    """Arms of an `if` are not run together, which is what Compose's profiles say."""
    if not branch:
        return service
    profiles: Node = listing(service.node, [scalar(service.node, branch)])
    form = Form(service.node)
    for name, entry in service.node.entries.items():
        form.set(name, entry.value)
    form.set("profiles", profiles)
    return replace(service, node=form.node())
