"""Traces in the forms in which they are published."""

import pytest

from atoll.errors import BadTraffic
from atoll.traffic.trace import TraceRow, parse_trace

# The headers and forms of AzureLLMInferenceTrace_conv.csv (Azure/AzurePublicDataset), BurstGPT_1.csv (HPMLL/BurstGPT)
# and mooncake_trace.jsonl (kvcache-ai/Mooncake); the rows are made up.
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,374,44
2023-11-16 18:17:04.0319600,396,109
2023-11-16 18:17:05.9799600,879,55
"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,ChatGPT,1087,0,1087,Conversation log
118,GPT-4,417,276,693,API log
"""
MOONCAKE = """{"timestamp": 27000, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]}
{"timestamp": 30000, "input_length": 100, "output_length": 3, "hash_ids": [46]}
"""


def rows(*triples):
    return tuple(TraceRow(due_s=due, prompt_tokens=prompt, output_tokens=output) for due, prompt, output in triples)


def test_azure_traces_start_at_zero():
    parsed = parse_trace(AZURE, origin="azure.csv")
    assert [(r.prompt_tokens, r.output_tokens) for r in parsed] == [(374, 44), (396, 109), (879, 55)]
    assert [r.due_s for r in parsed] == pytest.approx([0.0, 0.052, 2.0])


def test_burstgpt_leaves_out_failed_requests():
    assert parse_trace(BURSTGPT, origin="x") == rows((0.0, 472, 18), (113.0, 417, 276))


def test_mooncake_counts_milliseconds():
    assert parse_trace(MOONCAKE, origin="x") == rows((0.0, 6955, 52), (3.0, 100, 3))


def test_plain_csv_in_any_order():
    text = "\ufeffoutput_tokens,timestamp,prompt_tokens\n5,2.5,50\n4,1.0,40\n"
    assert parse_trace(text, origin="x") == rows((0.0, 40, 4), (1.5, 50, 5))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "t.csv: no column due_s"),
        ("time,prompt_tokens\n1,2\n", "t.csv: no column output_tokens"),
        ("time,prompt_tokens,output_tokens\n", "t.csv: this trace holds no request"),
        ("time,prompt_tokens,output_tokens\n1,2,x\n", "t.csv: line 2: 1, 2, x is not a time and two token counts"),
        ("time,prompt_tokens,output_tokens\n1,2\n", "t.csv: line 2: 1, 2, None is not"),
        ('{"timestamp": 1\n', "t.csv: line 1: this is not JSON"),
    ],
)
def test_what_is_wrong_is_told(text, sentence):
    with pytest.raises(BadTraffic, match="^" + sentence.replace(".", r"\.")):
        parse_trace(text, origin="t.csv")
