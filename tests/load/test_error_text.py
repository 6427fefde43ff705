"""The sentence of an error, in every shape that servers give it."""

import json

import pytest

from atoll.load.error_text import error_text

SAID = "max_tokens must be at least 1"


@pytest.mark.parametrize(
    "plain",
    [
        {"error": {"message": SAID, "type": "BadRequestError", "param": None, "code": 400}},
        {"error": SAID},
        {"object": "error", "message": SAID, "code": 400},
        {"detail": SAID},
        {"detail": {"error": SAID}},
        {"errors": [SAID]},
        {"errors": [{"message": SAID}]},
        [{"error": {"message": SAID, "status": "INVALID_ARGUMENT"}}],
        {"timestamp": 1, "status": 400, "error": "Bad Request", "message": SAID},
        {"type": "about:blank", "title": "Bad Request", "status": 400, "detail": SAID},
        {"fault": {"faultstring": SAID}},
        {"error": {"error": {"message": SAID}}},
        {"error_message": SAID},
        SAID,
    ],
)
def test_the_sentence_is_found_in_json(plain):
    assert error_text(json.dumps(plain).encode()) == SAID


def test_fields_of_a_validation_error_are_named():
    detail = [{"type": "extra_forbidden", "loc": ["body", "min_tokens"], "msg": "Extra inputs are not permitted"}]
    assert error_text(json.dumps({"detail": detail}).encode()) == "Extra inputs are not permitted: body.min_tokens"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"<html><head><title>502 Bad Gateway</title></head><body>...</body></html>", "502 Bad Gateway"),
        (b"upstream connect error", "upstream connect error"),
        (b"", ""),
        (b'{"error": {"code": 7, "type": "x"}}', '{"code": 7, "type": "x"}'),
        (b'{"ok": false}', '{"ok": false}'),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_pages_and_plain_text_and_what_has_no_sentence(body, said):
    assert error_text(body) == said


def test_a_long_sentence_is_cut():
    assert len(error_text(json.dumps({"error": "x" * 10_000}).encode())) == 500
