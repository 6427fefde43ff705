"""One replica, every setting resolved."""

import pytest

from atoll.engines import ENGINES
from atoll.engines.spec import EngineSpec, kind_of
from atoll.errors import InputError
from atoll.inventory.catalog import find_gpu, make_box
from atoll.layout.layout import EngineFlags, Layout, Replica
from atoll.model.read import find_card
from stand_ins.specs import spec_of

CARD = find_card("Qwen2.5-32B-Instruct")
H100, L40S = find_gpu("H100-NVL-94GB"), find_gpu("L40S-48GB")


def test_a_plain_replica_has_the_engines_own_settings():
    spec = spec_of(CARD, H100)
    assert (spec.max_num_seqs, spec.max_num_batched_tokens, spec.max_model_len) == (1024, 8192, 32768)
    assert (spec.chunked_prefill, spec.prefix_caching, spec.async_scheduling) == (True, True, True)
    assert (spec.kv_cache_dtype, spec.quantization, spec.expert_parallel, spec.enforce_eager) == (
        "auto",
        None,
        False,
        False,
    )
    assert spec.version == (0, 32, 0)


def test_the_settings_are_the_cards_and_the_releases_own():
    assert (spec_of(CARD, L40S).max_num_seqs, spec_of(CARD, L40S).max_num_batched_tokens) == (256, 2048)
    early = spec_of(CARD, H100, engine_version="0.8.5")
    assert (early.async_scheduling, early.steps.early_inputs, early.memory.graphs_budgeted) == (False, True, False)


def test_what_is_asked_for_stays():
    spec = spec_of(CARD, H100, max_num_seqs=32, max_model_len=8192, kv_cache_dtype="fp8", gpu_memory_utilization=0.8)
    assert (spec.max_num_seqs, spec.max_model_len, spec.kv_cache_dtype, spec.gpu_memory_utilization) == (
        32,
        8192,
        "fp8",
        0.8,
    )


def test_the_checkpoint_decides_on_an_auto_cache():
    packed = CARD.replace(quantisation=CARD.quantisation.replace(kv_dtype="fp8"))
    assert spec_of(packed, H100).kv_cache_dtype == "fp8"


def test_the_older_engine_computes_prompts_first():
    limits = spec_of(CARD, H100, engine_version="0.8.5", enable_chunked_prefill=False).limits
    assert (limits.prefill_first, limits.chunked_prefill, limits.async_scheduling) == (True, False, False)
    assert limits.watermark == 0.01
    assert limits.max_num_batched_tokens == CARD.max_context  # a whole prompt fits into a step


def test_the_emulated_engine_is_resolved_as_what_it_stands_in_for():
    one, other = (spec_of(CARD, L40S, engine=name) for name in ("vllm", "emulated"))
    assert (one.limits, one.memory, one.steps) == (other.limits, other.memory, other.steps)
    assert ENGINES["emulated"].legal_tensor_parallel(CARD) == ENGINES["vllm"].legal_tensor_parallel(CARD)


def on(names, **split):
    box = make_box("H100-NVL-94GB", len(names))
    box = box.replace(gpus=tuple(gpu.replace(name=name) for gpu, name in zip(box.gpus, names, strict=True)))
    replica = Replica(gpus=box.indices, tensor_parallel=len(names))
    return Layout(name="x", model="m", box=box, replicas=(replica,), **split), replica


def test_cards_of_several_kinds_are_refused_in_one_sentence():
    with pytest.raises(InputError) as refused:
        EngineSpec.of(*on(["H100-NVL-94GB", "L40S-48GB"]), CARD)
    assert str(refused.value) == (
        "x: a replica on cards of several kinds (H100-NVL-94GB, L40S-48GB) goes at the pace of the slowest and cannot"
        " be reckoned with; give each kind replicas of its own."
    )


def test_two_names_of_one_card_are_one_kind():
    assert kind_of(*on(["H100-NVL-94GB", "NVIDIA H100 NVL"])) == H100


def test_a_card_without_a_name_is_refused():
    with pytest.raises(InputError, match="name them with --gpu"):
        kind_of(*on(["H100-NVL-94GB", None]))


def test_an_engine_that_is_not_there_is_refused():
    layout, replica = on(["H100-NVL-94GB"], engine="sglang")
    with pytest.raises(InputError, match="'sglang' is no engine"):
        EngineSpec.of(layout, replica, CARD)


def test_flags_are_those_of_the_layout():
    layout, replica = on(["H100-NVL-94GB"], flags=EngineFlags(max_num_seqs=7))
    assert EngineSpec.of(layout, replica, CARD).max_num_seqs == 7
