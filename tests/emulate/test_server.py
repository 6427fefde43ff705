"""What the emulated engine promises beyond vLLM's wording: one token a chunk, aborts, limits, slow readers."""

import asyncio
import json
import socket

import httpx
import pytest

from stand_ins.patience import PATIENCE_S, until, wait_until

HELLO = [{"role": "user", "content": "one two three four five"}]


def chunks_of(text: str) -> list[dict]:
    return [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]


def texts_of(text: str) -> list[str]:
    return [c["choices"][0]["delta"].get("content") for c in chunks_of(text) if c["choices"]]


def chat(url: str, **fields) -> httpx.Response:
    return httpx.post(
        f"{url}/v1/chat/completions", json={"messages": HELLO} | fields, timeout=PATIENCE_S, trust_env=False
    )


def metric(url: str, name: str) -> float:
    text = httpx.get(f"{url}/metrics", timeout=PATIENCE_S, trust_env=False).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name}{{"))


def test_every_answer_says_that_the_engine_is_emulated(replica):
    url = replica().url
    plain = [httpx.get(f"{url}{path}", trust_env=False) for path in ("/health", "/v1/models", "/metrics", "/nowhere")]
    for answer in (*plain, chat(url, max_tokens=2), chat(url, max_tokens=2, stream=True)):
        assert answer.headers["x-atoll-emulated"] == "1"


def test_every_chunk_carries_one_token_and_usage_agrees(replica):
    answer = chat(replica().url, max_tokens=20, stream=True, stream_options={"include_usage": True}).text
    texts = texts_of(answer)
    assert texts[0] == ""  # the role chunk
    assert len([text for text in texts if text]) == 20
    assert chunks_of(answer)[-1]["usage"]["completion_tokens"] == 20
    assert chunks_of(answer)[-1]["usage"]["prompt_tokens"] == 5


def test_streamed_and_whole_answers_have_the_same_text(replica):
    url = replica().url
    streamed = "".join(texts_of(chat(url, max_tokens=12, stream=True).text))
    whole = chat(url, max_tokens=12).json()["choices"][0]["message"]["content"]
    assert streamed == whole != ""


def test_a_seed_changes_the_text(replica):
    url = replica().url
    first, again, other = (chat(url, max_tokens=9, seed=seed).json() for seed in (1, 1, 2))
    text = [a["choices"][0]["message"]["content"] for a in (first, again, other)]
    assert text[0] == text[1] != text[2]


def test_without_a_limit_the_answer_ends_by_itself(replica):
    answer = chat(replica(step_s=0.0).url).json()
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["stop_reason"] is None
    assert 128 <= answer["usage"]["completion_tokens"] <= 384


def test_ignore_eos_without_a_limit_fills_the_context(replica):
    answer = chat(replica(step_s=0.0, max_model_len=64).url, ignore_eos=True).json()
    assert answer["usage"]["total_tokens"] == 64
    assert answer["choices"][0]["finish_reason"] == "length"


def test_a_stop_string_ends_the_answer_and_is_left_out(replica):
    url = replica().url
    text = chat(url, max_tokens=10).json()["choices"][0]["message"]["content"]
    stop = text.split()[4]
    choice = chat(url, max_tokens=10, stop=[stop]).json()["choices"][0]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)
    assert choice["message"]["content"] == text[: text.index(stop)]
    kept = chat(url, max_tokens=10, stop=stop, include_stop_str_in_output=True).json()
    assert kept["choices"][0]["message"]["content"].endswith(stop)
    assert kept["usage"]["completion_tokens"] == 5


def test_a_streamed_stop_string_gives_the_same_text(replica):
    url = replica().url
    whole = chat(url, max_tokens=10).json()["choices"][0]["message"]["content"]
    stop = whole.split()[6]
    streamed = chat(url, max_tokens=10, stop=[stop, "never seen"], stream=True).text
    assert "".join(texts_of(streamed)) == whole[: whole.index(stop)]
    assert chunks_of(streamed)[-1]["choices"][0]["stop_reason"] == stop


def test_min_tokens_holds_a_stop_string_off(replica):
    url = replica().url
    first = chat(url, max_tokens=10).json()["choices"][0]["message"]["content"].split()[1]
    answer = chat(url, max_tokens=10, stop=[first], min_tokens=8).json()
    assert answer["usage"]["completion_tokens"] >= 8


def test_the_api_key_is_asked_for_under_v1_only(replica):
    url = replica(api_key="secret").url
    assert httpx.get(f"{url}/health", timeout=PATIENCE_S, trust_env=False).status_code == 200
    refused = httpx.get(f"{url}/v1/models", timeout=PATIENCE_S, trust_env=False)
    assert (refused.status_code, refused.json()) == (401, {"error": "Unauthorized"})
    wrong = httpx.get(
        f"{url}/v1/models", headers={"Authorization": "Bearer public"}, timeout=PATIENCE_S, trust_env=False
    )
    assert wrong.status_code == 401
    right = httpx.get(
        f"{url}/v1/models", headers={"Authorization": "Bearer secret"}, timeout=PATIENCE_S, trust_env=False
    )
    assert right.status_code == 200


def test_a_full_queue_is_refused_with_503_and_counted(replica):
    """vLLM's limit counts running requests too: of ten at once, four are served."""
    url = replica(step_s=0.5, max_num_seqs=4, max_num_queued_reqs=4).url
    codes = []

    async def one(client: httpx.AsyncClient) -> None:
        """Whoever is served stays until all have been heard: an answer would take 500 s."""
        body = {"messages": HELLO, "max_tokens": 1000, "stream": True}
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as answer:
            codes.append(answer.status_code)
            await until(lambda: len(codes) == 10)

    async def ten() -> list[int]:
        async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S) as client:
            await asyncio.gather(*(one(client) for _ in range(10)))
        return sorted(codes)

    assert asyncio.run(ten()) == [200] * 4 + [503] * 6
    assert metric(url, "vllm:admission_rejections_total") == 6


def test_a_client_that_leaves_frees_its_place(replica):
    server = replica(step_s=0.5)  # the answer would take 250 s
    with httpx.Client(timeout=PATIENCE_S, trust_env=False) as client:
        body = {"messages": HELLO, "max_tokens": 500, "stream": True}
        with client.stream("POST", f"{server.url}/v1/chat/completions", json=body) as answer:
            pieces = answer.iter_bytes()  # kept, because its end closes the connection
            next(pieces)
            assert metric(server.url, "vllm:num_requests_running") == 1
    wait_until(lambda: metric(server.url, "vllm:num_requests_running") == 0)
    assert metric(server.url, "vllm:kv_cache_usage_perc") == 0
    text = httpx.get(f"{server.url}/metrics", timeout=PATIENCE_S, trust_env=False).text
    assert 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="tiny"} 1.0' in text


def test_a_repeated_prompt_is_found_in_the_prefix_cache(replica):
    url = replica().url
    long = [{"role": "user", "content": "word " * 100}]
    first, second = (chat(url, messages=long, max_tokens=2).json()["usage"] for _ in range(2))
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] == 96  # six whole blocks of 16
    assert metric(url, "vllm:prefix_cache_hits_total") == 96
    assert metric(url, "vllm:prefix_cache_queries_total") == 200


def test_the_next_turn_finds_prompt_and_answer_in_the_cache(replica):
    url = replica().url
    turns = [{"role": "user", "content": "word " * 40}]
    answer = chat(url, messages=turns, max_tokens=30).json()["choices"][0]["message"]["content"]
    turns += [{"role": "assistant", "content": answer}, {"role": "user", "content": "and then"}]
    usage = chat(url, messages=turns, max_tokens=2).json()["usage"]
    assert usage["prompt_tokens"] == 72
    assert usage["prompt_tokens_details"]["cached_tokens"] == 64  # of the 69 computed tokens, four whole blocks


def test_prefix_caching_can_be_off(replica):
    url = replica(prefix_caching=False).url
    long = [{"role": "user", "content": "word " * 100}]
    usages = [chat(url, messages=long, max_tokens=2).json()["usage"] for _ in range(2)]
    assert [usage["prompt_tokens_details"]["cached_tokens"] for usage in usages] == [0, 0]


def test_counters_add_up(replica):
    url = replica().url
    for tokens in (3, 7):
        chat(url, max_tokens=tokens)
    assert metric(url, "vllm:generation_tokens_total") == 10
    assert metric(url, "vllm:prompt_tokens_total") == 10
    assert metric(url, "vllm:time_to_first_token_seconds_count") == 2
    assert metric(url, "vllm:inter_token_latency_seconds_count") == 8
    assert metric(url, "vllm:e2e_request_latency_seconds_count") == 2
    assert metric(url, "vllm:request_generation_tokens_sum") == 10


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"structured_outputs": {"grammar": "root ::= 'a'"}}, "grammar"),
        ({"response_format": {"type": "structural_tag", "format": {"type": "any_text"}}}, "response_format"),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages"),
    ],
)
def test_what_is_not_emulated_is_refused_not_ignored(replica, fields, param):
    answer = chat(replica().url, **fields)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "emulated" in answer.json()["error"]["message"]


def test_a_replica_runs_at_the_speed_it_is_told(replica):
    """At the timer's own pace the answer would take over half an hour; ten times as fast: tests/emulate/test_engine."""
    assert chat(replica(step_s=100, speed=1e5).url, max_tokens=20).json()["usage"]["completion_tokens"] == 20


def raw(port: int, text: bytes, *, until: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as client:
        client.sendall(text)
        got = b""
        while until not in got:
            piece = client.recv(65536)
            if not piece:
                break
            got += piece
        return got


def request(body: dict, *, version: str = "1.1", extra: str = "") -> bytes:
    data = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/{version}\r\nhost: x\r\ncontent-type: application/json\r\n{extra}"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def test_an_http_1_0_client_gets_the_bare_stream(replica):
    body = {"messages": HELLO, "max_tokens": 2, "stream": True}
    answer = raw(replica().port, request(body, version="1.0"), until=b"never").decode()
    head, _, rest = answer.partition("\r\n\r\n")
    assert "transfer-encoding" not in head
    assert rest.startswith("data: {")
    assert rest.endswith("data: [DONE]\n\n")


def test_pipelined_requests_are_answered_in_order(replica):
    both = request({"messages": HELLO, "max_tokens": 3}) + b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = raw(replica().port, both, until=b'"version"').decode()
    assert answer.index("chat.completion") < answer.index('"version"')


@pytest.mark.parametrize("behind", ["GET /health", "GET /nowhere", "PUT /v1/models", "GET http://["])
def test_a_thousand_pipelined_requests_behind_a_running_answer_hurt_nobody(replica, behind):
    made = replica(step_s=0.002)
    body = json.dumps({"messages": HELLO, "max_tokens": 50, "ignore_eos": True}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    ahead = f"{behind} HTTP/1.1\r\n\r\n".encode() * 1000 + b"GET /health HTTP/1.1\r\nconnection: close\r\n\r\n"
    answer = raw(made.port, head % len(body) + body + ahead, until=b"never")
    assert answer.count(b"HTTP/1.1 ") == 1002
    assert answer.startswith(b"HTTP/1.1 200 OK")
    assert httpx.get(f"{made.url}/health", trust_env=False).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": ' + b"9" * 5000 + b"}",
        b'{"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1e400}',
        b'{"messages": [{"role": "user", "content": "hi"}], "model": "\\ud800"}',
        b'{"messages": [{"role": "user", "content": "\\ud800"}], "seed": -99999999999999999999}',
        b'{"messages": [5]}',
        b"\xff\xfe",
    ],
)
def test_a_body_at_the_edge_is_answered_and_the_engine_goes_on(replica, body):
    made = replica()
    kind = {"content-type": "application/json"}
    answer = httpx.post(f"{made.url}/v1/chat/completions", content=body, headers=kind, trust_env=False)
    assert answer.status_code in {200, 400, 404}
    assert chat(made.url, max_tokens=2).status_code == 200


def test_a_head_without_end_is_refused(replica):
    made = replica()
    assert b" 400 " in raw(
        made.port, b"GET /health HTTP/1.1\r\n" + b"x-filler: 0123456789abcdef\r\n" * 3_000, until=b"received."
    )
    assert b" 400 " in raw(made.port, b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", until=b"received.")


def test_what_is_no_http_is_refused(replica):
    assert b"400 Bad Request" in raw(replica().port, b"nonsense\r\n\r\n", until=b"received.")


def test_a_large_body_is_asked_for_with_continue(replica):
    body = request({"messages": HELLO, "max_tokens": 1}, extra="expect: 100-continue\r\n")
    assert raw(replica().port, body, until=b"chat.completion").startswith(b"HTTP/1.1 100")


def test_a_slow_reader_gets_merged_chunks_and_all_of_the_text(replica):
    """As in vLLM, tokens that wait for a slow reader are joined into one delta."""
    server = replica(step_s=0.0, max_model_len=60_000, kv_blocks=4000)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        body = {"messages": HELLO, "max_tokens": 50_000, "stream": True, "stream_options": {"include_usage": True}}
        client.sendall(request(body))
        wait_until(lambda: metric(server.url, "vllm:request_success_total") == 1)
        client.settimeout(PATIENCE_S)
        got = b""
        while not got.endswith(b"0\r\n\r\n"):
            got += client.recv(1 << 20)
    texts = [text for text in texts_of(got.decode()) if text]
    assert sum(len(text) for text in texts) == 5 * 50_000
    assert len(texts) < 50_000


def test_an_idle_connection_is_closed_after_the_keep_alive_time(replica):
    server = replica()
    server.call(lambda: setattr(server.site, "keep_alive_s", 0.05))
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as client:
        client.sendall(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
        assert client.recv(4096) == b""
