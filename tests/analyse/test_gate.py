"""Gates: what is understood, what holds, and what is said."""

from xml.etree.ElementTree import fromstring

import numpy as np
import pytest

from atoll.analyse.gate import judge, parse_gate, refuse_without_target
from atoll.analyse.gate_change import Side, judge_second
from atoll.analyse.junit import junit_text
from atoll.analyse.summary import Distribution, summarise
from atoll.errors import InputError
from atoll.traffic.record import Outcome, Record, RecordTable
from atoll.traffic.slo import SLO


def records(count=100, *, ttft=0.1, failed=0, seed=1, spread=0.02):
    rng = np.random.default_rng(seed)
    waits = ttft * (1 + spread * rng.standard_normal(count))
    return [
        Record(
            number=n,
            user=n % 10,
            sent_s=n * 0.1,
            token_s=() if n < failed else [n * 0.1 + waits[n] + step * 0.02 for step in range(5)],
            done_s=n * 0.1 + waits[n] + 0.08,
            output_tokens=5,
            outcome=Outcome.FAILED if n < failed else Outcome.OK,
            error="http_500" if n < failed else None,
        )
        for n in range(count)
    ]


def side(name, **more):
    table = RecordTable.from_records(records(**more))
    return Side(
        name=name,
        summary=summarise(table, slo=SLO(ttft_s=0.2)),
        table=table,
        measured=np.ones(len(table), dtype=np.bool_),
    )


@pytest.mark.parametrize(
    ("text", "holds", "said"),
    [
        ("failed > 1%", True, "failed is 2.0%, and has to be not above 1.0%."),
        ("failed > 5%", False, "failed is 2.0%, not above 5.0%."),
        ("failed>1", True, "failed is 2, and has to be not above 1."),
        ("good < 95%", False, "good is 98.0%, not below 95.0%."),
        ("ttft_p95 > 250ms", False, "not above 250 ms."),
        ("ttft_p95 > 0.05", True, "and has to be not above 50 ms."),
        ("itl_mean < 30ms", True, "itl_mean is 20 ms, and has to be not below 30 ms."),
        ("tpot_p99.9 > 1s", False, "tpot_p99.9 is 20 ms"),
        ("e2e_max > 1s", False, "not above 1 s."),
        ("output_tokens_per_s < 900", True, "and has to be not below 900."),
        ("requests_per_s < 5", False, "not below 5."),
    ],
)
def test_a_gate_holds_or_not_and_says_why(text, holds, said):
    table = RecordTable.from_records(records(failed=2))
    summary = summarise(table, slo=SLO(ttft_s=0.2), percentiles=(99.9,))
    found = judge(summary, parse_gate(text))
    assert found.holds is holds
    assert said in found.sentence


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no gate"),
        ("failed", "is no gate"),
        ("failed >= 1%", "a gate has < or >"),
        ("ttft > 1s", "no figure is called ttft"),
        ("ttft_p42x > 1s", "no figure is called"),
        ("latency_p95 > 1s", "no figure is called"),
        ("ttft_p95 > 1%", "is no share"),
        ("ttft_p95 > fast", "is no time"),
        ("failed > 3s", "is no number"),
        ("output_tokens_per_s < 900ms", "is no number"),
        ("ttft_p95 > +10%", "`atoll compare` knows"),
        ("failed > -1", "is no number"),
    ],
)
def test_what_is_no_gate_is_refused_with_the_part_that_is_wrong(text, said):
    with pytest.raises(InputError, match=said):
        parse_gate(text)


def test_what_was_not_measured_cannot_have_been_kept():
    nothing = summarise(RecordTable.from_records(records(failed=100)))
    for text in ("ttft_p95 > 1s", "tpot_mean > 1s"):
        found = judge(nothing, parse_gate(text))
        assert (found.holds, found.value) == (True, None)
        assert "is not known: not one request was answered" in found.sentence
    with pytest.raises(InputError, match="needs a target"):
        refuse_without_target((parse_gate("good < 95%"),), has_target=False)


@pytest.mark.parametrize(
    ("text", "second", "holds"),
    [
        ("ttft_p95 > +10%", {"ttft": 0.2}, True),
        ("ttft_p95 > +10%", {"ttft": 0.1}, False),
        ("ttft_p95 < -10%", {"ttft": 0.05}, True),
        ("ttft_mean > +10%", {"ttft": 0.115, "spread": 0.3}, False),  # 13 %, which may be chance
        ("itl_p50 > +10%", {}, False),
        ("ttft_p90 > 150ms", {"ttft": 0.2}, True),
        ("ttft_p90 > 250ms", {"ttft": 0.2}, False),
        ("failed > +1%", {"failed": 20}, True),
        ("failed > +1%", {"failed": 2}, False),  # 2 of 100 more may be chance
        ("failed > 1%", {"failed": 20}, True),
        ("good < -5%", {"failed": 30}, True),
        ("output_tokens_per_s < -10%", {}, False),
        ("requests_per_s < 2", {}, False),
    ],
)
def test_of_two_runs_a_gate_holds_beyond_chance(text, second, holds):
    found = judge_second(side("before"), side("after", seed=2, **second), parse_gate(text, of_two=True))
    assert found.holds is holds, found.sentence
    assert found.sentence.startswith("after: ")


def test_what_may_be_chance_is_said_so():
    found = judge_second(
        side("a"), side("b", seed=2, ttft=0.115, spread=0.3), parse_gate("ttft_mean > +10%", of_two=True)
    )
    assert "which may be chance" in found.sentence


def test_a_junit_file_has_a_case_a_gate():
    summary = summarise(RecordTable.from_records(records(failed=2)))
    judged = [judge(summary, parse_gate(text)) for text in ("failed > 1%", "ttft_p95 > 1s")]
    root = fromstring(junit_text(judged, suite="bench http://h\x00", seconds=1.5))
    assert (root.attrib["tests"], root.attrib["failures"]) == ("2", "1")
    first, second = root.iter("testcase")
    assert first.attrib["name"] == "failed > 1%"
    assert "has to be not above 1.0%" in first.find("failure").attrib["message"]
    assert second.find("failure") is None


def test_further_percentiles_stand_beside_the_usual_ones():
    summary = summarise(RecordTable.from_records(records()), percentiles=(99.9, 75.0))
    plain = summary.to_plain()["ttft_s"]
    assert plain["p50"] < plain["p75"] < plain["p99.9"] <= plain["max"]
    assert Distribution.model_validate(plain) == summary.ttft_s
    assert summary.itl_s.get("p99.9") == pytest.approx(0.02)
    assert "more" not in plain
    assert "p99.9" not in summarise(RecordTable.from_records(records())).to_plain()["ttft_s"]
