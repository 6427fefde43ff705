"""What is said before anybody trusts the figures."""

import pytest

from atoll.analyse.hints import hint_of
from atoll.analyse.summary import summarise
from atoll.traffic.record import Outcome, Record, RecordTable
from atoll.traffic.slo import SLO
from atoll.traffic.workload import Workload

USERS = Workload(users=2, requests=8, start="at_once")


def answer(number, *, times=(0.2, 0.3, 0.4), **more):
    sent = float(number)
    known = {"prompt_tokens": 500, "output_tokens": len(times)} | more
    return Record(
        number=number, user=number % 2, sent_s=sent, token_s=[sent + t for t in times], done_s=sent + times[-1], **known
    )


def told(records, workload=USERS, **more):
    return summarise(RecordTable.from_records(records), workload=workload, **more)


@pytest.mark.parametrize(
    ("more", "word", "said"),
    [
        ({"asked_output_tokens": 20}, "shorter_answers", "8 of 8 answers were shorter than asked (3 of 20 tokens)."),
        ({"asked_output_tokens": 2}, "longer_answers", "8 of 8 answers were longer than asked (3 of 2 tokens)."),
        (
            {"asked_prompt_tokens": 500, "prompt_tokens": 10},
            "other_prompt_lengths",
            "The server counts 10 prompt tokens where 500 were asked, in 8 of 8 requests.",
        ),
        ({"times": (0.3, 0.3), "output_tokens": 20}, "one_piece", "8 of 8 answers arrived in one piece"),
        ({"times": (5.0, 5.0001, 5.0002), "output_tokens": 20}, "one_piece", "8 of 8 answers arrived in one piece"),
        ({"cached_tokens": 400}, "cached_prompts", "80.0% of the prompt tokens came out of the prefix cache"),
        ({"cached_tokens": 16}, "cached_prompts", "16 tokens a request, which a chat template alone may give"),
        (
            {"error": "odd_usage", "detail": "the usage says completion_tokens -3"},
            "odd_usage",
            "A usage that cannot be, in 8 answers: the usage says completion_tokens -3; it was not taken.",
        ),
        ({"resent": 1}, "resent", "8 requests were sent once more over a new connection"),
    ],
)
def test_what_is_odd_about_answers_is_counted_and_said(more, word, said):
    summary = told([answer(number, **more) for number in range(8)])
    assert summary.remarks == {word: 8}
    assert [note for note in summary.notes if said in note]


def test_nothing_is_said_of_answers_as_they_were_asked_for():
    plain = told([answer(n, asked_output_tokens=3, asked_prompt_tokens=500) for n in range(8)])
    assert (plain.remarks, plain.notes) == ({}, ())
    # a template's tokens on a short prompt; one short answer of many; one token alone
    odd = [answer(n, asked_prompt_tokens=10, prompt_tokens=40, asked_output_tokens=3) for n in range(199)]
    odd.append(answer(199, times=(0.2,), asked_output_tokens=3))
    assert told(odd).notes == ()
    assert told(odd).remarks == {"shorter_answers": 1}


@pytest.mark.parametrize("load", [{"shared_prefix_tokens": 400}, {"turns": 3}, {"distinct_prompts": 4}])
def test_a_prefix_cache_that_was_asked_for_is_no_remark(load):
    workload = Workload(users=2, requests=8, start="at_once", **load)
    assert told([answer(n, cached_tokens=400) for n in range(8)], workload).notes == ()


def test_an_answer_in_one_piece_has_no_tpot_and_keeps_no_target_for_it():
    summary = told([answer(n, times=(0.3,), output_tokens=20) for n in range(8)], slo=SLO(tpot_s=0.001))
    assert summary.tpot_s.p50 is None
    assert summary.goodput.share == 0
    one_token = told([answer(n, times=(0.3,)) for n in range(8)], slo=SLO(tpot_s=0.001))
    assert one_token.goodput.share == 1


def test_requests_that_were_cut_are_told_of_with_what_they_had_waited():
    cut = [Record(number=n, user=0, sent_s=1.0, done_s=31.0, outcome=Outcome.CANCELLED) for n in range(8, 12)]
    summary = told([answer(number) for number in range(8)] + cut)
    assert summary.ttft_s.p95 == pytest.approx(0.2)
    assert summary.remarks == {"cut": 4}
    assert "4 of 12 measured requests were cut" in summary.notes[0]
    assert "TTFT p95 is at least 30 s" in summary.notes[0]


def test_each_class_of_failure_has_the_sentence_that_was_heard_most():
    failed = [("http_422", "no ignore_eos")] * 3 + [("http_422", "busy")] + [("stall", None)]
    records = [
        Record(number=n, user=0, sent_s=n, done_s=n + 1.0, outcome=Outcome.FAILED, error=error, detail=detail)
        for n, (error, detail) in enumerate(failed)
    ]
    first, second = told(records).failures
    assert str(first) == (
        "4 http_422: no ignore_eos (3 times just so). These fields keep answers at their length; --free-output leaves"
        " them out."
    )
    assert (second.error, second.count, second.sentence, second.times) == ("stall", 1, None, 0)


@pytest.mark.parametrize(
    ("error", "sentence", "hint"),
    [
        ("http_422", "Extra inputs are not permitted: ['min_tokens', 'ignore_eos']", "--free-output"),
        ("http_400", "Extra inputs are not permitted: body.stream_options", "--no-usage"),
        (
            "http_400",
            "Unsupported parameter: 'max_tokens' is not supported with this model.",
            "--length-field",
        ),
        ("http_400", "This model's maximum context length is 4096 tokens.", "--prompt"),
        ("http_404", "The model `x` does not exist.", "does not know this model"),
        ("http_404", "Not Found", "--endpoint"),
        ("http_401", "Unauthorized", "--api-key-file"),
        ("http_429", "Rate limit reached", "--retry-after"),
        ("connection_refused", "Connection refused", "Nothing listens"),
    ],
)
def test_a_hint_goes_with_what_is_known(error, sentence, hint):
    assert hint in hint_of(error, sentence)


def test_no_hint_is_made_up():
    assert hint_of("http_418", "I'm a teapot") is None
