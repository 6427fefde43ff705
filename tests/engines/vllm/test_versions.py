import pytest

from atoll.engines.vllm.versions import parse_version
from atoll.errors import InputError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0.10.1rc2", (0, 10, 1)),
        ("v0.8.5", (0, 8, 5)),
        ("0.9", (0, 9, 0)),
        ("0.11.0+cu129", (0, 11, 0)),
        ("v0.10.1.post2", (0, 10, 1)),
        ("v0.8.5-x86_64", (0, 8, 5)),
    ],
)
def test_versions(text, numbers):
    assert parse_version(text) == numbers


@pytest.mark.parametrize("text", ["latest", "nightly", "7", "", "sha-1234"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(InputError, match="is no vLLM version; write it like"):
        parse_version(text)
