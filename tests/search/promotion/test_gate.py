"""The gate: a pure verdict with its reasons."""

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


def paired(*, gain=0.05, low=0.01, only_first=12, only_second=3, p=0.035):
    return Paired(num_images=100, gain=Interval(gain, low, 0.1), only_first=only_first, only_second=only_second, p=p)


FIRST = Evidence(test=TEST, chance=0.5, latency_ms=12.0, size_mb=20.0)
BETTER = replace(FIRST, has_champion=True, champion_test=TEST, paired=paired())


def failed(evidence, **rule):
    return [check.name for check in gate(evidence, rule=GateSection(**rule)).checks if not check.passed]


def test_the_first_champion_needs_no_opponent():
    verdict = gate(FIRST, rule=GateSection())
    assert verdict.promote
    assert "there is no champion yet" in verdict.reasons


def test_a_candidate_that_is_surely_better_is_promoted_and_every_number_is_said():
    verdict = gate(BETTER, rule=GateSection())
    assert verdict.promote
    assert any("+0.0500 against the champion on 100 images, at least +0.0100" in reason for reason in verdict.reasons)


@pytest.mark.parametrize(
    ("changes", "rule", "names"),
    [
        ({"paired": paired(low=0.0)}, {}, ["gain"]),  # no better at the lower end
        ({}, {"better_by": 0.01}, ["gain"]),  # not by more than was asked
        ({"paired": paired(p=0.06)}, {}, ["mcnemar"]),
        ({"paired": paired(p=0.06)}, {"mcnemar_p": None}, []),
        ({"paired": paired(only_first=3, only_second=12)}, {}, ["mcnemar"]),  # sure, but of the opposite
        ({}, {"min_recall": 0.7}, ["recall"]),
        ({}, {"min_recall": {"crack": 0.6}}, []),
        ({}, {"min_recall": {"crack": 0.61}}, ["recall"]),
        ({}, {"max_ece": 0.07}, ["calibration"]),
        ({}, {"max_ece": None}, []),
        ({}, {"max_latency_ms": 11.9}, ["latency"]),
        ({}, {"max_size_mb": 19.0}, ["size"]),
        ({"old_test": paired(gain=-0.03)}, {}, ["old test"]),
        ({"old_test": paired(gain=-0.03)}, {"old_tolerance": 0.03}, []),
        ({"chance": 0.85}, {}, ["chance"]),  # no better than one answer for all
        ({"rolled_back": True}, {}, ["rolled back"]),
        ({}, {"min_recall": {"dent": 0.1}}, ["recall"]),  # no test image says anything of it
        ({}, {"min_recall": {"dent": 0.0}}, []),
        ({"paired": None, "why_unpaired": "it was trained on them"}, {}, ["champion"]),
    ],
)
def test_each_question_alone_can_refuse_a_candidate(changes, rule, names):
    assert failed(replace(BETTER, **changes), **rule) == names


def test_floors_and_ceilings_hold_for_the_first_champion_too():
    assert failed(FIRST, min_recall=0.7, max_ece=0.01) == ["recall", "calibration"]


def test_a_refusal_gives_only_what_failed_as_reason():
    verdict = gate(BETTER, rule=GateSection(min_recall=0.7))
    assert verdict.reasons == ["recall of 'crack' 0.6000 of 10 images, but asked for 0.7 or more"]


def test_the_class_named_is_the_one_furthest_below_its_floor():
    verdict = gate(FIRST, rule=GateSection(min_recall={"crack": 0.5, "fine": 0.99}))
    assert verdict.reasons == ["recall of 'fine' 0.9500 of 90 images, but asked for 0.99 or more"]


def test_as_plain_data_its_numbers_have_the_names_that_the_registry_shows():
    evidence = replace(BETTER, old_test=paired(gain=-0.01), why_unpaired="a", why_no_old_test="b")
    numbers = evidence.as_dict()
    assert list(numbers) == [
        "test",
        "chance",
        "latency_ms",
        "size_mb",
        "has_champion",
        "champion",
        "paired",
        "old",
        "unpaired",
        "no_old",
        "unsure",
        "rolled_back",
    ]
    assert numbers["old"]["gain"] == {"value": -0.01, "low": 0.01, "high": 0.1}
    assert (numbers["unpaired"], numbers["no_old"]) == ("a", "b")
    assert gate(FIRST, rule=GateSection()).as_dict()["checks"][0] == {
        "name": "champion",
        "passed": True,
        "said": "there is no champion yet",
    }
