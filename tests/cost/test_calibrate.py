"""Measured points become a profile that agrees with them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.cost.calibrate import DecodePoint, PromptPoint, fit_line, fit_scales, predict_point
from atoll.cost.profile import Line, MachineProfile, MeasuredReduce
from atoll.cost.step import StepBatch, StepModel
from atoll.errors import InputError
from atoll.inventory.catalog import find_gpu, make_box
from atoll.model.read import read_model
from stand_ins.specs import spec_of

CARD, KIND = read_model("meta-llama/Llama-3.1-8B-Instruct"), find_gpu("H100")


def engine(profile, version="0.32.0"):
    return StepModel(spec_of(CARD, KIND, engine_version=version, max_num_seqs=256), profile=profile)


ASKED = [DecodePoint(sequences=n, context=float(n * c), seconds=1.0) for n, c in ((1, 64), (1, 8000), (16, 64), (64, 64), (32, 2000), (8, 8000))] + [
    PromptPoint(tokens=tokens, seconds=1.0) for tokens in (120, 500, 1000, 2000, 4050, 8100)
]  # fmt: skip


def measured_on(model, noise=0.0, seed=1):
    rng = np.random.default_rng(seed)
    points = []
    for point in ASKED:
        seconds = predict_point(model, point) * float(1 + noise * rng.standard_normal())
        values = {"seconds": seconds}
        if isinstance(point, DecodePoint):
            points.append(DecodePoint(sequences=point.sequences, context=point.context, **values))
        else:
            points.append(PromptPoint(tokens=point.tokens, **values))
    return points


@settings(max_examples=8, deadline=None)
@given(weights=st.floats(0.7, 1.5), compute=st.floats(0.7, 1.5), attention=st.floats(0.6, 1.8))
def test_an_engines_constants_are_recovered_to_three_percent(weights, compute, attention):
    true = MachineProfile(weights_time=weights, compute_time=compute, attention_time=attention, front_s=2e-3)
    fit = fit_scales(measured_on(engine(true), noise=0.002), engine, start=MachineProfile())
    found = fit.profile
    assert (found.weights_time, found.compute_time, found.attention_time) == pytest.approx(
        (weights, compute, attention), rel=0.03
    )
    assert fit.mean_error < 0.005


def test_one_disturbed_point_does_not_spoil_the_rest():
    true = MachineProfile(weights_time=1.2, compute_time=0.9, attention_time=1.3, front_s=2e-3)
    points = measured_on(engine(true))
    points[1] = DecodePoint(sequences=1, context=8000.0, seconds=points[1].seconds * 2)
    found = fit_scales(points, engine, start=MachineProfile()).profile
    assert (found.weights_time, found.compute_time) == pytest.approx((1.2, 0.9), rel=0.03)


def test_what_no_point_tells_stays_as_it_was():
    true = MachineProfile(weights_time=1.1, compute_time=1.1, attention_time=1.1)
    found = fit_scales(measured_on(engine(true)), engine, start=MachineProfile(name="box")).profile
    assert (found.name, found.link_time, found.host_step_s) == ("box", 1.0, pytest.approx(1e-3, rel=0.05))


def test_before_async_scheduling_the_sum_of_weights_and_host_is_right():
    true = MachineProfile(host_step_s=4e-3, host_sequence_s=5e-5)
    old = lambda profile: engine(profile, "0.11.0")  # noqa: E731
    fit = fit_scales(measured_on(old(true)), old, start=MachineProfile())
    assert fit.mean_error < 0.01


def test_without_a_catalogue_a_line_is_fitted():
    true = MachineProfile(
        line=Line(step_s=8e-3, per_decode_s=5e-4, per_context_token_s=2e-7, per_prompt_token_s=3e-5, per_pair_s=1e-9),
        front_s=1e-3,
    )
    fit = fit_line(measured_on(engine(true)))
    line = fit.profile.line
    assert line is not None
    assert fit.mean_error < 0.01
    assert (line.step_s, line.per_decode_s, line.per_context_token_s, line.per_prompt_token_s) == pytest.approx(
        (8e-3, 5e-4, 2e-7, 3e-5), rel=0.05
    )


def test_a_line_steps_one_by_one_as_it_steps_together():
    model = engine(MachineProfile(line=Line(step_s=8e-3, per_decode_s=5e-4, per_context_token_s=2e-7)))
    together = model.decode_seconds(8, 800, 50)
    assert [model.seconds(StepBatch(decodes=8, decode_context=800 + 8 * i)) for i in range(50)] == together.tolist()
    assert model.seconds(StepBatch(decodes=8, decode_context=800)) == pytest.approx(8e-3 + 4e-3 + 1.6e-4)


def test_a_line_says_nothing_about_another_split():
    with pytest.raises(InputError, match="tensor_parallel"):
        StepModel(spec_of(CARD, KIND, tensor_parallel=2), profile=MachineProfile(line=Line(step_s=1e-2)))


def test_a_measured_all_reduce_is_used_for_its_group_and_no_other():
    box, kind = make_box("H100 NVL", 4), find_gpu("H100 NVL")
    slow = MeasuredReduce(gpus=(0, 1), points=((4096.0, 1e-3), (6.7e7, 2e-3)))
    models = [
        StepModel(spec_of(CARD, kind, tensor_parallel=2, box=box, gpus=gpus), profile=MachineProfile(reduces=(slow,)))
        for gpus in ((0, 1), (2, 3))
    ]
    batch = StepBatch(decodes=8, decode_context=8000)
    assert models[0].breakdown(batch)["all_reduce"] > 20 * models[1].breakdown(batch)["all_reduce"]


def test_a_profile_survives_its_file():
    profile = MachineProfile(
        name="box", weights_time=1.1, reduces=(MeasuredReduce(gpus=(0, 1), points=((4096.0, 1e-5),)),), front_s=0.001
    )
    assert MachineProfile.parse(profile.to_yaml(), origin="machine.yaml") == profile
