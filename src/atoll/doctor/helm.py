"""Values of Helm charts: the engines that vLLM's own chart, production-stack's and llm-d's make of them."""

import re
from collections.abc import Iterator
from dataclasses import replace

from atoll.doctor.compose import Service
from atoll.doctor.form import Form, gpu_devices, scalar
from atoll.doctor.kubernetes import pod_specs, service_of
from atoll.doctor.tree import Node
from atoll.doctor.words import Word, word_list, words_of

_DEEPEST = 12
_ARGUMENTS = ("args", "extraArgs", "vllmArgs", "engineArgs", "serverArgs", "containerArgs")
_NO_OPTIONS = {"v0", "extraArgs", "enableLora", "enableLoRA"}  # keys of vllmConfig that become no option of that name


def looks_like_values(root: Node) -> bool:
    """Whether a YAML text holds a chart's values that name an engine."""
    if root.get("apiVersion") is not None or not root.is_map:
        return False
    return root.get("servingEngineSpec", "modelSpec") is not None or any(_named_images(root, 0)) or _has_model(root)


def _has_model(root: Node) -> bool:
    return root.get("modelArtifacts") is not None and any(True for _ in pod_specs(root))


def services_of_values(root: Node) -> tuple[Service, ...]:
    """The engines."""
    listed = root.get("servingEngineSpec", "modelSpec")
    if listed is not None:
        made = [_served(item) for item in listed.items if item.is_map and item.string("enabled") != "false"]
        return tuple(service for service in made if service is not None)
    found = [_of_image(holder, image) for holder, image in _named_images(root, 0)]
    return (*(service for service in found if service.vllm is not None), *_modelservice(root))


# production-stack ----------------------------------------------------------------------------------------------------


def _served(item: Node) -> Service | None:
    """An entry of `servingEngineSpec.modelSpec`."""
    repository, url = item.get("repository"), item.get("modelURL")
    if repository is None or url is None:
        return None
    near = item.get("name") or item
    config = item.get("vllmConfig")
    extra = config.get("extraArgs") if config is not None else None
    words = [_word(url, url.text or ""), *(_options(config) if config is not None else ()), *words_of(extra)]
    form = Form(scalar(near, near.text or ""))
    form.set("image", _image(repository, item.get("tag")))
    form.set("entrypoint", word_list([_word(near, "vllm"), _word(near, "serve")], near))
    form.set("command", word_list(words, near))
    gpu = item.get("requestGPU")
    if gpu is not None and gpu.text and gpu.text.isdecimal() and item.string("raySpec", "enabled") != "true":
        form.set("gpus", gpu_devices(gpu, count=gpu.text, allotted=True))
    _set_environment(form, item.get("env"))
    return Service(
        name=near.text or "engine",
        node=form.node(),
        name_node=near,
        project=item.source.path,
        env_file={},
    )


def _options(config: Node) -> Iterator[Word]:
    """`tensorParallelSize: 2` as `--tensor-parallel-size 2`; a switch for true, its opposite for false."""
    for key, node in config.pairs():
        if key in _NO_OPTIONS or not node.is_scalar or node.text is None:
            continue
        name = "--" + re.sub(r"([A-Z]+)", lambda match: f"-{match[1].lower()}", key)
        place = config.key(key) or node
        if node.tag == "bool":
            yield _word(place, name if node.text == "true" else name.replace("--", "--no-", 1))
        else:
            yield _word(place, name)
            yield _word(node, node.text)


def _word(node: Node, text: str) -> Word:
    """A word that stands near a value, which the chart, not the file, writes out."""
    source = scalar(node, text).source
    return Word(text=text, source=source, line=node.line, start=node.start, end=node.end, direct=False)


def _image(repository: Node, tag: Node | None) -> Node:
    """The whole name; a tag that is left out is the chart's own, its appVersion."""
    text = f"{repository.text}:{tag.text}" if tag is not None and tag.text else f"{repository.text}:${{appVersion}}"
    return scalar(tag or repository, text)


def _set_environment(form: Form, listed: Node | None) -> None:
    for item in listed.items if listed is not None else ():
        name, given = item.string("name"), item.get("value")
        if name and given is not None:
            form.put_in("environment", name, given)


# vLLM's chart, and others of its kind --------------------------------------------------------------------------------


def _named_images(node: Node, depth: int) -> Iterator[tuple[Node, Node]]:
    """What holds an `image: {repository, tag}` of vLLM, and that image."""
    if depth > _DEEPEST:
        return
    image = node.get("image")
    plain = image is not None and image.is_scalar and any(node.get(key) is not None for key in _ARGUMENTS)
    name = ((image.text if plain else image.string("repository")) or "") if image is not None else ""
    if image is not None and "vllm" in name and "router" not in name:
        yield node, image
    for child in (*(value for _, value in node.pairs()), *node.items):
        yield from _named_images(child, depth + 1)


def _of_image(holder: Node, image: Node) -> Service:
    repository = image.get("repository") or image
    form = Form(scalar(repository, repository.text or ""))
    form.set("image", _image(repository, image.get("tag")) if image.is_map else image)
    form.set("entrypoint", image.get("command") or holder.get("command"))
    args = next((holder.get(key) for key in _ARGUMENTS if holder.get(key)), None)
    form.set("command", args)
    limits = holder.get("resources", "limits") or holder.get("resources", "requests")
    gpu = limits.get("nvidia.com/gpu") if limits is not None else None
    if gpu is not None and gpu.text and gpu.text.isdecimal():
        form.set("gpus", gpu_devices(gpu, count=gpu.text, allotted=True))
    _set_environment(form, holder.get("env"))
    return Service(
        name=holder.string("name") or "vllm",
        node=form.node(),
        name_node=repository,
        project=repository.source.path,
        env_file={},
    )


# llm-d ---------------------------------------------------------------------------------------------------------------


def _modelservice(root: Node) -> Iterator[Service]:
    """Containers in the values themselves; with `modelCommand: vllmServe` the chart writes program and model."""
    model = root.get("modelArtifacts", "name")
    for spec, _ in pod_specs(root):
        containers = spec.get("containers")
        for container in containers.items if containers is not None else ():
            service = service_of(root, spec, container)
            serves = container.string("modelCommand") == "vllmServe"
            if service is None or not (serves or service.vllm is not None):
                continue
            yield _with_command(service, spec, container, model) if serves else service


def _with_command(service: Service, spec: Node, container: Node, model: Node | None) -> Service:
    near = container.get("modelCommand") or container
    form = Form(service.node)
    for name, entry in service.node.entries.items():
        form.set(name, entry.value)
    words = [_word(model, model.text or "")] if model is not None else []
    tensor = spec.get("parallelism", "tensor")
    if tensor is not None and tensor.text:
        words += [_word(tensor, "--tensor-parallel-size"), _word(tensor, tensor.text)]
    form.set("entrypoint", word_list([_word(near, "vllm"), _word(near, "serve")], near))
    form.set("command", word_list([*words, *words_of(container.get("args"))], near))
    return replace(service, node=form.node())
