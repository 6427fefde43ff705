"""One's own traffic as a trace: times, lengths, sessions, and no word of what was said."""

import json
from pathlib import Path

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
DATA = Path(__file__).parents[1] / "data" / "own_traffic"
SPEND = (DATA / "litellm-1.110.2.json").read_text()
# Open WebUI 0.12: usage as its normalize_usage leaves it, the text of newer answers in `output`, an answer asked for again.
MESSAGES = {
    "q1": {"id": "q1", "parentId": None, "role": "user", "content": SECRET, "timestamp": 1000},
    "a1": {
        "role": "assistant",
        "parentId": "q1",
        "content": "four",
        "usage": {"prompt_tokens": 12, "completion_tokens": 9, "input_tokens": 12, "output_tokens": 9},
    },
    "again": {
        "role": "assistant",
        "parentId": "q1",
        "content": "f",
        "info": {"usage": {"prompt_n": 3, "cache_n": 8, "predicted_n": 2}},
    },
    "q2": {"id": "q2", "parentId": "a1", "role": "user", "content": "x" * 40, "timestamp": 1020},
    "a2": {
        "role": "assistant",
        "parentId": "q2",
        "content": "",
        "output": [{"type": "message", "content": [{"type": "output_text", "text": "y" * 80}]}],
    },
}
CHATS = json.dumps([{"id": "c1", "user_id": "u", "chat": {"title": SECRET, "history": {"messages": MESSAGES}}}])
VLLM = (DATA / "vllm-0.32.0.log").read_text()
EARLY_VLLM = f"""INFO 11-30 10:00:00 [api_server.py:1] Starting
INFO 11-30 10:00:01 [logger.py:39] Received request chatcmpl-aa: prompt: '{SECRET}', params: SamplingParams(max_tokens=100), prompt_token_ids: [1, 2, 3, 4], lora_request: None.
INFO 11-30 10:00:03 [logger.py:39] Received request chatcmpl-bb: params: SamplingParams(n=1, max_tokens=50), prompt_token_ids: [1, 2], lora_request: None.
INFO 11-30 10:00:04 [logger.py:60] Generated response chatcmpl-aa: output: '{SECRET}', output_token_ids: [7, 8, 9], finish_reason: stop
"""


@pytest.mark.parametrize(
    ("text", "source", "rows"),
    [
        (DOOR, "the door's log", [(0.0, 1000, 100, 0), (2.0, 100, 30, 0), (10.0, 500, 50, None)]),
        (SPEND, "LiteLLM", [(0.0, 20, 5, 0), (1.0, 30, 7, 0)]),
        (f'{{"data": {SPEND}, "total": 3, "page": 1}}', "LiteLLM", [(0.0, 20, 5, 0), (1.0, 30, 7, 0)]),
        (CHATS, "Open WebUI", [(0.0, 12, 9, 0), (0.0, 11, 2, 0), (20.0, (len(SECRET) + 44) // 4, 20, 0)]),
        (VLLM, "vLLM's log", [(0.0, 23, 5, None), (2.0, 22, 4, None), (3.0, 2, 7, None)]),
        (EARLY_VLLM, "vLLM's log", [(0.0, 4, 3, None), (2.0, 2, 50, None)]),
    ],
    ids=["door", "litellm", "litellm_page", "open_webui", "vllm", "early_vllm"],
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


def test_vllms_log_as_json_lines_says_the_same():
    def as_json(line):
        moment = line.split(" ")[3:5]
        words = {"asctime": f"2026-{' '.join(moment)},123", "levelname": "DEBUG", "name": "vllm", "process": 1}
        return json.dumps(words | {"message": line.partition("] ")[2]})

    told = parse_trace("\n".join(map(as_json, VLLM.splitlines())), origin="log")
    assert told == parse_trace(VLLM, origin="log")


def test_what_is_estimated_is_told():
    assert "estimated from bytes" in own_traffic(DOOR).note
    assert own_traffic(CHATS).note == "1 answers have no usage: 4 letters a token are reckoned"
    assert own_traffic(SPEND).note is None
    assert "1 answers have the length that was asked at most" in own_traffic(VLLM).note
    without = "\n".join(line for line in VLLM.splitlines() if " DEBUG " not in line)
    with pytest.raises(BadTraffic, match="VLLM_LOGGING_LEVEL=DEBUG tells them"):
        parse_trace(without, origin="log")
    with pytest.raises(BadTraffic, match="ask for /spend/logs with summarize=false"):
        parse_trace('[{"startTime": "2026-12-01", "spend": 0.0, "users": {}, "models": {}}]', origin="log")


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
    assert b"X-Session-Id: s0\r\n" in writer.write(requests[1], Made(text=b"hi"))
