"""A study's variants become layouts."""

import pytest

from atoll.errors import BadDocument, InputError
from atoll.inventory import Box, Gpu, Link, LinkKind
from atoll.layout import Policy
from atoll.layout.study import Study, study_layouts

PAIRS = Box(
    gpus=tuple(Gpu(index=i) for i in range(4)),
    links=tuple(
        Link(a=a, b=b, kind=LinkKind.NV, nvlinks=12)
        if (a, b) in {(0, 3), (1, 2)}
        else Link(a=a, b=b, kind=LinkKind.SYS)
        for a in range(4)
        for b in range(a + 1, 4)
    ),
)

TEXT = """
name: two
box: topo.txt
model: Qwen/Qwen2.5-32B-Instruct
workload: {users: 30, duration: 10m, prompt: 1024, output: {kind: lognormal, mean: 512, sigma: 0.5}}
variants:
  - {name: one, tensor_parallel: 4}
  - {name: pairs, tensor_parallel: 2, replicas: 2, policy: round_robin, flags: {max_num_seqs: 32}}
"""


def study(text=TEXT):
    return Study.parse(text, origin="study.yaml")


def test_replicas_stand_on_the_pairs_that_nvlink_joins():
    pairs = study_layouts(study(), PAIRS)[1]
    assert [replica.gpus for replica in pairs.replicas] == [(0, 3), (1, 2)]
    assert pairs.router.policy is Policy.ROUND_ROBIN
    assert pairs.flags.max_num_seqs == 32


def test_a_variant_takes_from_the_study_what_it_does_not_say():
    one = study_layouts(study(), PAIRS)[0]
    assert one.router.policy is Policy.LEAST_CONN
    assert one.flags == study().flags


def test_only_the_wanted_variants_are_made():
    assert [layout.name for layout in study_layouts(study(), PAIRS, only=["pairs"])] == ["pairs"]
    with pytest.raises(InputError, match="has no variant three"):
        study_layouts(study(), PAIRS, only=["three"])


def test_a_variant_that_asks_for_too_many_gpus_is_refused():
    text = TEXT + "  - {name: many, tensor_parallel: 4, replicas: 2}\n"
    with pytest.raises(InputError, match="variant many needs 4 x 2 GPUs; this box has 4"):
        study_layouts(study(text), PAIRS)


def test_listed_gpus_are_taken_as_they_are():
    text = TEXT + "  - {name: mine, tensor_parallel: 2, gpus: [[0, 1]]}\n"
    assert study_layouts(study(text), PAIRS)[2].replicas[0].gpus == (0, 1)


def test_three_gpus_leave_one_idle():
    box = Box(gpus=PAIRS.gpus[:3], links=tuple(link for link in PAIRS.links if link.b < 3))
    pair = study_layouts(study(TEXT.replace("tensor_parallel: 4", "tensor_parallel: 2")), box, only=["one"])[0]
    assert pair.replicas[0].gpus == (1, 2)
    assert pair.idle_gpus == (0,)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TEXT.replace("name: pairs", "name: one"), "two variants are called one"),
        (TEXT + "baseline: none\n", "baseline none is none of the variants"),
        (TEXT.replace("users: 30", "users: 0"), r"study\.yaml: workload\.users"),
        (TEXT.replace("tensor_parallel: 4", "tensor_paralel: 4"), r"variants\[0\]\.tensor_paralel is not a field"),
    ],
)
def test_a_wrong_study_is_refused_by_field(text, words):
    with pytest.raises(BadDocument, match=words):
        study(text)


# What goes wrong


def troubled(text):
    return study(TEXT.replace("policy: round_robin,", f"policy: round_robin, {text},"))


def test_troubles_are_written_as_the_options_are_or_in_full():
    short = troubled("fail: [1@2m-3m, 0@30s], slow: [1=1.5]")
    full = troubled("fail: [{replica: 1, at: 2m, back: 3m}, {replica: 0, at_s: 30}], slow: [{replica: 1, factor: 1.5}]")
    assert short == full
    assert Study.parse(short.to_yaml(), origin="again") == short
    assert short.trouble_of("one").words == ""
    assert short.trouble_of("pairs").words == (
        "replica 1 dies at 120 s and is back at 180 s; replica 0 dies at 30 s; replica 1 takes 1.5 times as long"
    )


def test_the_studys_trouble_is_every_variants_unless_it_has_its_own():
    both = study(TEXT.replace("variants:", "fail: [0@1m]\nvariants:"))
    assert [both.trouble_of(name).words for name in ("one", "pairs")] == ["replica 0 dies at 60 s"] * 2
    own = study(TEXT.replace("variants:", "fail: [0@1m]\nvariants:").replace("replicas: 2,", "replicas: 2, fail: [],"))
    assert own.trouble_of("pairs").words == ""
    assert own.is_troubled
    assert not study().is_troubled


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("fail: [soon]", r"study.yaml: variants[1].fail[0]: write REPLICA@TIME or REPLICA@TIME-BACK, such as 1@2m-3m."),
        ("fail: [1@soon]", r"variants[1].fail[0]: 'soon' is not a duration"),
        ("fail: [1@3m-2m]", "variants[1].fail[0]: it is back before it dies."),
        ("fail: [{replica: 1}]", "variants[1].fail[0].at_s is missing."),
        ("fail: [{replica: 1, at: never}]", "variants[1].fail[0]: 'never' is not a duration"),
        ("fail: [2@1m]", "fail names replica 2 and variant pairs has 0-1; say it under the variants that it is for."),
        ("slow: [1=0]", "variants[1].slow[0]: write REPLICA=FACTOR, such as 1=1.5."),
        ("slow: [{replica: 1, factor: -1}]", "variants[1].slow[0].factor: a number above 0 is expected, this is -1."),
    ],
)
def test_a_trouble_that_makes_no_sense_is_one_sentence(text, sentence):
    with pytest.raises(BadDocument) as caught:
        troubled(text)
    assert sentence in str(caught.value)


def test_a_studys_trouble_must_be_possible_in_every_variant():
    with pytest.raises(BadDocument, match="fail names replica 1 and variant one has only replica 0"):
        study(TEXT.replace("variants:", "fail: [1@1m]\nvariants:"))
