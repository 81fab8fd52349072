"""What every check of the gate keeps: alone it can refuse, it says with which numbers, and all of them together promote."""

import json
import re
from dataclasses import replace

import pytest

from search.promotion.gate import Evidence, gate
from search.space.promotion_sections import GateSection
from trainable.statistics.comparison import Interval, Judged, Paired

TEST = Judged(
    num_images=100,
    metrics={"balanced_accuracy": Interval(0.9, 0.85, 0.95)},
    per_class={"crack": {"recall": 0.6, "count": 10}, "fine": {"recall": 0.95, "count": 90}},
    ece=0.08,
)
PAIRED = Paired(num_images=100, gain=Interval(0.05, 0.01, 0.1), only_first=12, only_second=3, p=0.035)
# Everything measured and everything asked for, and passed.
GOOD = Evidence(
    test=TEST,
    chance=0.5,
    latency_ms=12.0,
    size_mb=20.0,
    has_champion=True,
    champion_test=TEST,
    paired=PAIRED,
    old_test=PAIRED,
)
STRICT = GateSection(max_latency_ms=12.5, max_size_mb=21.0, min_recall=0.55)
# What is wrong with the evidence, and the number that its reason must name.
REFUSED = {
    "champion": ({"paired": None, "why_unpaired": "both were trained on all 100 images"}, "100"),
    "gain": ({"paired": replace(PAIRED, gain=Interval(0.05, -0.0123, 0.1))}, "-0.0123"),
    "mcnemar": ({"paired": replace(PAIRED, p=0.072)}, "0.072"),
    "old test": ({"old_test": replace(PAIRED, gain=Interval(-0.034, -0.1, 0.1))}, "-0.0340"),
    "chance": ({"chance": 0.8765}, "0.8765"),
    "recall": ({"test": replace(TEST, per_class=TEST.per_class | {"crack": {"recall": 0.4, "count": 10}})}, "0.4000"),
    "rolled back": ({"rolled_back": True}, ""),  # nothing was measured for it
    "calibration": ({"test": replace(TEST, ece=0.234)}, "0.234"),
    "latency": ({"latency_ms": 13.57}, "13.57"),
    "size": ({"size_mb": 98.7}, "98.7"),
}


def checks(evidence, rule=STRICT):
    return {check.name: check for check in gate(evidence, rule=rule).checks}


def test_all_passed_promote_and_every_check_says_what_was_asked():
    verdict = gate(GOOD, rule=STRICT)
    assert verdict.promote
    assert verdict.reasons == [check.reason for check in verdict.checks]
    assert all(re.search(r"\d", reason) and "but asked for" not in reason for reason in verdict.reasons)


def test_every_check_there_is_is_refused_below():
    first = replace(GOOD, has_champion=False, champion_test=None, paired=None, old_test=None)
    wrong = replace(GOOD, rolled_back=True)
    assert {*checks(first), *checks(GOOD), *checks(wrong)} == set(REFUSED)


@pytest.mark.parametrize("name", REFUSED)
def test_it_alone_refuses_and_is_the_only_reason(name):
    changes, _ = REFUSED[name]
    verdict = gate(replace(GOOD, **changes), rule=STRICT)
    assert not verdict.promote
    assert [check.name for check in verdict.checks if not check.passed] == [name]
    assert verdict.reasons == [checks(replace(GOOD, **changes))[name].reason]


@pytest.mark.parametrize("name", REFUSED)
def test_its_reason_is_one_line_with_the_number_that_was_measured(name):
    changes, number = REFUSED[name]
    (reason,) = gate(replace(GOOD, **changes), rule=STRICT).reasons
    assert "\n" not in reason
    assert number in reason


@pytest.mark.parametrize("name", ["calibration", "latency", "size", "mcnemar"])
def test_what_is_not_asked_is_not_judged(name):
    asks = {"calibration": "max_ece", "latency": "max_latency_ms", "size": "max_size_mb", "mcnemar": "mcnemar_p"}
    changes, _ = REFUSED[name]
    rule = STRICT.model_copy(update={asks[name]: None})
    assert name not in checks(replace(GOOD, **changes), rule)
    assert gate(replace(GOOD, **changes), rule=rule).promote


@pytest.mark.parametrize("name", REFUSED)
def test_the_verdict_is_plain_data_and_the_same_again(name):
    evidence = replace(GOOD, **REFUSED[name][0])
    verdict = gate(evidence, rule=STRICT).as_dict()
    assert json.loads(json.dumps(verdict)) == verdict
    assert gate(evidence, rule=STRICT).as_dict() == verdict
    assert verdict["promote"] is False
