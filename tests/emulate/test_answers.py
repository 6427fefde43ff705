"""What is asked of an answer is in it: tool calls, JSON, several choices, probabilities, token ids, other APIs."""

import base64
import json
import re
import struct

import httpx
import jsonschema
import pytest

from atoll.emulate.replica import blueprint_of
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import read_model
from stand_ins.patience import PATIENCE_S

HELLO = [{"role": "user", "content": "what is the weather in Rome"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


def tool(name: str) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": SCHEMA}}


@pytest.fixture
def url(replica):
    return replica(step_s=0.0, max_model_len=4096).url


def post(url: str, path: str, body: dict, **headers: str) -> httpx.Response:
    return httpx.post(f"{url}{path}", json=body, headers=headers, timeout=PATIENCE_S, trust_env=False)


def chat(url: str, **fields) -> dict:
    answer = post(url, "/v1/chat/completions", {"messages": HELLO} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def events(text: str) -> list[dict]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def stream(url: str, **fields) -> list[dict]:
    answer = post(url, "/v1/chat/completions", {"messages": HELLO, "stream": True} | fields)
    assert answer.text.endswith("data: [DONE]\n\n")
    return [event["choices"][0] for event in events(answer.text) if event["choices"]]


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("required", "tool_calls"), ("auto", "tool_calls"), ({"type": "function", "function": {"name": "b"}}, "stop")],
)
def test_a_tool_is_called_with_arguments_that_satisfy_its_schema(url, choice, reason):
    asked = {"tools": [tool("a"), tool("b")], "tool_choice": choice}
    whole = chat(url, **asked)["choices"][0]
    assert whole["finish_reason"] == reason
    function = whole["message"]["tool_calls"][0]["function"]
    assert function["name"] == ("b" if reason == "stop" else "a")
    jsonschema.validate(json.loads(function["arguments"]), SCHEMA)
    chunks = stream(url, **asked)
    calls = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", ())]
    assert calls[0]["function"]["name"] == function["name"]
    assert "".join(call["function"].get("arguments", "") for call in calls) == function["arguments"]
    assert chunks[-1]["finish_reason"] == reason


def test_a_tools_result_is_answered_in_words_and_required_calls_come_to_an_end(url):
    call = {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    turn = [
        *HELLO,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sun"},
    ]
    assert chat(url, messages=turn, tools=[tool("a")])["choices"][0]["message"].get("tool_calls") is None
    second = chat(url, messages=turn, tools=[tool("a"), tool("done")], tool_choice="required")["choices"][0]
    assert second["message"]["tool_calls"][0]["function"]["name"] == "done"


def test_an_answer_that_must_be_long_calls_no_tool(url):
    choice = chat(url, tools=[tool("a")], max_tokens=50, ignore_eos=True)
    assert choice["usage"]["completion_tokens"] == 50
    assert choice["choices"][0]["message"].get("tool_calls") is None


def test_a_call_that_is_cut_before_its_name_is_none(url):
    whole = chat(url, tools=[tool("a")], tool_choice="required", max_tokens=1)["choices"][0]
    assert (whole["finish_reason"], whole["message"].get("tool_calls"), whole["message"]["content"]) == (
        "length",
        None,
        "",
    )


def test_a_json_schema_is_kept_whole_and_streamed_and_cut_by_the_limit(url):
    asked = {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}}
    whole = chat(url, **asked)
    text = whole["choices"][0]["message"]["content"]
    jsonschema.validate(json.loads(text), SCHEMA)
    assert whole["choices"][0]["finish_reason"] == "stop"
    chunks = stream(url, **asked)
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == text
    assert len(chunks) > 5
    cut = chat(url, max_tokens=4, **asked)
    assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 4)
    assert text.startswith(cut["choices"][0]["message"]["content"])


def test_reasoning_is_given_where_it_is_asked_for(url):
    asked = {"chat_template_kwargs": {"enable_thinking": True}, "max_tokens": 20}
    whole = chat(url, **asked)
    message = whole["choices"][0]["message"]
    assert whole["usage"]["completion_tokens"] == 20
    assert whole["usage"]["completion_tokens_details"] == {"reasoning_tokens": 10}
    chunks = stream(url, **asked)
    assert "".join(chunk["delta"].get("reasoning", "") for chunk in chunks) == message["reasoning"] != ""
    assert "".join(chunk["delta"].get("content", "") for chunk in chunks) == message["content"] != ""
    assert chat(url, max_tokens=20)["choices"][0]["message"]["reasoning"] is None


def test_choices_and_prompts_are_each_a_sequence_of_the_engine(url):
    body = {"prompt": ["one two", "three"], "n": 2, "max_tokens": 3}
    answer = post(url, "/v1/completions", body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert len({choice["text"] for choice in answer["choices"]}) == 4
    assert answer["usage"] == answer["usage"] | {"prompt_tokens": 3, "completion_tokens": 12}
    streamed = post(url, "/v1/completions", body | {"stream": True, "stream_options": {"include_usage": True}}).text
    texts = dict.fromkeys(range(4), "")
    for event in events(streamed):
        for choice in event["choices"]:
            texts[choice["index"]] += choice["text"]
    assert list(texts.values()) == [choice["text"] for choice in answer["choices"]]
    assert events(streamed)[-1]["usage"]["completion_tokens"] == 12
    page = httpx.get(f"{url}/metrics", trust_env=False).text
    assert 'vllm:request_params_n_sum{engine="0",model_name="tiny"} 8.0' in page


def test_probabilities_add_up_to_no_more_than_one_and_offsets_to_the_text(url):
    import math

    content = chat(url, logprobs=True, top_logprobs=5, max_tokens=4)["choices"][0]["logprobs"]["content"]
    for entry in content:
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        assert sum(math.exp(one["logprob"]) for one in entry["top_logprobs"]) <= 1
    body = {"prompt": "one two", "echo": True, "logprobs": 1, "max_tokens": 3}
    choice = post(url, "/v1/completions", body).json()["choices"][0]
    assert choice["text"].startswith("one two")
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]
    assert choice["logprobs"]["token_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 3, 7, 12, 17]


def test_a_token_id_stops_an_answer(url):
    ids = chat(url, max_tokens=6, return_token_ids=True)["choices"][0]["token_ids"]
    stopped = chat(url, max_tokens=6, stop_token_ids=[ids[3]])
    assert (stopped["choices"][0]["finish_reason"], stopped["choices"][0]["stop_reason"]) == ("stop", ids[3])
    assert stopped["usage"]["completion_tokens"] == 4
    assert len(stopped["choices"][0]["message"]["content"].split()) == 3


def test_tokens_go_there_and_back(url):
    text = "It's 12 o'clock,\n  \"dear\" 안녕 friend "
    ids = post(url, "/tokenize", {"prompt": text}).json()
    assert ids["count"] == len(ids["tokens"]) == 14
    assert post(url, "/detokenize", {"tokens": ids["tokens"]}).json() == {"prompt": text}
    assert post(url, "/tokenize", {"messages": HELLO}).json()["count"] == 6
    chosen = post(url, "/detokenize", {"tokens": [7, 8]}).json()["prompt"]
    assert post(url, "/tokenize", {"prompt": chosen}).json()["tokens"] == [7, 8]


def test_responses_speak_of_the_same_answer_in_their_own_shape(url):
    asked = {"input": "hello there", "max_output_tokens": 5}
    whole = post(url, "/v1/responses", asked).json()
    assert (whole["status"], whole["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    seen = events(post(url, "/v1/responses", asked | {"stream": True}).text)
    assert [event["sequence_number"] for event in seen] == list(range(len(seen)))
    text = "".join(event["delta"] for event in seen if event["type"] == "response.output_text.delta")
    assert text == whole["output"][0]["content"][0]["text"] == seen[-1]["response"]["output"][0]["content"][0]["text"]
    function = {"type": "function", "name": "a", "parameters": SCHEMA}
    called = post(url, "/v1/responses", {"input": "x", "tools": [function], "tool_choice": "required"}).json()
    jsonschema.validate(json.loads(called["output"][0]["arguments"]), SCHEMA)
    thought = post(url, "/v1/responses", {"input": "x", "reasoning": {"effort": "low"}}).json()
    assert [item["type"] for item in thought["output"]] == ["reasoning", "message"]
    assert post(url, "/v1/responses", {"input": "x", "tools": [{"type": "web_search"}]}).status_code == 400


def test_messages_speak_as_anthropics_api(url):
    asked = {"model": "tiny", "messages": HELLO, "max_tokens": 4000}
    whole = post(url, "/v1/messages", asked).json()
    assert whole["stop_reason"] == "end_turn"  # the limit that every request must name need not be reached
    seen = events(post(url, "/v1/messages", asked | {"stream": True}).text)
    assert (
        "".join(e["delta"]["text"] for e in seen if e["type"] == "content_block_delta") == whole["content"][0]["text"]
    )
    word = whole["content"][0]["text"].split()[3]
    stopped = post(url, "/v1/messages", asked | {"stop_sequences": [word]}).json()
    assert (stopped["stop_reason"], stopped["stop_sequence"]) == ("stop_sequence", word)
    offered = {"tools": [{"name": "a", "input_schema": SCHEMA}], "thinking": {"type": "enabled", "budget_tokens": 1024}}
    used = post(url, "/v1/messages", asked | offered).json()
    assert [block["type"] for block in used["content"]] == ["thinking", "tool_use"]
    jsonschema.validate(used["content"][1]["input"], SCHEMA)
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "sun"}]}
    said = {"role": "assistant", "content": used["content"]}
    ended = post(url, "/v1/messages", asked | offered | {"messages": [*HELLO, said, result], "thinking": None}).json()
    assert [block["type"] for block in ended["content"]] == ["text"]


def test_a_model_of_vectors_serves_vectors_and_orders_and_no_text(replica):
    url = replica(step_s=0.0, served={"kind": "embed", "hidden_size": 64}).url
    texts = ["a red apple", "a red apple", "quite another thing"]
    answer = post(url, "/v1/embeddings", {"input": texts}).json()
    first, same, other = (item["embedding"] for item in answer["data"])
    assert first == same != other
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-5)
    assert answer["usage"]["prompt_tokens"] == 9
    packed = post(url, "/v1/embeddings", {"input": texts[0], "encoding_format": "base64"}).json()["data"][0]
    assert struct.unpack("<64f", base64.b64decode(packed["embedding"])) == pytest.approx(first, abs=1e-6)
    ranked = post(url, "/rerank", {"query": texts[0], "documents": texts[::-1], "top_n": 2}).json()["results"]
    assert [result["document"]["text"] for result in ranked] == texts[:2]
    scores = post(url, "/score", {"text_1": texts[0], "text_2": texts}).json()["data"]
    assert scores[0]["score"] == scores[1]["score"] == 1 > scores[2]["score"]
    assert post(url, "/v1/chat/completions", {"messages": HELLO}).status_code == 404


def test_paths_and_methods_are_answered_as_vllms_web_framework_does(replica):
    url = replica(api_key="secret").url
    key = {"Authorization": "Bearer secret"}
    with httpx.Client(trust_env=False, timeout=PATIENCE_S) as ask:
        assert ask.get(f"{url}/health/").status_code == 307
        assert ask.get(f"{url}/health/").headers["location"] == f"{url}/health"
        assert ask.head(f"{url}/health").status_code == 405
        assert ask.options(f"{url}/health").status_code == 405
        preflight = {"Origin": "http://a", "Access-Control-Request-Method": "POST"}
        assert ask.options(f"{url}/v1/chat/completions", headers=preflight).text == "Disallowed CORS origin"
        assert ask.post(f"{url}/ping").status_code == 200
        assert ask.post(f"{url}/v2/rerank").status_code == 401
        assert ask.get(f"{url}/load").json() == {"server_load": 0}
        unserved = ask.post(f"{url}/v1/systemone", json={}, headers=key)
        assert (unserved.status_code, unserved.json()["error"]["message"]) == (
            501,
            "The emulated engine does not serve /v1/systemone.",
        )
        scale_out = ask.post(f"{url}/v1/chat/completions/render", json={}, headers=key)
        assert scale_out.status_code == 403
        assert "x-request-id" not in ask.get(f"{url}/health", headers={"X-Request-Id": "mine"}).headers
        with_ids = replica(served={"request_id_headers": True}).url
        assert ask.get(f"{with_ids}/health", headers={"X-Request-Id": "mine"}).headers["x-request-id"] == "mine"


def test_usage_tells_details_where_the_flag_is_given(replica):
    plain = replica(served={"prompt_tokens_details": False}).url
    assert chat(plain, max_tokens=1)["usage"]["prompt_tokens_details"] is None
    assert chat(replica().url, max_tokens=1)["usage"]["prompt_tokens_details"]["cached_tokens"] == 0


def test_flags_of_a_layout_are_heard():
    flags = EngineFlags(
        extra=(
            *("--max-logprobs", "-1", "--root-path", "/llm/", "--enable-tokenizer-info-endpoint"),
            *("--lora-modules", "poet=/adapters/poet", '{"name": "cook", "path": "/adapters/cook"}'),
        )
    )
    layout = Layout(
        name="one",
        model="Qwen/Qwen2.5-7B-Instruct",
        box=make_box("L40S", 1),
        replicas=(Replica(gpus=(0,), tensor_parallel=1),),
        flags=flags,
    )
    served = blueprint_of(layout, 0, read_model(layout.model)).served
    assert (served.max_logprobs, served.root_path, served.tokenizer_info) == (-1, "/llm", True)
    assert served.adapters == (("poet", "/adapters/poet"), ("cook", "/adapters/cook"))


def test_adapters_answer_by_their_own_names_and_paths_may_begin_with_the_root(replica):
    served = {"adapters": (("poet", "/adapters/poet"),), "root_path": "/llm"}
    url = replica(step_s=0.0, served=served, api_key="k").url
    key = {"Authorization": "Bearer k"}
    listed = httpx.get(f"{url}/llm/v1/models", headers=key, trust_env=False).json()["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in listed] == [
        ("tiny", "/models/tiny", None),
        ("poet", "/adapters/poet", "tiny"),
    ]
    body = {"messages": HELLO, "max_tokens": 1, "model": "poet"}
    for path in ("/v1/chat/completions", "/llm/v1/chat/completions"):
        assert post(url, path, body, **key).json()["model"] == "poet"
        assert post(url, path, body).status_code == 401
    assert "does not exist" in post(url, "/v1/completions", {"prompt": "a", "model": "cook"}, **key).text


def test_balancers_are_told_the_load_in_the_form_that_they_ask_for(url):
    body = {"messages": HELLO, "max_tokens": 1}
    header = "endpoint-load-metrics"
    text = post(url, "/v1/chat/completions", body, **{f"{header}-format": "TEXT"}).headers[header]
    assert re.fullmatch(
        r"TEXT named_metrics\.kv_cache_usage_perc=0\.\d+, named_metrics\.num_requests_waiting=0\.0", text
    )
    named = post(url, "/v1/chat/completions", body, **{f"{header}-format": "JSON"}).headers[header]
    assert json.loads(named.removeprefix("JSON "))["named_metrics"]["num_requests_waiting"] == 0.0
    for asked in ({f"{header}-format": "xml"}, {}):
        assert header not in post(url, "/v1/chat/completions", body, **asked).headers


def test_usage_tells_what_a_prompt_brought_into_the_prefix_cache(replica):
    url = replica(step_s=0.0, served={"block_tokens": 16}).url
    body = {"messages": [{"role": "user", "content": "word " * 40}], "max_tokens": 1}
    details = [post(url, "/v1/chat/completions", body).json()["usage"]["prompt_tokens_details"] for _ in range(2)]
    assert [(one["cached_tokens"], one["created_cache_tokens"]) for one in details] == [(0, 32), (32, 0)]
    other = body | {"model": "tiny", "messages": [{"role": "user", "content": "bread " * 40}]}
    usage = post(url, "/v1/messages", other).json()["usage"]
    assert (usage["input_tokens"], usage["cache_creation_input_tokens"], usage["cache_read_input_tokens"]) == (8, 32, 0)


def test_a_response_shows_what_went_in_and_came_out_where_it_is_asked_for(url):
    body = {"input": "what is the weather", "max_output_tokens": 3}
    shown = post(url, "/v1/responses", body | {"enable_response_messages": True}).json()
    (before,), (after,) = shown["input_messages"], shown["output_messages"]
    assert (before["message"], len(before["tokens"])) == ("what is the weather", 4)
    assert (after["type"], len(after["tokens"])) == ("raw_message_tokens", 3)
    assert after["message"] == shown["output"][0]["content"][0]["text"]
    assert post(url, "/v1/responses", body).json()["input_messages"] is None


def test_embeddings_come_in_coheres_shape_too(replica):
    url = replica(step_s=0.0, served={"kind": "embed", "hidden_size": 8}).url
    body = {"texts": ["one two", "three"], "embedding_types": ["float", "base64"]}
    shown = post(url, "/v2/embed", body).json()
    assert [len(one) for one in shown["embeddings"]["float"]] == [8, 8]
    floats = struct.unpack("<8f", base64.b64decode(shown["embeddings"]["base64"][0]))
    assert floats == pytest.approx(shown["embeddings"]["float"][0], abs=1e-6)
    assert shown["meta"]["billed_units"]["input_tokens"] == 3
    for wrong in ({}, {"texts": []}, {"images": ["a"]}, {"texts": ["a"], "embedding_types": ["binary"]}):
        assert post(url, "/v2/embed", wrong).status_code == 400
