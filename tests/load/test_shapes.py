"""Who sends when: back to back, thinking, ramps, steps, rates, traces, sessions."""

import asyncio
import json

import numpy as np
import pytest
import uvloop

from atoll.errors import BadTraffic, InputError
from atoll.load.conversations import read_conversations
from atoll.load.datasets import DatasetPrompts
from atoll.load.pace import LoadStep, moved_due, next_turn, parse_steps
from atoll.load.prompts import SyntheticPrompts
from atoll.load.run import LoadControl, measure_load
from atoll.load.target import RequestOptions
from atoll.traffic.demand import Demand
from atoll.traffic.request import Request
from atoll.traffic.trace import TraceRow
from atoll.traffic.workload import Arrivals, Workload
from stand_ins.clock import ClockLoop, ManualClock, TurnClock
from stand_ins.patience import beside, turns, until


def run(url, workload, *, during=None, loop_factory=uvloop.new_event_loop, **settings):
    options, control = settings.pop("options", RequestOptions(model="m")), LoadControl()

    async def both():
        work = measure_load(url, workload, options=options, control=control, **settings)
        return await beside(work, during(control) if during is not None else None)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(both())


def test_users_send_back_to_back_over_one_connection_each(naughty):
    clock = TurnClock()
    load = Workload(users=3, requests=30, prompt=8, output=4, start="at_once")
    result = run(naughty.url, load, during=lambda _: clock.count(), clock=clock)
    table = result.table
    assert table.outcome.count("ok") == 30
    assert naughty.connections == 3 + 2  # the others asked for the models and for counters
    for user in range(3):
        rows = np.flatnonzero(table.user == user)
        assert (table.sent_s[rows][1:] == table.done_s[rows][:-1]).all()  # within the same turn of the loop
    assert result.client.users_asked == 3
    assert set(table.replica) == {"1"}
    assert (table.prompt_tokens == 11).all()  # the server's usage, not our wish


def test_users_think_between_an_answer_and_the_next_request(naughty):
    table = run(naughty.url, Workload(users=2, requests=8, prompt=8, output=2, think_s=0.1, start="at_once")).table
    for user in range(2):
        rows = np.flatnonzero(table.user == user)
        assert (table.sent_s[rows][1:] - table.done_s[rows][:-1] >= 0.099).all()


def test_users_start_one_after_another(naughty):
    naughty.manner = "stall"
    clock = ManualClock()

    async def let_time_pass(control):
        for user in range(4):
            await until(lambda expected=user + 1: len(naughty.asked) == expected)
            await turns(20)
            assert len(naughty.asked) == user + 1  # nobody before their time
            clock.advance(0.1)
        control.stop("interrupted")

    load = Workload(users=4, duration_s=3600, prompt=8, output=2, start=0.4)
    table = run(naughty.url, load, during=let_time_pass, clock=clock, loop_factory=lambda: ClockLoop(clock)).table
    firsts = [float(table.sent_s[table.user == user].min()) for user in range(4)]
    assert firsts == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_nobody_sends_after_the_time_is_up_and_answers_may_end(naughty):
    naughty.gap_s = 0.01
    clock = ManualClock()

    async def let_time_pass(_control):
        await until(lambda: len(naughty.said) == 8 and min(naughty.said[:6]) == 8 > max(naughty.said[6:]))
        clock.advance(0.6)  # in the middle of answers

    load = Workload(users=2, duration_s=0.5, prompt=8, output=8, start="at_once")
    table = run(naughty.url, load, during=let_time_pass, clock=clock, loop_factory=lambda: ClockLoop(clock)).table
    assert table.sent_s.max() < 0.5
    assert set(table.outcome) == {"ok"}
    assert len(table) == 8
    assert table.done_s.max() > 0.5


def test_the_same_seed_asks_for_the_same_lengths_as_the_simulator(naughty):
    load = Workload(
        users=2,
        requests=10,
        prompt={"kind": "uniform", "mean": 50, "low": 5, "high": 90},
        output=3,
        seed=7,
        start="at_once",
    )
    table = run(naughty.url, load).table
    demand = Demand(load)
    wanted = {user: [demand.next_request(user, 0).prompt_tokens for _ in range(10)] for user in range(2)}
    words = [len(ask["messages"][0]["content"].split()) for ask in naughty.asked]
    by_user = {user: [words[number] for number in table.number[table.user == user]] for user in range(2)}
    assert all(by_user[user] == wanted[user][: len(by_user[user])] for user in range(2))


def test_users_start_over_the_time_of_one_request_that_is_sent_before_and_in_no_record(naughty):
    naughty.gap_s = 0.01
    load = Workload(users=4, requests=8, prompt=8, output=5, duration="10s")
    result = run(naughty.url, load)
    assert len(result.table) == 8
    assert len(naughty.asked) == 9
    first = np.array([result.table.sent_s[result.table.user == user].min() for user in range(4)])
    assert (np.diff(first) > 0).all()  # one after the other, and no two at once


def test_an_open_loop_counts_from_the_due_time_however_slow_the_server(naughty):
    naughty.manner = "mute"
    clock = ManualClock()

    async def let_time_pass(control):
        await until(lambda: control._stop is not None)  # it has begun
        for number in range(1, 12):
            clock.advance(0.0501)
            await until(lambda expected=number: len(naughty.asked) == expected)
        control.stop("interrupted")

    load = Workload(rate=20, arrivals="constant", duration_s=0.6, prompt=8, output=2)
    table = run(naughty.url, load, during=let_time_pass, clock=clock, loop_factory=lambda: ClockLoop(clock)).table
    assert table.due_s == pytest.approx(np.arange(1, len(table) + 1) * 0.05)
    assert (table.sent_s >= table.due_s).all()
    assert (table.sent_s - table.due_s).max() < 0.01
    assert len(table) == 11


def test_a_trace_is_replayed_with_its_times_and_lengths(naughty):
    trace = [
        TraceRow(due_s=0.0, prompt_tokens=5, output_tokens=2),
        TraceRow(due_s=0.3, prompt_tokens=9, output_tokens=4),
    ]
    load = Workload(arrivals=Arrivals.TRACE, prompt=1, output=1)
    table = run(naughty.url, load, trace=trace).table
    assert table.due_s == pytest.approx([0.0, 0.3])
    assert table.output_tokens.tolist() == [2, 4]
    assert [len(ask["messages"][0]["content"].split()) for ask in naughty.asked] == [5, 9]


def test_steps_change_the_number_of_users(naughty):
    steps = parse_steps("1@400ms,4@400ms,2@400ms")
    load = Workload(users=4, duration_s=1.2, prompt=8, output=2, start="at_once")
    clock = ManualClock()

    async def let_time_pass(_control):
        for tenths in range(1, 13):
            await until(lambda answers=40 * tenths: len(naughty.asked) >= answers)  # ten of each user
            clock.advance(0.1)

    loop = {"clock": clock, "loop_factory": lambda: ClockLoop(clock)}
    table = run(naughty.url, load, steps=steps, during=let_time_pass, **loop).table
    seen = [set(table.user[(table.sent_s >= step.start_s) & (table.sent_s < step.end_s)].tolist()) for step in steps]
    assert seen == [{0}, {0, 1, 2, 3}, {0, 1}]


def test_steps_of_a_rate_move_the_due_times(naughty):
    steps = parse_steps("10@500ms,40@500ms")
    load = Workload(rate=40, arrivals="constant", requests=1000, prompt=8, output=1)  # the steps end it
    table = run(naughty.url, load, steps=steps).table
    assert (table.due_s < 0.5).sum() == pytest.approx(5, abs=1)
    assert (table.due_s >= 0.5).sum() == pytest.approx(20, abs=1)


def test_steps_are_read_and_refused():
    assert parse_steps("10@30s, 20@1m") == (
        LoadStep(load=10, start_s=0, end_s=30),
        LoadStep(load=20, start_s=30, end_s=90),
    )
    for text in ("", "10", "10@", "10@0s", "a@3s"):
        with pytest.raises(InputError):
            parse_steps(text)


def test_the_worked_number_of_moved_due_times():
    steps = parse_steps("2@10s,4@10s")
    assert moved_due(steps, 5.0) == pytest.approx(10.0)
    assert moved_due(steps, 2.5) == pytest.approx(5.0)
    assert moved_due(steps, 100.0) is None
    assert next_turn(steps, 3, 2.0) == 10.0
    assert next_turn(steps, 3, 30.0) is None


def test_a_session_carries_what_was_said_and_answered(naughty):
    naughty.tokens = 3
    run(naughty.url, Workload(users=1, requests=6, prompt=4, output=3, turns=3, start="at_once"))
    messages = [ask["messages"] for ask in naughty.asked]
    assert [len(said) for said in messages] == [1, 3, 5, 1, 3, 5]
    first, second = messages[0], messages[1]
    assert second[0] == first[0]
    assert second[1] == {"role": "assistant", "content": " w0 w1 w2"}
    assert len(second[2]["content"].split()) == 4


def test_completions_and_answers_at_once(naughty):
    load = Workload(users=1, requests=2, prompt=4, output=3, start="at_once")
    table = run(f"{naughty.url}/v1/completions", load, options=RequestOptions(model="m", stream=False)).table
    assert table.outcome == ("ok", "ok")
    assert np.isnan(table.first_token_s).all()
    assert table.output_tokens.tolist() == [3, 3]
    assert "prompt" in naughty.asked[0]


def test_the_model_is_asked_for_when_it_is_not_named(naughty):
    result = run(
        naughty.url, Workload(users=1, requests=1, prompt=4, output=3, start="at_once"), options=RequestOptions()
    )
    assert result.model == "the-model"
    assert naughty.asked[0]["model"] == "the-model"


def test_tls_with_a_certificate_that_we_trust(naughty_tls):
    from pathlib import Path

    cert = Path(__file__).parents[1] / "data" / "tls" / "cert.pem"
    load = Workload(users=2, requests=6, prompt=4, output=3, start="at_once")
    for options in (RequestOptions(model="m", ca_file=str(cert)), RequestOptions(model="m", verify_tls=False)):
        assert run(naughty_tls.url, load, options=options).table.outcome.count("ok") == 6


def test_no_two_prompts_share_a_beginning_unless_asked():
    prompts = SyntheticPrompts(seed=1)
    made = [prompts.make(Request(number=n, user=n, prompt_tokens=40, output_tokens=1)).text for n in range(500)]
    assert len({text[:60] for text in made}) == 500
    assert {len(text.split()) for text in made} == {40}
    shared = [
        prompts.make(Request(number=n, user=n, prompt_tokens=40, output_tokens=1, shared_prefix_tokens=16)).text.split()
        for n in range(50)
    ]
    assert len({tuple(words[:16]) for words in shared}) == 1
    assert len({tuple(words[16:]) for words in shared}) == 50
    assert {len(words) for words in shared} == {40}


def test_the_same_seed_says_the_same():
    request = Request(number=3, user=3, prompt_tokens=300, output_tokens=1)
    assert SyntheticPrompts(seed=4).make(request) == SyntheticPrompts(seed=4).make(request)
    assert SyntheticPrompts(seed=4).make(request) != SyntheticPrompts(seed=5).make(request)


def test_prompts_longer_than_the_text_go_round():
    made = SyntheticPrompts(seed=1).make(Request(number=3, user=3, prompt_tokens=450_000, output_tokens=1))
    assert len(made.text.split()) == 450_000


SHARE_GPT = [
    {"id": "a", "conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello there"}]},
    {
        "id": "b",
        "conversations": [
            {"from": "system", "value": "be brief"},
            {"from": "human", "value": 'say "x"\n'},
            {"from": "gpt", "value": "x"},
            {"from": "human", "value": "again"},
        ],
    },
]


def test_users_who_start_later_are_connected_ahead_and_once(naughty, monkeypatch):
    monkeypatch.setattr("atoll.load.sender._EARLY_USERS", 4)
    naughty.manner = "held"

    clock = ManualClock()

    async def let_time_pass(_control):
        await until(lambda: naughty.connections == 40 + 2)  # two asked for the models and for counters
        while len(naughty.asked) < 40:
            clock.advance(0.01)
            await turns(2)
        naughty.let_go()

    load = Workload(users=40, requests=40, start=1.0, prompt=8, output=20)
    table = run(naughty.url, load, during=let_time_pass, clock=clock, loop_factory=lambda: ClockLoop(clock)).table
    assert set(table.outcome) == {"ok"}
    assert len(set(table.user.tolist())) == 40
    assert naughty.connections == 40 + 2


def test_a_run_that_ends_while_connections_are_made_ahead_ends_quietly(naughty, monkeypatch):
    monkeypatch.setattr("atoll.load.sender._EARLY_USERS", 1)
    table = run(naughty.url, Workload(users=300, requests=1, start=1.5, prompt=8, output=1)).table
    assert table.outcome == ("ok",)


def test_prompts_do_not_come_again_after_all_places_are_taken():
    prompts = SyntheticPrompts(seed=1)

    def text(number, tokens=40):
        return prompts.make(Request(number=number, user=0, prompt_tokens=tokens, output_tokens=1)).text

    numbers = [lap * 200_000 + number for lap in (0, 1, 2, 400, 160_000) for number in (0, 1, 77, 199_999)]
    assert len({text(number)[:100] for number in numbers}) == len(numbers)
    assert {len(text(number).split()) for number in numbers} == {40}
    assert {len(text(number, 1).split()) for number in numbers} == {1}


def test_sharegpt(tmp_path, naughty):
    path = tmp_path / "share.json"
    path.write_text(json.dumps(SHARE_GPT))
    conversations = read_conversations(path)
    assert [len(item.turns) for item in conversations] == [1, 2]
    prompts = DatasetPrompts(conversations, origin="share.json", seed=1)
    run(naughty.url, Workload(users=1, requests=2, prompt=1, output=2, start="at_once"), prompts=prompts)
    said = sorted([(m["role"], m["content"]) for m in ask["messages"]] for ask in naughty.asked)
    assert said == [[("system", "be brief"), ("user", 'say "x"\n')], [("user", "hi")]]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("a.jsonl", '{"prompt": "one"}\n{"messages": [{"role": "user", "content": "two"}]}\n', ["one", "two"]),
        ("a.csv", 'id,prompt,output_tokens\n1,one,5\n2,"two, three",\n', ["one", "two, three"]),
        ("a.txt", "all of it\nis one", ["all of it\nis one"]),
        ("a.json", '["one", "two"]', ["one", "two"]),
    ],
)
def test_files_of_prompts(tmp_path, name, content, texts):
    (tmp_path / name).write_text(content)
    assert [item.turns[0].text for item in read_conversations(tmp_path / name)] == texts


def test_a_folder_of_texts(tmp_path):
    for name in ("b", "a"):
        (tmp_path / f"{name}.txt").write_text(name)
    assert [item.turns[0].text for item in read_conversations(tmp_path)] == ["a", "b"]


@pytest.mark.parametrize("content", ["[]", "[1, 2]", '[{"a": 1}]', "nope", "id,x\n1,2\n"])
def test_a_file_without_prompts_says_what_is_expected(tmp_path, content):
    path = tmp_path / ("a.csv" if content.startswith("id") else "a.json")
    path.write_text(content)
    with pytest.raises(BadTraffic):
        read_conversations(path)


def test_a_tokenizer_on_disk_makes_lengths_exact(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    from atoll.load.prompts import WORDS
    from atoll.load.tokens import find_tokenizer, read_vocabulary

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    corpus = [" ".join(WORDS[:200]), "\n".join(WORDS[:200])] * 3
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=1600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    template = "{% for m in messages %}<|{{ m.role }}|> {{ m.content }}{% endfor %}<|assistant|>"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    path = find_tokenizer(str(tmp_path), given=None, home=None)
    words, count = read_vocabulary(path, chat=True)
    assert words.how.startswith("exact")
    assert 100 < len(words.words) <= len(WORDS)
    prompts = SyntheticPrompts(seed=1, words=words.words, overhead=words.overhead)
    for tokens in (60, 200, 1000):
        text = prompts.make(Request(number=tokens, user=0, prompt_tokens=tokens, output_tokens=1)).text.decode()
        rendered = template.replace("{% for m in messages %}", "").replace("{% endfor %}", "")
        rendered = rendered.replace("{{ m.role }}", "user").replace("{{ m.content }}", text)
        assert count(rendered) == tokens


def test_a_small_tokenizer_lends_its_own_words(tmp_path):
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from atoll.load.tokens import read_vocabulary

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    korean = (
        "모든 사용자는 질문을 보내고 긴 답을 기다리며 서버는 여러 요청을 한꺼번에 처리하고 남은 것은 줄을 서서 차례를 기다린다 "
        "그래서 첫째 토큰까지 걸리는 시간이 사람이 느끼는 속도를 정한다"
    )
    corpus = [f"{korean} {' '.join(reversed(korean.split()))}"] * 20
    tokenizer.train_from_iterator(
        corpus, trainers.BpeTrainer(vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    words, count = read_vocabulary(tmp_path / "tokenizer.json", chat=False)
    assert "기다린다" in words.words
    prompts = SyntheticPrompts(seed=1, words=words.words, overhead=words.overhead)
    for tokens in (60, 200, 1000):
        text = prompts.make(Request(number=tokens, user=0, prompt_tokens=tokens, output_tokens=1)).text.decode()
        assert abs(count(text) - tokens) <= 2  # the first word has no blank before it


def test_a_tokenizer_without_words_still_counts(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    from atoll.load.tokens import read_vocabulary

    letters = {letter: number for number, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}
    tokenizer = Tokenizer(models.BPE(vocab=letters, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    words, count = read_vocabulary(tmp_path / "tokenizer.json", chat=False)
    assert words.how.startswith("about right")
    prompts = SyntheticPrompts(seed=1, words=words.words, tokens_per_word=words.tokens_per_word)
    text = prompts.make(Request(number=0, user=0, prompt_tokens=3000, output_tokens=1)).text.decode()
    assert count(text) == pytest.approx(3000, rel=0.1)
