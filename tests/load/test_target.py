"""What users write as a URL, and the bytes that come of it."""

import json

import pytest

from atoll.errors import InputError
from atoll.load.message import MessageWriter
from atoll.load.prompts import Made
from atoll.load.target import Endpoint, RequestOptions, parse_target, url_to_keep
from atoll.traffic.request import Request


@pytest.mark.parametrize(
    ("url", "path", "models", "port"),
    [
        ("localhost:8000", "/v1/chat/completions", "/v1/models", 8000),
        ("http://10.0.0.1", "/v1/chat/completions", "/v1/models", 80),
        ("http://h:8000/", "/v1/chat/completions", "/v1/models", 8000),
        ("http://h:8000/v1", "/v1/chat/completions", "/v1/models", 8000),
        ("http://h:8000/v1/", "/v1/chat/completions", "/v1/models", 8000),
        ("http://h:8000/openai/v1", "/openai/v1/chat/completions", "/openai/v1/models", 8000),
        ("http://h:8000/v1/chat/completions", "/v1/chat/completions", "/v1/models", 8000),
        ("https://h/v1/completions", "/v1/completions", "/v1/models", 443),
        ("http://[::1]:9/v1?key=a", "/v1/chat/completions?key=a", "/v1/models", 9),
    ],
)
def test_urls_as_people_write_them(url, path, models, port):
    target, _ = parse_target(url)
    assert (target.path, target.models_path, target.port) == (path, models, port)


def test_the_path_decides_the_endpoint_unless_it_is_named():
    assert parse_target("http://h/v1/completions")[1] is Endpoint.COMPLETIONS
    assert parse_target("http://h/v1")[1] is Endpoint.CHAT
    target, endpoint = parse_target("http://h/v1", Endpoint.COMPLETIONS)
    assert (target.path, endpoint) == ("/v1/completions", Endpoint.COMPLETIONS)


@pytest.mark.parametrize("url", ["", "ftp://h", "http://", "http://h:port", "http://h:99999"])
def test_what_is_no_url_is_refused_in_one_sentence(url):
    with pytest.raises(InputError, match="Write it like"):
        parse_target(url)


def message(options, endpoint=Endpoint.CHAT, text=b"hello", history=b"", **more):
    target, endpoint = parse_target("http://h:8000", endpoint)
    writer = MessageWriter(target, endpoint, options, options.model or "m")
    request = Request(number=0, user=0, prompt_tokens=5, output_tokens=9)
    head, _, body = writer.write(request, Made(text=text, **more), history).partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert int(headers["Content-Length"]) == len(body)
    return headers, json.loads(body)


def test_a_chat_request_asks_for_a_stream_of_exact_length_with_usage():
    headers, body = message(RequestOptions(model="the model", api_key="secret"))
    assert body == {
        "model": "the model",
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": 9,
        "min_tokens": 9,
        "ignore_eos": True,
    }
    assert headers["Authorization"] == "Bearer secret"
    assert headers["Host"] == "h:8000"


def test_completions_without_stream_and_with_own_fields():
    options = RequestOptions(stream=False, exact_output=False, temperature=0.5, extra_body={"top_p": 0.9})
    _, body = message(options, Endpoint.COMPLETIONS)
    assert body == {
        "model": "m",
        "stream": False,
        "temperature": 0.5,
        "top_p": 0.9,
        "prompt": "hello",
        "max_tokens": 9,
    }


def test_own_headers_win():
    headers, _ = message(RequestOptions(headers={"host": "other", "X-Team": "a"}))
    assert headers["host"] == "other"
    assert "Host" not in headers
    assert headers["X-Team"] == "a"


def test_history_comes_before_what_is_said_now():
    _, body = message(RequestOptions(), history=b'{"role":"user","content":"a"},{"role":"assistant","content":"b"},')
    assert [said["content"] for said in body["messages"]] == ["a", "b", "hello"]


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://me:pw@host:80/v1?key=x", "http://host:80/v1"),
        ("me:pw@host:8000", "host:8000"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1"),
        ("http://[::1", "http://[::1"),
        ("host:8000", "host:8000"),
    ],
)
def test_what_is_secret_in_a_url_is_not_kept(url, kept):
    assert url_to_keep(url) == kept


def test_a_bracket_that_is_not_closed_is_no_url():
    with pytest.raises(InputError, match="is no URL of a server"):
        parse_target("http://[::1")
