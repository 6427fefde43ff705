"""One's own traffic as a trace: times, lengths, sessions, and no word of what was said."""

import json

import pytest

from atoll.errors import BadTraffic
from atoll.load.message import MessageWriter
from atoll.load.prompts import Made
from atoll.load.target import RequestOptions, parse_target
from atoll.traffic.demand import Demand
from atoll.traffic.own import own_traffic
from atoll.traffic.trace import parse_trace, trace_text
from atoll.traffic.workload import Workload

SECRET = "my diagnosis is"


def door(end, seconds, first, bytes_in, bytes_out, *, path="/v1/chat/completions", status=200, session="a"):
    return json.dumps(
        {"t": end, "id": "x", "status": status, "replica": "0", "upstream": "127.0.0.1:8000", "upstream_status": "200"}
        | {
            "first_byte_s": first,
            "seconds": seconds,
            "in": bytes_in,
            "out": bytes_out,
            "path": path,
            "session": session,
        }
    )


DOOR = "\n".join(
    [
        door("2026-11-30T10:00:12+00:00", 12.0, "0.250", 4700, 900 + 100 * 247, session="b"),
        door("2026-11-30T10:00:12+00:00", 10.0, "9.990", 1100, 600 + 4 * 30, session="b"),
        door("2026-11-30T10:00:20+00:00", 10.0, "0.1, 0.2", 2700, 900 + 50 * 247, session=""),
        door("2026-11-30T10:00:05+00:00", 0.1, "0.1", 400, 300, path="/v1/models"),
        door("2026-11-30T10:00:06+00:00", 0.1, "0.1", 400, 300, status=429),
        '{"t":"2026-11-30T10:0',  # the line that is being written
    ]
)
SPEND = json.dumps(
    [
        {"startTime": "2026-11-30T10:00:03Z", "prompt_tokens": 30, "completion_tokens": 7, "session_id": "s2", "messages": SECRET},
        {"startTime": "2026-11-30T10:00:00.500Z", "prompt_tokens": 20, "completion_tokens": 5, "session_id": "s1"},
        {"startTime": "2026-11-30T10:00:04Z", "prompt_tokens": 20, "completion_tokens": 0, "session_id": "s1"},
    ]
)  # fmt: skip
MESSAGES = {
    "q1": {"id": "q1", "role": "user", "content": SECRET, "timestamp": 1000},
    "a1": {
        "role": "assistant",
        "parentId": "q1",
        "content": "four",
        "usage": {"prompt_tokens": 12, "completion_tokens": 9},
    },
    "q2": {"id": "q2", "role": "user", "content": "x" * 40, "timestamp": 1020},
    "a2": {"role": "assistant", "parentId": "q2", "content": "y" * 80},
}
CHATS = json.dumps([{"id": "c1", "user_id": "u", "chat": {"title": SECRET, "history": {"messages": MESSAGES}}}])
VLLM = f"""INFO 11-30 10:00:00 [api_server.py:1] Starting
INFO 11-30 10:00:01 [logger.py:39] Received request chatcmpl-aa: prompt: '{SECRET}', params: SamplingParams(max_tokens=100), prompt_token_ids: [1, 2, 3, 4], lora_request: None.
INFO 11-30 10:00:03 [logger.py:39] Received request chatcmpl-bb: params: SamplingParams(n=1, max_tokens=50), prompt_token_ids: [1, 2], lora_request: None.
INFO 11-30 10:00:04 [logger.py:60] Generated response chatcmpl-aa: output: '{SECRET}', output_token_ids: [7, 8, 9], finish_reason: stop
"""


@pytest.mark.parametrize(
    ("text", "source", "rows"),
    [
        (DOOR, "the door's log", [(0.0, 1000, 100, 0), (2.0, 100, 30, 0), (10.0, 500, 50, None)]),
        (SPEND, "LiteLLM", [(0.0, 20, 5, 0), (2.5, 30, 7, 1)]),
        (CHATS, "Open WebUI", [(0.0, 12, 9, 0), (20.0, (len(SECRET) + 44) // 4, 20, 0)]),
        (VLLM, "vLLM's log", [(0.0, 4, 3, None), (2.0, 2, 50, None)]),
    ],
    ids=["door", "litellm", "open_webui", "vllm"],
)
def test_each_source_gives_times_lengths_and_sessions_and_no_word(text, source, rows):
    assert own_traffic(text).source == source
    trace = parse_trace(text, origin="log")
    assert [(row.due_s, row.prompt_tokens, row.output_tokens, row.session) for row in trace] == [
        (pytest.approx(due, abs=1e-6), *rest) for due, *rest in rows
    ]
    kept = trace_text(trace)
    assert SECRET not in kept + repr(trace) + str(own_traffic(text).note)
    assert parse_trace(kept, origin="kept") == trace


def test_what_is_estimated_is_told():
    assert "estimated from bytes" in own_traffic(DOOR).note
    assert own_traffic(CHATS).note == "1 answers have no usage: 4 letters a token are reckoned"
    assert own_traffic(SPEND).note is None
    assert "1 answers have the length that was asked at most" in own_traffic(VLLM).note


def test_an_exported_table_of_litellm_is_a_trace_as_it_is():
    rows = parse_trace(
        "request_id,startTime,prompt_tokens,completion_tokens,session_id\nr,2026-11-30 10:00:00,20,5,z\n", origin="x"
    )
    assert (rows[0].prompt_tokens, rows[0].output_tokens, rows[0].session) == (20, 5, 0)


@pytest.mark.parametrize(
    "text",
    ["[]", "[1]", '[{"chat": {}}]', "{}", '{"t":"x","path":"/v1/completions","seconds":1,"in":1,"out":1,"status":200}'],
)
def test_what_is_no_traffic_is_refused_in_one_sentence(text):
    with pytest.raises(BadTraffic, match="log: "):
        parse_trace(text, origin="log")


def test_a_replayed_trace_names_its_sessions_to_the_door():
    trace = parse_trace(DOOR, origin="log")
    requests = list(Demand(Workload(trace="log"), trace).open_requests())
    assert [request.session for request in requests] == [0, 0, None]
    target, endpoint = parse_target("http://h")
    writer = MessageWriter(target, endpoint, RequestOptions(session_header="X-Session-Id"), "m", ids="r-")
    assert b"X-Session-Id: r-s0\r\n" in writer.write(requests[1], Made(text=b"hi"))
