"""Names of images: what a registry knows is taken with its digest, whatever else is refused before it is written."""

import pytest

from atoll.errors import InputError
from atoll.render.reference import check_image

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "name",
    [
        "nginx", "nginx:1.31.3-alpine", "vllm/vllm-openai:v0.32.0", f"vllm/vllm-openai:v0.32.0@{DIGEST}", f"nginx@{DIGEST}",
        "registry.lan:5000/team/vllm_cpu:1", "localhost/a", "[::1]:5000/a/b--c:x", "192.168.0.4:80/x", "local/atoll:test",
    ],
)  # fmt: skip
def test_a_name_that_a_registry_knows_is_taken_as_it_is(name):
    assert check_image(name, option="--image") == name


@pytest.mark.parametrize(
    "text",
    ["", "-v", "--help", "x y", "a\nb", "a\n", "$(id)", "${X}", "A/B", "a:", "a@sha256:1", f"a@{DIGEST}0", "a//b", "a:b c", "a" * 5000],
)  # fmt: skip
def test_what_is_no_name_is_refused_in_a_sentence(text):
    with pytest.raises(InputError, match=r"^--image '.* is no name of an image; write it like"):
        check_image(text, option="--image")
