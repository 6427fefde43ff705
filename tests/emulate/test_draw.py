"""What a request says of single tokens is in the answer: bias, bad words, penalties, allowed ids, the end, beams."""

from collections import Counter

import pytest

from atoll.emulate.ask import Served
from atoll.emulate.body import ChatBody, CompletionBody, read_fields
from atoll.emulate.compose import compose_chat, compose_completion
from atoll.emulate.draw import CHOICES, MOST_WANTED, Drawing, wishes_of
from atoll.emulate.probabilities import Odds
from atoll.emulate.prompts import Desk
from atoll.emulate.refusal import Refusal
from atoll.emulate.vocabulary import Vocabulary
from atoll.emulate.words import answer_ring

DESK = Desk(served=Served(names=("m",), root="m", max_model_len=512), vocabulary=Vocabulary(32_000))
END = DESK.vocabulary.end


def read(**fields) -> CompletionBody:
    return read_fields(CompletionBody, {"prompt": "tell me of the sea", "max_tokens": 24} | fields)


def asks(**fields):
    return compose_completion(read(**fields), DESK)


def words(**fields) -> list[str]:
    (ask,) = asks(**fields).asks
    text = ask.let_out(0, ask.output_tokens, final=True)
    assert text == "".join(ask.piece(place) for place in range(ask.output_tokens))
    return text.split()


def ids(*pieces: str) -> list[int]:
    return [DESK.vocabulary.id_of(piece) for piece in pieces]


def test_a_bias_of_minus_100_keeps_a_token_out_and_one_of_100_forces_it():
    usual = words()
    (first,) = ids(f" {usual[0]}")
    without = words(logit_bias={str(first): -100})
    assert usual[0] not in without
    assert [new for new, old in zip(without, usual, strict=True) if old != usual[0]] == [
        word for word in usual if word != usual[0]
    ]
    assert words(logit_bias={str(ids(" road")[0]): 100}) == ["road"] * 24
    assert words(logit_bias={"5": 0}) == usual


def test_bad_words_do_not_come_up_alone_or_as_a_sequence():
    usual = words()
    pair = f"{usual[0]} {usual[1]}"
    assert usual[2] not in words(bad_words=[usual[2]])
    kept = words(bad_words=[pair])
    assert kept[0] == usual[0]
    assert pair not in " ".join(kept)
    many = sorted(set(words(max_tokens=200)))[:60]
    assert not set(words(bad_words=many, max_tokens=200)) & set(many)


def test_penalties_make_words_rarer_and_a_negative_one_repeats_them():
    usual = Counter(words(max_tokens=400))
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 1.5}):
        rarer = words(max_tokens=400, **penalty)
        assert len(rarer) == 400
        assert len(set(rarer)) > len(usual) or max(Counter(rarer).values()) < max(usual.values())
        assert rarer == words(max_tokens=400, **penalty)
    assert len(set(words(frequency_penalty=-2.0))) < len(set(words()))


def test_only_allowed_ids_come_and_without_the_end_among_them_the_answer_goes_on_to_the_limit():
    allowed = ids(" road", " rain")
    (ask,) = asks(allowed_token_ids=allowed, max_tokens=None).asks
    assert {ask.piece(place) for place in range(ask.output_tokens)} == {" road", " rain"}
    assert (ask.output_tokens, ask.finish_reason) == (512 - 5, "length")
    (ended,) = asks(allowed_token_ids=[*allowed, END]).asks
    assert (ended.output_tokens, ended.finish_reason, ended.stop_reason) == (3, "stop", None)


def test_the_end_is_a_token_that_may_be_forced_or_kept_out():
    (ended,) = asks(logit_bias={str(END): 100}).asks
    assert (ended.output_tokens, ended.finish_reason) == (1, "stop")
    (later,) = asks(logit_bias={str(END): 100}, min_tokens=4).asks
    assert (later.output_tokens, later.finish_reason) == (5, "stop")
    (ignored,) = asks(logit_bias={str(END): 100}, ignore_eos=True).asks
    assert (ignored.output_tokens, ignored.finish_reason, ignored.text) == (24, "length", "")
    (kept,) = asks(logit_bias={str(END): -100}, max_tokens=None).asks
    assert kept.finish_reason == "length"


def test_beams_are_all_different_and_ordered_by_the_probabilities_that_they_show():
    call = asks(use_beam_search=True, n=6, max_tokens=5, logprobs=1, temperature=0)
    answers = [ask.let_out(0, 5, final=True) for ask in call.asks]
    assert len(set(answers)) == 6
    shown = [Odds(DESK.vocabulary, ask, call.shown).text(0, 5)["token_logprobs"] for ask in call.asks]
    sums = [sum(one) for one in shown]
    assert sums == sorted(sums, reverse=True)
    assert [ask.index for ask in call.asks] == list(range(6))


def test_a_form_is_made_without_excluded_words_or_refused():
    choice = {"structured_outputs": {"choice": ["yes", "no"]}}
    assert words(bad_words=["yes"], **choice) == ["no"]
    with pytest.raises(Refusal, match="no answer of this form without"):
        asks(bad_words=["yes", "no"], **choice)


@pytest.mark.parametrize(
    ("bad_words", "message"),
    [
        ([" "], "bad_words entries must tokenize to at least one token."),
        (["a"] * 129, "Too many bad words after tokenization: 129. The max number is 128."),
    ],
)
def test_bad_words_that_are_none_or_too_many_are_refused(bad_words, message):
    with pytest.raises(Refusal, match=message):
        asks(bad_words=bad_words)


def test_a_thinking_budget_bounds_the_reasoning():
    given = {"messages": [{"role": "user", "content": "one and one"}], "max_tokens": 100, "reasoning_effort": "low"}
    chat = compose_chat(read_fields(ChatBody, given | {"thinking_token_budget": 5}), DESK)
    assert len(chat.asks[0].thought) == 5


def test_all_of_the_vocabulary_is_listed_for_one_token_and_refused_for_many():
    served = Served(names=("m",), root="m", max_model_len=512, vocab_size=32_000, max_logprobs=-1)
    desk = Desk(served=served, vocabulary=Vocabulary(32_000))
    given = {"prompt": "tell me", "max_tokens": 1, "logprobs": -1}
    call = compose_completion(read_fields(CompletionBody, given), desk)
    (listed,) = Odds(desk.vocabulary, call.asks[0], call.shown).text(0, 1)["top_logprobs"]
    assert len(listed) > 31_000
    with pytest.raises(Refusal, match="lists at most 500,000 probabilities"):
        compose_completion(read_fields(CompletionBody, given | {"max_tokens": 100}), desk)


def test_where_every_usual_word_is_excluded_other_tokens_come():
    usual = {str(number): -100 for number in ids(*answer_ring())}
    (ask,) = asks(logit_bias=usual).asks
    drawn = [DESK.vocabulary.id_of(ask.piece(place)) for place in range(24)]
    assert not set(drawn) & {int(key) for key in usual}
    assert len(drawn) == 24


def test_many_allowed_or_wanted_tokens_cost_no_more_than_a_few():
    """What is looked at for a token is bounded, whatever a body of 64 MiB may name."""
    many = range(31_000)
    logits = Drawing(wishes_of(read(allowed_token_ids=list(many)), (), DESK.vocabulary), DESK.vocabulary, 0)._logits(5)
    assert list(logits) == list(range(5, 5 + CHOICES))
    wanted = wishes_of(read(logit_bias={str(number): 1 + number / 31_000 for number in many}), (), DESK.vocabulary)
    assert len(Drawing(wanted, DESK.vocabulary, 0)._logits(5)) <= CHOICES + MOST_WANTED
