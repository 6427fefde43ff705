"""Words, prefixes, metrics text, and reading a request."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from atoll.emulate.ask import Served
from atoll.emulate.body import ChatBody, CompletionBody, read_body
from atoll.emulate.compose import compose_chat, compose_completion
from atoll.emulate.meters import Histogram, Meters, token_buckets
from atoll.emulate.metrics import CacheFacts, Gauges, show_metrics
from atoll.emulate.prefixes import PrefixIndex
from atoll.emulate.prompts import Desk
from atoll.emulate.refusal import Refusal
from atoll.emulate.replica import blueprint_of
from atoll.emulate.vocabulary import Vocabulary
from atoll.emulate.wire import ring_bytes
from atoll.emulate.words import answer_text, block_hashes, pieces, split_prompt
from atoll.errors import InputError, NothingFits
from atoll.inventory.catalog import make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.load.prompts import WORDS
from atoll.model.read import read_model

DESK = Desk(served=Served(names=("m",), root="m", max_model_len=1024), vocabulary=Vocabulary(32_000))


def read_call(body: bytes, *, chat: bool):
    if chat:
        return compose_chat(read_body(ChatBody, body), DESK)
    return compose_completion(read_body(CompletionBody, body), DESK)


def test_every_token_has_the_same_length_and_needs_no_escape():
    assert {len(token) for token in ring_bytes()} == {5}
    assert all(token.startswith(b" ") and token[1:].isalpha() for token in ring_bytes())


def test_an_answer_read_as_a_prompt_counts_its_tokens():
    assert len(split_prompt(answer_text(4000, 500))) == 500


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("one two", 2), ("it's 12345!", 6), ("안녕하세요", 5), ("internationalization", 2), ("", 0), ("  \n ", 0)],
)
def test_prompts_are_counted_in_pieces(text, tokens):
    assert len(split_prompt(text)) == tokens


def test_the_load_generators_words_count_one_token_each():
    assert len(split_prompt(" ".join(WORDS))) == len(WORDS)


@given(st.text(max_size=40))
@settings(max_examples=100, deadline=None)
def test_pieces_with_their_blanks_are_as_many_and_the_text_again(text):
    assert [piece.strip() for piece in pieces(text)] == split_prompt(text)
    assert "".join(pieces(text)) == ("" if text.isspace() else text)


@given(st.lists(st.sampled_from("abc"), max_size=80), st.lists(st.sampled_from("abc"), max_size=80))
@settings(max_examples=100, deadline=None)
def test_equal_hashes_mean_equal_beginnings(first, second):
    pairs = zip(block_hashes(first, 4), block_hashes(second, 4), strict=False)
    for block, (one, other) in enumerate(pairs, 1):
        assert (one == other) == (first[: 4 * block] == second[: 4 * block])


def test_a_prompt_names_the_stream_of_whoever_began_alike():
    index = PrefixIndex(1000)
    common = ["a"] * 32
    first = index.chain([*common, *["b"] * 32])
    second = index.chain([*common, *["c"] * 32])
    third = index.chain([*common, *["c"] * 16, *["d"] * 16])
    assert first == ((0, None),)
    assert second == ((0, 2), (1, None))
    assert third == ((0, 2), (1, 3), (2, None))


def test_the_index_forgets_whom_it_has_not_seen_longest():
    index = PrefixIndex(4)
    index.chain(["a"] * 32)
    index.chain(["b"] * 32)
    index.chain(["a"] * 32)  # the first one is used again
    index.chain(["c"] * 32)
    assert index.chain(["a"] * 32)[0][1] == 2
    assert index.chain(["b"] * 32)[0][1] is None


def test_histograms_count_like_prometheus():
    histogram = Histogram((1, 2, 5))
    for value in (0.5, 1, 1.5, 5, 7):
        histogram.observe(value)
    assert histogram.cumulated() == [("1.0", 2), ("2.0", 3), ("5.0", 4), ("+Inf", 5)]
    assert (histogram.count, histogram.total) == (5, 15)
    assert token_buckets(60) == (1, 2, 5, 10, 20, 50)


def test_the_metrics_page_is_readable_by_prometheus():
    meters = Meters(max_model_len=1024)
    meters.generation_tokens = 7
    gauges = Gauges(running=2, waiting=1, kv_usage=0.25)
    cache = CacheFacts(blocks=10, block_tokens=16, prefix_caching=True, max_model_len=1024)
    page = show_metrics(meters, gauges, cache, model='a "model"')
    families = {family.name: family for family in text_string_to_metric_families(page)}
    assert families["vllm:kv_cache_usage_perc"].samples[0].value == 0.25
    assert families["vllm:generation_tokens"].samples[0].value == 7
    assert families["vllm:num_requests_running"].samples[0].labels == {"engine": "0", "model_name": 'a "model"'}
    assert families["vllm:time_to_first_token_seconds"].type == "histogram"


@given(st.binary(max_size=200))
@settings(max_examples=150, deadline=None)
def test_any_body_is_an_ask_or_a_refusal(body):
    for chat in (True, False):
        try:
            read_call(body, chat=chat)
        except Refusal as refusal:
            assert 400 <= refusal.status < 500
            assert refusal.body()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2000) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "messages",
    "prompt",
    "tools",
    "tool_choice",
    "response_format",
    "structured_outputs",
    "echo",
    "top_logprobs",
    "stop_token_ids",
    "logit_bias",
    "prompt_logprobs",
    "truncate_prompt_tokens",
    "max_tokens",
    "min_tokens",
    "stop",
    "stream",
    "stream_options",
    "seed",
    "n",
    "logprobs",
]


@given(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=6))
@example({"prompt": [[]]})
@settings(max_examples=150, deadline=None)
def test_any_fields_are_an_ask_or_a_refusal(fields):
    import json

    for chat in (True, False):
        try:
            call = read_call(json.dumps(fields).encode(), chat=chat)
        except Refusal as refusal:
            assert refusal.body()
        else:
            for ask in call.asks:
                assert 1 <= ask.output_tokens <= 1024 - ask.prompt_tokens


def layout(**flags: object) -> Layout:
    return Layout(
        name="one",
        model="Qwen/Qwen2.5-32B-Instruct",
        box=make_box("H100-NVL-94GB", 2),
        replicas=(Replica(gpus=(0, 1), tensor_parallel=2),),
        flags=EngineFlags(**flags),
    )


def test_a_replica_stands_in_for_what_was_planned():
    made = blueprint_of(layout(max_num_seqs=32), 0, read_model("Qwen/Qwen2.5-32B-Instruct"))
    assert made.limits.max_num_seqs == 32
    assert made.limits.max_num_batched_tokens == 8192  # vLLM's own default on 94 GB
    assert made.served.model == "Qwen/Qwen2.5-32B-Instruct"
    assert made.kv_blocks > 20_000
    named = layout(extra=("--served-model-name", "qwen"))
    assert blueprint_of(named, 0, read_model(named.model)).served.model == "qwen"


def test_a_replica_that_would_not_start_does_not_start():
    card = read_model("Qwen/Qwen2.5-32B-Instruct")
    with pytest.raises(NothingFits):
        blueprint_of(layout(gpu_memory_utilization=0.2), 0, card)
    with pytest.raises(InputError, match="there is no replica 3"):
        blueprint_of(layout(), 3, card)
