"""What a request can be: endpoints, mixes of models, pictures, tools, fields that are left out, ids and sessions."""

import asyncio
import json
from collections import Counter

import pytest
import uvloop

from atoll.analyse.summary import summarise
from atoll.errors import BadTraffic, InputError
from atoll.load.conversations import read_conversations
from atoll.load.datasets import DatasetPrompts
from atoll.load.message import MessageWriter
from atoll.load.mix import ModelMix
from atoll.load.prompts import Made
from atoll.load.retry import wait_of
from atoll.load.run import measure_load
from atoll.load.target import Endpoint, ModelShare, RequestOptions, parse_target
from atoll.traffic.request import Request
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload
from atoll.workflows.asking import fields_of, models_of, refuse_two_names
from atoll.workflows.sending import targets_of

ASKED = Request(number=3, user=1, session=7, prompt_tokens=5, output_tokens=9)


def message(options, endpoint=Endpoint.CHAT, *, url="http://h:8000", ids=None, made=None):
    target, endpoint = parse_target(url, endpoint)
    writer = MessageWriter(target, endpoint, options, options.model or "m", ids=ids)
    head, _, body = writer.write(ASKED, made or Made(text=b"one two")).partition(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:]), json.loads(body)


def run(url, *, options=None, **load):
    async def story():
        workload = Workload(**({"users": 2, "requests": 6, "prompt": 8, "output": 4, "start": "at_once"} | load))
        return await measure_load(url, workload, options=options or RequestOptions(model="m"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(story())


@pytest.mark.parametrize(
    ("options", "there", "gone"),
    [
        ({"length_field": "max_completion_tokens"}, {"max_completion_tokens": 9}, {"max_tokens"}),
        ({"usage": False}, {"stream": True}, {"stream_options"}),
        ({"omit": ("max_tokens", "model", "min_tokens")}, {"ignore_eos": True}, {"max_tokens", "model", "min_tokens"}),
        ({"extra_body": {"top_p": 0.5, "x": 1}, "omit": ("x",)}, {"top_p": 0.5}, {"x"}),
    ],
)
def test_fields_can_be_renamed_and_left_out(options, there, gone):
    _, body = message(RequestOptions(**options))
    assert there.items() <= body.items()
    assert not gone & body.keys()


@pytest.mark.parametrize(
    ("endpoint", "path", "body"),
    [
        (Endpoint.RESPONSES, "/v1/responses", {"stream": True, "input": [{"role": "user", "content": "one two"}], "max_output_tokens": 9}),
        (Endpoint.EMBEDDINGS, "/v1/embeddings", {"input": "one two"}),
        (Endpoint.RERANK, "/v1/rerank", {"query": "one two", "documents": ["one", "two"]}),
        (Endpoint.SCORE, "/v1/score", {"text_1": "one two", "text_2": ["one", "two"]}),
    ],
)  # fmt: skip
def test_each_endpoint_has_its_own_words(endpoint, path, body):
    assert parse_target("http://h/v1", endpoint)[0].path == path
    assert parse_target(f"http://h{path}")[1] is endpoint
    assert message(RequestOptions(documents=2), endpoint)[1] == {"model": "m"} | body


def test_ids_sessions_and_the_urls_own_name_stand_in_the_head():
    options = RequestOptions(session_header="X-Session-Id")
    headers, _ = message(options, url="http://me:p%40w@h:8000", ids="run-")
    assert headers["X-Request-Id"] == "run-3"
    assert headers["X-Session-Id"] == "s7"  # the same in every run, as the simulator has it
    assert headers["Authorization"] == "Basic bWU6cEB3"
    with pytest.raises(InputError, match="Give one of the two"):
        refuse_two_names("http://me:pw@h", "key", None)


def test_pictures_are_shown_in_every_message(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    fields, images = fields_of(None, images=[str(tmp_path / "a.png"), "https://h/b.jpg"], tools=None, json_schema=None)
    _, body = message(RequestOptions(images=images, extra_body=fields))
    first, second, text = body["messages"][0]["content"]
    assert first["image_url"]["url"] == "data:image/png;base64,iVBORw=="
    assert second["image_url"]["url"] == "https://h/b.jpg"
    assert text == {"type": "text", "text": "one two"}
    with pytest.raises(InputError, match="There is no file"):
        fields_of(None, images=["nowhere.png"], tools=None, json_schema=None)


def test_tools_and_a_schema_come_from_files(tmp_path):
    (tmp_path / "tools.json").write_text('[{"type": "function", "function": {"name": "f"}}]')
    (tmp_path / "out put.json").write_text('{"type": "object"}')
    fields, _ = fields_of(
        '{"top_p": 0.9}', images=(), tools=tmp_path / "tools.json", json_schema=tmp_path / "out put.json"
    )
    assert fields["tools"][0]["function"]["name"] == "f"
    assert fields["response_format"]["json_schema"] == {"name": "out_put", "schema": {"type": "object"}}
    assert fields["top_p"] == 0.9
    with pytest.raises(InputError, match="no list of tools"):
        fields_of(None, images=(), tools=tmp_path / "out put.json", json_schema=None)


def test_a_mix_keeps_its_shares_and_a_session_its_model():
    assert models_of(["a=3", "b"]) == (ModelShare(name="a", share=3.0), ModelShare(name="b"))
    assert models_of(["x=y"]) == (ModelShare(name="x=y"),)
    for wrong in (["a", "a"], ["a=0"], ["a=nan"], ["=1"]):
        with pytest.raises(InputError, match="--model"):
            models_of(wrong)
    mix = ModelMix(models_of(["a=3", "b"]), seed=1)
    asked = Counter(mix.model_of(Request(number=n, user=0, prompt_tokens=1, output_tokens=1)) for n in range(4000))
    assert 0.72 < asked["a"] / 4000 < 0.78
    turns = {mix.model_of(Request(number=n, user=0, session=5, prompt_tokens=1, output_tokens=1)) for n in range(20)}
    assert len(turns) == 1
    assert ModelMix((), seed=1).model_of(ASKED) is None


def test_who_was_asked_and_by_which_id_stands_in_the_record(naughty):
    models = (ModelShare(name="base"), ModelShare(name="lora"))
    result = run(naughty.url, options=RequestOptions(model="base", models=models, request_ids="t-"), requests=20)
    asked = {head.split("X-Request-Id: ")[1].split("\r")[0]: body["model"] for head, body in sent(naughty)}
    assert dict(zip(result.table.request_id, result.table.model, strict=True)) == asked
    assert {part.model for part in summarise(result.table).per_model} == {"base", "lora"}


def sent(naughty):
    """Heads and bodies of the load; the one request that was sent to learn an answer's time has no id."""
    heads = [head for head in naughty.heads if head.startswith("POST") and "X-Request-Id" in head]
    return zip(heads, naughty.asked[-len(heads) :], strict=True)


@pytest.mark.parametrize("endpoint", [one for one in Endpoint if one not in {Endpoint.CHAT, Endpoint.COMPLETIONS}])
def test_other_endpoints_are_answered_and_counted(naughty, endpoint):
    naughty.manner = "other_endpoints"
    summary = summarise(run(naughty.url, options=RequestOptions(model="m", endpoint=endpoint)).table)
    assert (summary.requests.ok, summary.failures, summary.counted_from_chunks) == (6, (), 0)
    assert summary.e2e_s.p50 > 0
    assert (summary.ttft_s.p50 is not None) == (endpoint is Endpoint.RESPONSES)


def test_a_failed_response_says_why(naughty):
    naughty.manner = "failed_response"
    result = run(naughty.url, options=RequestOptions(model="m", endpoint=Endpoint.RESPONSES))
    assert set(result.table.error) == {"stream_error"}
    assert set(result.table.detail) == {"the engine is dead"}


def test_who_is_told_to_wait_waits_and_is_counted_apart(naughty):
    naughty.manner = "told_to_wait"
    result = run(naughty.url, options=RequestOptions(model="m", retries=10))
    summary = summarise(result.table)
    assert (summary.requests.ok, summary.requests.failed) == (6, 0)
    assert summary.remarks["retried"] == int(result.table.retried.sum()) == 6
    assert (result.table.first_token_s - result.table.sent_s >= 0.01).all()  # the pause is in it
    refused = run(naughty.url, options=RequestOptions(model="m", retries=0))
    assert set(refused.table.error) == {"http_429"}


@pytest.mark.parametrize(
    ("said", "wait"),
    [
        *[("2", 2.0), ("0.5", 0.5), ("-3", 0.0), ("1e9", 300.0), ("Thu, 01 Jan 1970 00:01:40 GMT", 40.0)],
        *[("soon", None), ("nan", None), ("", None)],
    ],
)
def test_when_to_come_again(said, wait):
    assert wait_of(said, wall=60.0) == wait


def made(tmp_path, name, text, **more):
    path = tmp_path / name
    path.write_text(text)
    prompts = DatasetPrompts(read_conversations(path), origin=name, seed=1, **more)
    return prompts, prompts.make(Request(number=0, user=0, prompt_tokens=5, output_tokens=9))


ROWS = {
    "aiperf": '{"text": "hi", "output_length": 5}',
    "vllm": '{"prompt": "hi", "output_tokens": 5}',
    "alpaca": '{"instruction": "hi", "input": "", "output": "twenty letters long."}',
    "batch": '{"custom_id": "0", "body": {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}}',
    "chat": '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "twenty letters long."}]}',
    "bom": '\ufeff{"prompt": "hi", "max_completion_tokens": "5"}',
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_lengths_of_answers_are_known_by_the_names_that_data_sets_use(tmp_path, row):
    prompts, one = made(tmp_path, "rows.jsonl", row, own_output=True)
    assert (one.text, one.output_tokens, prompts.note) == (b"hi", 5, None)


def test_lengths_that_are_missing_are_told_of(tmp_path):
    assert made(tmp_path, "a.csv", "\ufeffprompt\nhi\n", own_output=True)[0].note == "no lengths in a.csv"
    some = '{"prompt": "a"}\n{"prompt": "b", "osl": 3}'
    assert made(tmp_path, "b.jsonl", some, own_output=True)[0].note == "no length in 1 of 2 rows in b.jsonl"
    csv = made(tmp_path, "c.csv", "prompt,output_tokens_count\nhi,7\n", own_output=True)
    assert csv[1].output_tokens == 7


def test_messages_tools_and_fields_are_sent_as_they_are(tmp_path):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "what"}, {"type": "input_audio", "input_audio": {}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "type": "function", "function": {}}]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    row = {"messages": messages, "tools": [{"type": "function"}], "temperature": 0, "id": 7, "max_tokens": 3}
    _, one = made(tmp_path, "rows.jsonl", json.dumps(row))
    _, body = message(RequestOptions(temperature=0.5), made=one)
    assert body["messages"] == messages
    assert body["tools"] == [{"type": "function"}]
    assert body["temperature"] == 0
    assert body["max_tokens"] == 9
    assert "id" not in body


def test_a_picture_beside_the_data_is_sent_and_a_missing_one_refused(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"JPG")
    _, one = made(tmp_path, "rows.jsonl", '{"prompt": "describe", "image": "x.jpg"}')
    assert message(RequestOptions(), made=one)[1]["messages"][0]["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,SlBH"}},
        {"type": "text", "text": "describe"},
    ]
    with pytest.raises(BadTraffic, match=r"line 1: its image cannot be sent: There is no file .*y.png"):
        made(tmp_path, "rows.jsonl", '{"prompt": "describe", "image": "y.png"}')


def test_the_same_prompts_come_in_another_order_with_another_seed(tmp_path):
    prompts, _ = made(tmp_path, "rows.jsonl", "\n".join(json.dumps({"prompt": f"p{n}"}) for n in range(50)))

    def order(one):
        return [one.make(Request(number=n, user=0, prompt_tokens=1, output_tokens=1)).text for n in range(50)]

    assert order(prompts.with_seed(2)) != order(prompts)
    assert sorted(order(prompts.with_seed(2))) == sorted(order(prompts))


def test_targets_of_single_models_are_named_beside_those_of_all():
    slo, own = targets_of(SLO(tpot_s=0.05), "1s,small=200ms", "small=20ms", ["large", "small"])
    assert slo == SLO(ttft_s=1.0, tpot_s=0.05)
    assert own == {"small": SLO(ttft_s=0.2, tpot_s=0.02)}
    assert targets_of(None, "small=1s", None, ["small"]) == (None, {"small": SLO(ttft_s=1.0)})
    assert targets_of(None, "250ms", None, []) == (SLO(ttft_s=0.25), {})
    for wrong, said in (("other=1s", "of a model that is not asked"), ("1s,", "duration"), ("small=", "duration")):
        with pytest.raises(InputError, match=said):
            targets_of(None, wrong, None, ["small"])
