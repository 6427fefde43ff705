"""What the requests of a load test are, out of a person's words: key, models, fields, headers, limits of time."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from math import inf
from pathlib import Path

from atoll.errors import InputError
from atoll.load.target import Endpoint, ModelShare, RequestOptions, Timeouts, password_of
from atoll.outside.files import read_text
from atoll.outside.processes import hide_argument
from atoll.outside.shell import environment
from atoll.units import parse_seconds

MOST_RETRIES = 10  # of one request; then its refusal stands


def refuse_two_names(url: str, key: str | None, file: Path | None) -> None:
    """A name and a password in the URL are sent (HTTP Basic); a key beside them would be a second answer to who asks.

    Raises:
        InputError: both are given.
    """
    if password_of(url) and (key is not None or file is not None):
        raise InputError("The URL has a name and a password, and an API key is given beside them. Give one of the two.")


def key_of(
    given: str | None,
    file: Path | None,
    *,
    say: Callable[[str], None],
    variables: Sequence[str] = ("ATOLL_API_KEY", "OPENAI_API_KEY"),
) -> str | None:
    """The API key: of a file, of the command line (which says who can see it there), or of the first variable set.

    Raises:
        InputError: both are given, the file cannot be read, or what is there is no key.
    """
    if file is not None:
        if given is not None:
            raise InputError("--api-key and --api-key-file are two ways to say one thing. Give one.")
        return _one_key(read_text(file).strip(), str(file))
    if given is not None:
        hide_argument(given)
        hiding = f"--api-key-file and {variables[0]} hide it"
        say(f"--api-key stands in the shell's history, and stood in `ps` for a moment; {hiding}.")
        return _one_key(given, "--api-key")
    found = environment()
    return next((_one_key(found[name], name) for name in variables if found.get(name)), None)


def _one_key(text: str, place: str) -> str:
    """The text, which goes into a header: no line ends, no blanks, no bytes that are no text."""
    if not text or any(letter.isspace() or not letter.isprintable() for letter in text):
        raise InputError(f"{place} is expected to hold one key and nothing else.")
    return text


def models_of(given: Sequence[str]) -> tuple[ModelShare, ...]:
    """`a`, or several as `a=0.7 b=0.3`; the share is 1 where none is said.

    Raises:
        InputError: a share is none, or a name comes twice.
    """
    models = []
    for text in given:
        name, mark, share = text.rpartition("=")
        try:
            models.append(ModelShare(name=name, share=float(share)) if mark else ModelShare(name=text))
        except ValueError:
            models.append(ModelShare(name=text))  # an equals sign of its own
        if not 0 < models[-1].share < inf or not models[-1].name:
            raise InputError(f"--model {text}: a share is above 0, such as --model base=0.7 --model adapter=0.3.")
    if len({model.name for model in models}) < len(models):
        raise InputError("--model names one model twice. Give each of several models once, with its share.")
    return tuple(models)


def fields_of(
    extra_body: str | None, *, images: Sequence[str], tools: Path | None, json_schema: Path | None
) -> tuple[dict[str, object], tuple[str, ...]]:
    """Further fields of every request, and the URLs of pictures that every message shows.

    Raises:
        InputError: a file is not there, or holds something else.
    """
    fields = _json_object(extra_body, "--extra-body") if extra_body else {}
    if tools is not None:
        listed = _json_of(read_text(tools), str(tools))
        if not isinstance(listed, list):
            raise InputError(f'{tools} is no list of tools. Write it like [{{"type": "function", ...}}].')
        fields["tools"] = listed
    if json_schema is not None:
        schema = _json_object(read_text(json_schema), str(json_schema))
        wanted = {"name": re.sub(r"[^A-Za-z0-9_-]", "_", json_schema.stem), "schema": schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": wanted}
    from atoll.load.conversations import image_url

    return fields, tuple(image_url(given, Path()) for given in images)


def asking_of(
    *,
    models: tuple[ModelShare, ...],
    endpoint: str | None,
    stream: bool,
    exact_output: bool,
    api_key: str | None,
    headers: Sequence[str],
    fields: Mapping[str, object],
    images: tuple[str, ...],
    documents: int,
    length_field: str,
    usage: bool,
    omit: Sequence[str],
    session_header: str | None,
    request_ids: str | None,
    retry_after: bool,
    script: str,
    connect_timeout: str,
    token_timeout: str,
    timeout: str | None,
    insecure: bool,
    ca_file: str | None,
    proxy: str | None,
    replica_header: str,
    certificate: str | None = None,
) -> RequestOptions:
    """The RequestOptions of a command line."""
    if endpoint is not None and endpoint not in set(Endpoint):
        raise InputError(f"--endpoint {endpoint} is not one of {', '.join(Endpoint)}.")
    if session_header is not None:
        _header(f"{session_header}: x")
    if request_ids is not None and not re.fullmatch(r"[!-~]*", request_ids):
        raise InputError(f"--request-ids {request_ids!r} does not fit into a header.")
    if not re.fullmatch(r"\w+", length_field):
        raise InputError(f"--length-field {length_field!r} is no field's name. Write max_completion_tokens.")
    return RequestOptions(
        model=models[0].name if models else None,
        models=models if len(models) > 1 else (),
        endpoint=None if endpoint is None else Endpoint(endpoint),
        stream=stream,
        exact_output=exact_output,
        api_key=api_key,
        headers=dict(_header(text) for text in headers),
        extra_body=fields,
        images=images,
        documents=documents,
        length_field=length_field,
        usage=usage,
        omit=tuple(omit),
        session_header=session_header,
        request_ids=request_ids,
        retries=MOST_RETRIES if retry_after else 0,
        script=script,
        timeouts=Timeouts(
            connect_s=parse_seconds(connect_timeout),
            token_s=parse_seconds(token_timeout),
            request_s=None if timeout is None else parse_seconds(timeout),
        ),
        verify_tls=not insecure,
        ca_file=ca_file,
        certificate=certificate,
        proxy=proxy,
        replica_header=replica_header,
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    is_token = re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name.strip()) is not None
    if not colon or not is_token or not value.replace("\t", "").isprintable():
        raise InputError(f"--header {text!r} is no header. Write it like 'X-Name: value'.")
    return name.strip(), value.strip()


def _json_of(text: str, what: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        raise InputError(f"{what} is no JSON: {error}.") from None


def _json_object(text: str, what: str) -> dict[str, object]:
    plain = _json_of(text, what)
    if not isinstance(plain, dict):
        raise InputError(f"{what} is no JSON object. Write it like '{{\"top_p\": 0.9}}'.")
    return plain
