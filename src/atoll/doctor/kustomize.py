"""Kustomizations: the names, tags and digests that they put in place of those in the manifests."""

import posixpath
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from atoll.doctor.form import scalar
from atoll.doctor.image import parse_image
from atoll.doctor.tree import Node

_KINDS = {"Kustomization", "Component"}
_LISTS = ("resources", "bases", "components", "patchesStrategicMerge")
_DEEPEST = 20  # kustomizations that name each other


def is_kustomization(node: Node) -> bool:
    """By its kind, or (it may be left out) by its file's name."""
    named = node.source.name in {"kustomization.yaml", "kustomization.yml", "Kustomization"}
    return node.string("kind") in _KINDS or (named and node.get("kind") is None and node.is_map)


def image_in(image: Node | None, manifests: Sequence[Node]) -> Node | None:
    """The image of a container as the kustomizations that bring its file name it; its tag is open where they differ.

    Args:
        image: as it stands in the manifest.
        manifests: all that were read, kustomizations among them.
    """
    if image is None or not image.text or not image.known:
        return image
    over = [one for one in manifests if is_kustomization(one) and _brings(one, image.file, manifests, 0)]
    named = {text for one in over if (text := _renamed(image.text, one)) is not None}
    if not named:
        return image
    text = next(iter(named)) if len(named) == 1 else f"{parse_image(image.text).path}:${{TAG}}"
    return replace(scalar(image, text), raw=text)


def _renamed(text: str, kustomization: Node) -> str | None:
    """The name that the entry of `images:` for it makes; None where there is none."""
    image, listed = parse_image(text), kustomization.get("images")
    for item in listed.items if listed is not None else ():
        if item.string("name") != image.path:
            continue
        path, tag, digest = item.string("newName") or image.path, item.string("newTag"), item.string("digest")
        path = path if "vllm-openai" in path or "vllm-openai" not in image.path else image.path  # a copy of it
        if digest is not None:
            return f"{path}@{digest}"
        kept = f"@{image.digest}" if image.digest is not None and tag is None else ""
        return f"{path}:{tag or image.tag}{kept}" if tag or image.tag else f"{path}{kept}"
    return None


def is_patched(kustomization: Node) -> bool:
    return any(kustomization.get(key) is not None for key in ("patches", "patchesJson6902", "replacements"))


def is_understood(kustomization: Node, manifests: Sequence[Node], files: Collection[str]) -> bool:
    """Whether all that it does to these files was looked at: it names images; what it patches is not put in."""
    return not is_patched(kustomization) and any(_brings(kustomization, path, manifests, 0) for path in files)


def _brings(kustomization: Node, path: str, manifests: Sequence[Node], depth: int) -> bool:
    """Whether a file is among what it names, by itself or through the kustomization of a folder."""
    if depth > _DEEPEST:
        return False
    for place in _named(kustomization):
        if place == path:
            return True
        inner = (one for one in manifests if is_kustomization(one) and one.source.folder == place)
        if any(_brings(one, path, manifests, depth + 1) for one in inner):
            return True
    return False


def _named(kustomization: Node) -> Iterator[str]:
    for name in _LISTS:
        listed = kustomization.get(name)
        for item in listed.items if listed is not None else ():
            if item.text:
                yield posixpath.normpath(posixpath.join(kustomization.source.folder, item.text))
