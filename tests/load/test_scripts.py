"""Synthetic prompts in other scripts than English."""

import asyncio
import json

import pytest
import uvloop

from atoll.errors import InputError
from atoll.load.run import measure_load
from atoll.load.scripts import SCRIPTS, letters_a_word, words_of_script
from atoll.load.target import RequestOptions
from atoll.load.tokens import by_letters, read_vocabulary
from atoll.traffic.workload import Workload


def test_each_script_has_words_of_its_own_that_json_need_not_escape():
    assert words_of_script("ko") is SCRIPTS["korean"]
    for name, words in SCRIPTS.items():
        assert len(set(words)) >= 40, name
        assert all(json.dumps(word, ensure_ascii=False)[1:-1] == word for word in words)
    with pytest.raises(InputError, match="--script klingon is not one of english, korean"):
        words_of_script("klingon")


def test_tokens_of_words_are_counted_by_the_models_tokenizer(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    letters = sorted({letter for word in SCRIPTS["korean"] for letter in word})
    vocabulary = {token: number for number, token in enumerate(["[UNK]", *letters])}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    made = tokenizers.Tokenizer(model)
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [
            tokenizers.pre_tokenizers.WhitespaceSplit(),
            tokenizers.pre_tokenizers.Split(tokenizers.Regex("."), "isolated"),
        ]
    )
    made.save(str(tmp_path / "tokenizer.json"))
    known, count = read_vocabulary(tmp_path / "tokenizer.json", chat=False, script="korean")
    assert count("사람 시간") == 4  # a token a letter
    assert known.tokens_per_word == pytest.approx(letters_a_word(known.words) - 1)
    assert "korean" in known.how


def test_without_a_tokenizer_a_letter_is_a_token_and_the_server_is_told_the_text_as_it_is(naughty):
    assert by_letters("ko").tokens_per_word > 2

    async def story():
        load = Workload(users=1, requests=2, start="at_once", prompt=100, output=4)
        return await measure_load(naughty.url, load, options=RequestOptions(model="m", script="korean"))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(story())
    said = naughty.asked[0]["messages"][0]["content"]
    assert set(said.split()) <= set(SCRIPTS["korean"])
    assert 80 <= len(said) <= 120
    assert "korean" in result.prompts
    assert result.client.request_bytes_mean > len(said.encode()) > 2 * len(said)
    assert result.client.request_bytes_max >= result.client.request_bytes_mean
