"""Ray Serve's configurations of language models: each of `llm_configs` as an engine."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from atoll.doctor.compose import Project, Service
from atoll.doctor.form import Form, scalar
from atoll.doctor.inside import inline_source
from atoll.doctor.launch import config_words, made_of
from atoll.doctor.tree import Node, read_yaml
from atoll.doctor.words import Word
from atoll.errors import BadDocument


def serve_configs(manifests: Sequence[Node]) -> Iterator[Node]:
    """What RayService objects carry as text in `serveConfigV2`."""
    for manifest in manifests:
        text = manifest.get("spec", "serveConfigV2") if manifest.string("kind") == "RayService" else None
        if text is None or text.text is None:
            continue
        try:
            yield from read_yaml(inline_source(text))
        except BadDocument:
            continue  # Ray says so itself


def ray_projects(roots: Sequence[Node]) -> Iterator[Project]:
    """One project for each configuration that serves language models."""
    for root in roots:
        applications = root.get("applications")
        services = [
            service
            for application in (applications.items if applications is not None else ())
            for service in _services(application)
        ]
        if services:
            source = services[0].name_node.source
            yield Project(name=source.path, sources=(source,), root=root, services=tuple(services), origin="ray")


def _services(application: Node) -> Iterator[Service]:
    listed = application.get("args", "llm_configs")
    for config in listed.items if listed is not None else ():
        if not config.is_map:
            continue  # the name of another file
        name = config.get("model_loading_config", "model_id") or config
        model = config.get("model_loading_config", "model_source") or name
        options = config.get("engine_kwargs")
        words = [_word(model)] if model.text else []
        for key, value in options.pairs() if options is not None else ():
            assert options is not None
            words += [replace(word, direct=False) for word in config_words(key, value, options)]
        yield Service(
            name=name.text or "llm",
            node=Form(scalar(name, name.text or "")).node(),
            name_node=scalar(name, name.text or ""),
            project=config.source.path,
            env_file={},
            launched=made_of(words),
        )


def _word(node: Node) -> Word:
    near = scalar(node, node.text or "")
    return Word(text=node.text or "", source=near.source, line=node.line, start=node.start, end=node.end, direct=False)
