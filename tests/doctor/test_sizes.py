"""How a model can be split: what `atoll model` lists, what plan takes and what the doctor lets pass are the same sizes."""

import pytest

from atoll.doctor.checks.fit import groups_do_not_divide, heads_do_not_divide
from atoll.engines import find_engine
from atoll.engines.engine import SIZES
from atoll.inventory.catalog import find_gpu
from atoll.model.catalog import find_card, known_models
from atoll.plan.enumerate import list_splits
from atoll.workflows.model import report_model
from stand_ins.examples import facts_of

H100 = find_gpu("H100-SXM-80GB")


def told_by_doctor(model, *options):
    """The sizes that MF001 or MF003 speaks against, and no size by both."""
    services = "\n".join(
        f"  s{size}: {{image: 'vllm/vllm-openai:v0.32.0', command: [{', '.join((model, *options))}, -tp, '{size}']}}"
        for size in SIZES
    )
    facts = facts_of({"compose.yaml": f"services:\n{services}\n"})
    assert all(engine.card is not None for engine in facts.engines)
    lines = [found.line - 1 for rule in (heads_do_not_divide, groups_do_not_divide) for found in rule.run(facts)]
    assert len(set(lines)) == len(lines)
    return set(lines)


@pytest.mark.parametrize("name", known_models())
def test_model_plan_and_doctor_agree_on_every_size(name):
    card = find_card(name)
    splits, _ = list_splits(card, dict.fromkeys(SIZES, H100), find_engine("vllm"))
    planned = {split.tensor_parallel for split in splits}
    whole = {size for size in SIZES if find_engine("vllm").why_whole_experts(card, size) is not None}
    listed = set(report_model(name, gpu="H100-SXM-80GB").legal_tensor_parallel)
    assert planned - whole == set(SIZES) - told_by_doctor(name)
    assert listed == planned - whole
    if card.experts is not None:
        assert planned == set(SIZES) - told_by_doctor(name, "--enable-expert-parallel")


def test_the_example_that_no_room_agreed_on():
    """13824 channels of Llama-2-13b do not divide by 5, though its 40 heads do."""
    assert report_model("meta-llama/Llama-2-13b-hf", gpu="H100").legal_tensor_parallel == (1, 2, 4, 8)
    assert 5 in told_by_doctor("meta-llama/Llama-2-13b-hf")


def test_a_size_that_whole_experts_would_mend_says_so():
    facts = facts_of(
        {
            "compose.yaml": "services: {v: {image: 'vllm/vllm-openai:v0.32.0', command:"
            " [Qwen/Qwen3-235B-A22B-Instruct-2507-FP8, -tp, '8']}}"
        }
    )
    (told,) = groups_do_not_divide.run(facts)
    assert told.what.endswith("1536 / 8 intermediate channels are no whole number of fp8 blocks of 128")
    assert told.fix.endswith("or --enable-expert-parallel, which leaves every expert whole.")
    assert not list(heads_do_not_divide.run(facts))
