"""More memory, more cards or fewer bits never lower what fits."""

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.cost.memory import fit_memory, users_that_fit
from atoll.engines.vllm.splits import legal_tensor_parallel
from atoll.inventory.catalog import all_gpus
from atoll.model.catalog import find_card, known_models
from stand_ins.specs import spec_of

CARDS = st.sampled_from(known_models()).map(find_card)
KINDS = st.sampled_from(all_gpus())
SIZES = st.sampled_from((1, 2, 4, 8))
SHARES = st.floats(0.3, 1.0)
SEQS = st.integers(1, 2048)
BUDGETS = st.integers(256, 65536)


def fit_of(card, kind, **settings):
    """Under the batch sizes of a large card: a card's own would hide what its memory does."""
    return fit_memory(spec_of(card, kind, **{"max_num_seqs": 1024, "max_num_batched_tokens": 8192, **settings}))


@given(CARDS, KINDS, SIZES, SHARES, st.integers(0, 200 * 10**9))
@settings(max_examples=150, deadline=None)
def test_more_memory_never_lowers_what_fits(card, kind, size, share, more):
    larger = kind.replace(memory_bytes=kind.memory_bytes + more)
    less, most = (fit_of(card, k, tensor_parallel=size, gpu_memory_utilization=share) for k in (kind, larger))
    assert most.kv_tokens >= less.kv_tokens
    assert users_that_fit(most, 3000) >= users_that_fit(less, 3000)


@given(CARDS, KINDS, SHARES, SHARES)
@settings(max_examples=100, deadline=None)
def test_a_larger_share_of_the_card_never_lowers_what_fits(card, kind, one, other):
    low, high = sorted((one, other))
    less, most = (fit_of(card, kind, gpu_memory_utilization=share) for share in (low, high))
    assert most.kv_tokens >= less.kv_tokens


@given(CARDS, KINDS, SIZES, st.tuples(SEQS, SEQS), st.tuples(BUDGETS, BUDGETS))
@settings(max_examples=100, deadline=None)
def test_smaller_batches_never_lower_what_fits(card, kind, size, seqs, budgets):
    small, large = (
        fit_of(card, kind, tensor_parallel=size, max_num_seqs=pick(seqs), max_num_batched_tokens=pick(budgets))
        for pick in (min, max)
    )
    assert small.kv_tokens >= large.kv_tokens


@given(CARDS, KINDS)
@settings(max_examples=100, deadline=None)
def test_twice_the_cards_never_hold_less(card, kind):
    legal = legal_tensor_parallel(card, (2, 4, 8))
    fits = [fit_of(card, kind, tensor_parallel=size).kv_tokens for size in legal]
    assert fits == sorted(fits)


@given(CARDS, KINDS, SIZES)
@settings(max_examples=100, deadline=None)
def test_fp8_keys_never_hold_fewer_tokens(card, kind, size):
    plain, fp8 = (fit_of(card, kind, tensor_parallel=size, kv_cache_dtype=dtype) for dtype in ("auto", "fp8"))
    assert fp8.kv_tokens >= plain.kv_tokens


@given(CARDS, KINDS, SIZES, SHARES)
@settings(max_examples=100, deadline=None)
def test_the_parts_never_exceed_the_budget(card, kind, size, share):
    fit = fit_of(card, kind, tensor_parallel=size, gpu_memory_utilization=share)
    used = fit.weight_bytes + fit.activation_bytes + fit.graph_bytes + fit.overhead_bytes
    assert fit.fits == (fit.reason is None)
    assert used + fit.kv_bytes <= fit.budget_bytes or not fit.fits
    assert fit.kv_blocks * 16 == fit.kv_tokens
    if not fit.pool.has_states and not card.attention.sliding_layers:  # else a long request takes less a token
        assert users_that_fit(fit, fit.kv_tokens + 16) <= 1
