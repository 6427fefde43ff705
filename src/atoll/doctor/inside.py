"""What a container finds at a path: files that mounts, `configs:` and the Dockerfile's COPY put there."""

import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from atoll.doctor.compose import Service
from atoll.doctor.launch import commands_in, first_started
from atoll.doctor.shell import ShellCommand, plain_letters, read_script
from atoll.doctor.tree import Node, Source, cut_out, read_yaml
from atoll.doctor.vllm import VllmCommand
from atoll.doctor.words import Word, words_of
from atoll.errors import BadDocument

Reader = Callable[[str, Source], Source | None]  # (name as written, the file that names it) -> that file


@dataclass(frozen=True, kw_only=True)
class Inside:
    """The files of one service's container that lie here."""

    service: Service
    root: Node  # the project, for its `configs:`
    read: Reader
    copied: Mapping[str, str] = field(default_factory=dict)  # path in the image -> path as the context has it
    context: str = ""

    def file(self, path: str) -> Source | None:
        """The file at this path of the container; None when nothing here puts one there."""
        for mount in self.service.mounts:
            beneath = path.removeprefix(mount.target.rstrip("/"))
            if mount.kind == "bind" and mount.source is not None and (beneath == "" or beneath.startswith("/")):
                return self.read(mount.source + beneath, mount.node.source)
        configured = next((source for target, source in self.configs() if target == path), None)
        return configured or self._copied(path)

    def _copied(self, path: str) -> Source | None:
        for place, origin in self.copied.items():
            beneath = path.removeprefix(place.rstrip("/"))
            if beneath == "" or (beneath.startswith("/") and beneath != path):
                return self.read(posixpath.join(self.context, origin + beneath), self.service.node.source)
        return None

    def configs(self) -> Iterator[tuple[str, Source]]:
        """The files of `configs:` by the path at which they appear."""
        listed = self.service.get("configs")
        for item in listed.items if listed is not None else ():
            name = (item.string("source") if item.is_map else item.text) or ""
            target = (item.string("target") if item.is_map else None) or f"/{name}"
            said = self.root.get("configs", name)
            path, content = (said.string("file"), said.get("content")) if said is not None else (None, None)
            source = self.read(path, said.source) if said is not None and path else None
            if content is not None and content.text is not None:
                source = inline_source(content)
            if source is not None:
                yield target, source


def inline_source(content: Node) -> Source:
    """The text of a `content:`, where it stands in the Compose file; Compose's `$$` is one dollar in it."""
    inner = cut_out(content.source, content.start, content.end)
    head = inner.text.find("\n", content.start) if content.style in {"|", ">"} else content.start
    blank = "".join(char if char == "\n" else " " for char in inner.text[:head])
    text = blank + inner.text[head:]
    return Source(content.source.path, text.replace("$$", "$"), fixable=False)


def config_options(inside: Inside, path: str) -> Node | None:
    """The options in the file that vLLM's --config names."""
    source = inside.file(path)
    try:
        roots = read_yaml(replace(source, fixable=False)) if source is not None else ()
    except BadDocument:
        return None  # vLLM says so itself
    return roots[0] if roots and roots[0].is_map else None


def launched_by_script(inside: Inside) -> VllmCommand | None:
    """The vLLM that a container's own script starts, with the arguments that reach it."""
    service = inside.service
    words = (*words_of(service.get("entrypoint")), *words_of(service.get("command")))
    for place, word in enumerate(words[:6]):
        if "/" not in word.text or " " in word.text or word.text.startswith("-"):
            continue
        found = started_in(inside.file(_absolute(word.text, service)), words[place + 1 :], service.given_variables)
        if found is not None:
            return found
    for command in commands_in(words):  # sh -c "/start.sh --x"
        found = _started_by_call(command, inside)
        if found is not None:
            return found
    return None


def _started_by_call(command: ShellCommand, inside: Inside) -> VllmCommand | None:
    for place, word in enumerate(command.words[:3]):
        if "/" in word.text and not word.text.startswith("-"):
            found = started_in(inside.file(_absolute(word.text, inside.service)), command.words[place + 1 :])
            if found is not None:
                return found
    return None


def _absolute(path: str, service: Service) -> str:
    return posixpath.normpath(posixpath.join(service.string("working_dir") or "/", path))


def started_in(
    source: Source | None, arguments: Sequence[Word], given: Mapping[str, str] | None = None
) -> VllmCommand | None:
    """The vLLM that a script starts with these arguments and variables."""
    if source is None or "vllm" not in source.text:
        return None
    return first_started(read_script(plain_letters(source), source, arguments, given=given).commands)
