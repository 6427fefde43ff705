"""What one engine computes step by step, in examples small enough to follow."""

import pytest

from atoll.cost.step import StepBatch
from atoll.engines.engine import SchedulerLimits
from atoll.simulate.blocks import BlockPool
from atoll.simulate.job import Job
from atoll.simulate.scheduler import Scheduler


def scheduler(*, blocks=1000, prefix_caching=True, **limits):
    limits = {"max_num_batched_tokens": 100, "async_scheduling": False} | limits
    return Scheduler(SchedulerLimits(**limits), BlockPool(blocks, prefix_caching=prefix_caching))


def job(number, prompt, output, **more):
    return Job(number=number, prompt_tokens=prompt, output_tokens=output, **more)


def batches(engine, count):
    made = []
    for _ in range(count):
        step = engine.schedule()
        engine.complete(step)
        made.append(step.batch)
    return made


def test_one_request_is_a_prompt_and_then_decodes():
    engine = scheduler()
    engine.add(job(0, 30, 3))
    assert batches(engine, 3) == [
        StepBatch(prefills=((30, 0),)),
        StepBatch(decodes=1, decode_context=30),
        StepBatch(decodes=1, decode_context=31),
    ]
    assert engine.schedule() is None
    assert engine.pool.free == 1000


def test_a_long_prompt_is_computed_in_chunks_beside_decodes():
    engine = scheduler()
    engine.add(job(0, 10, 9))
    engine.add(job(1, 250, 9))
    assert batches(engine, 4) == [
        StepBatch(prefills=((10, 0), (90, 0))),
        StepBatch(prefills=((99, 90),), decodes=1, decode_context=10),
        StepBatch(prefills=((61, 189),), decodes=1, decode_context=11),
        StepBatch(decodes=2, decode_context=12 + 250),
    ]


def test_waiting_requests_join_in_order_while_there_is_a_seat():
    engine = scheduler(max_num_seqs=2)
    jobs = [job(n, 10, 3) for n in range(4)]
    for one in jobs:
        engine.add(one)
    step = engine.schedule()
    assert step.first_tokens == (jobs[0], jobs[1])
    engine.complete(step)
    engine.complete(engine.schedule())
    assert engine.complete(engine.schedule()) == jobs[:2]
    assert engine.schedule().first_tokens == (jobs[2], jobs[3])


def test_a_full_queue_refuses():
    engine = scheduler(max_num_queued_reqs=2)
    assert [engine.add(job(n, 10, 3)) for n in range(3)] == [True, True, False]


def test_the_last_to_join_is_preempted_and_computed_anew():
    # 5 blocks of 16: two requests of 32 tokens hold 2 each; at the first decode each wants a third one.
    engine = scheduler(blocks=5, prefix_caching=False)
    first, second = job(0, 32, 20), job(1, 32, 20)
    engine.add(first)
    engine.add(second)
    engine.complete(engine.schedule())
    step = engine.schedule()
    assert step.preempted == (second,)
    assert step.batch == StepBatch(decodes=1, decode_context=32)
    assert list(engine.waiting) == [second]
    assert engine.preemptions == 1
    while second not in engine.running:
        engine.complete(step)
        step = engine.schedule()
    # Prompt and the one token it had are computed again, when the first has ended.
    assert first.gone
    assert step.batch == StepBatch(prefills=((33, 0),))
    finished = []
    while step is not None:
        finished += engine.complete(step)
        step = engine.schedule()
    assert finished == [second]


def test_with_the_prefix_cache_a_preempted_request_finds_what_was_not_reused():
    engine = scheduler(blocks=6)
    for one in (job(0, 32, 40), job(1, 40, 40)):
        engine.add(one)
    step = engine.schedule()
    while not step.preempted:
        engine.complete(step)
        step = engine.schedule()
    assert step.preempted[0].number == 1
    while 1 not in {one.number for one in engine.running}:
        engine.complete(step)
        step = engine.schedule()
    ((new, cached),) = step.batch.prefills
    assert cached > 0
    assert cached % 16 == 0
    assert new + cached == 40 + 1 + 8  # its prompt and the nine tokens it had, of which it lost one block in the end


def test_a_request_joins_only_when_its_whole_prompt_fits():
    for reserve, joins in ((True, 0), (False, 1)):
        engine = scheduler(blocks=10, reserve_full_prompt=reserve)
        engine.add(job(0, 32, 100))
        engine.complete(engine.schedule())
        engine.add(job(1, 150, 10))  # 10 blocks; 8 are free
        assert len(engine.schedule().prefills) == joins


def test_max_tokens_is_known_ahead_but_an_eos_costs_one_more_slot():
    for ends_by_eos, decodes_after_the_last_token in ((False, 1), (True, 2)):
        engine = scheduler(async_scheduling=True)
        short, long = job(0, 10, 2, ends_by_eos=ends_by_eos), job(1, 10, 9)
        engine.add(short)
        engine.add(long)
        prompts = engine.schedule()
        both = engine.schedule()  # scheduled while the prompts run
        engine.complete(prompts)
        after = engine.schedule()  # scheduled while the short one's last token is on its way
        assert both.batch.decodes == 2
        assert engine.complete(both) == [short]
        assert after.batch.decodes == decodes_after_the_last_token
        assert list(after.tokens()) == [long]


def test_scheduling_ahead_a_newcomer_waits_one_step_longer():
    engine = scheduler(async_scheduling=True)
    engine.add(job(0, 10, 9))
    prompt = engine.schedule()
    first = engine.schedule()
    engine.complete(prompt)
    engine.add(job(1, 10, 9))  # comes while `first` starts: the step after it is what can take it in
    assert not first.prefills
    assert engine.schedule().prefills


def test_the_older_engine_computes_prompts_first_and_alone():
    engine = scheduler(prefill_first=True, chunked_prefill=False)
    engine.add(job(0, 60, 9))
    engine.complete(engine.schedule())
    for number in (1, 2, 3):
        engine.add(job(number, 40, 9))
    assert batches(engine, 3) == [
        StepBatch(prefills=((40, 0), (40, 0))),  # the third would be 120 of 100 tokens
        StepBatch(prefills=((40, 0),)),  # and the decode of the first waits again
        StepBatch(decodes=4, decode_context=60 + 3 * 40),
    ]


def test_a_request_longer_than_the_cache_can_never_be_served():
    engine = scheduler(blocks=4)
    assert engine.takes(job(0, 60, 5))  # 64 tokens are cached; the last one's keys are never written
    assert not engine.takes(job(0, 60, 6))
    older = scheduler(blocks=400, prefill_first=True, chunked_prefill=False)
    assert not older.takes(job(0, 101, 1))


def test_an_aborted_request_gives_its_blocks_back():
    engine = scheduler()
    jobs = [job(n, 30, 9) for n in range(3)]
    for one in jobs:
        engine.add(one)
    step = engine.schedule()
    engine.abort(jobs[0])
    assert list(step.tokens()) == [jobs[1], jobs[2]]
    engine.complete(step)
    engine.abort(jobs[1])
    engine.abort(jobs[1])
    assert engine.schedule().batch == StepBatch(decodes=1, decode_context=30)
    engine.abort(jobs[2])
    assert engine.pool.free == 1000


def test_counters_for_metrics():
    engine = scheduler(blocks=100)
    engine.add(job(0, 40, 9, chain=((("prefix", 0), 2),)))
    engine.complete(engine.schedule())
    engine.add(job(1, 40, 9, chain=((("prefix", 0), 2),)))
    engine.schedule()
    assert (len(engine.running), len(engine.waiting)) == (2, 0)
    assert (engine.prefix_queries, engine.prefix_hits) == (80, 32)
    assert engine.kv_usage == pytest.approx((3 + 1) / 100)  # the second shares two blocks with the first


def test_quiet_steps_end_with_the_first_answer_or_the_last_free_block():
    engine = scheduler(blocks=8, prefix_caching=False)
    engine.add(job(0, 30, 50))
    engine.add(job(1, 30, 20))
    engine.complete(engine.schedule())
    assert engine.quiet_steps() == 19
    engine.add(job(2, 10, 5))
    assert engine.quiet_steps() == 0  # it could join
    engine.schedule()
    assert engine.pool.free == 8 - 2 - 2 - 1
