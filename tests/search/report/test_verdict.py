"""What a search is said to have come to, from records written by hand."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from search.ledger.notes import BaselineScore, Comparison, PairedScore, SearchNotes, SoupResult
from search.ledger.notes import TestScore as ScoreOfTest
from search.ledger.trials import PROBE, EpochRecord, Trial
from search.report.verdict import beside_text, search_verdict
from search.space.spec import SearchSpec

METRIC = "val/accuracy"
CLEAR = PairedScore(value=0.80, gain=0.10, low=0.034, high=0.166, only_first=20, only_second=5, p=0.004)
LUCK = PairedScore(value=0.90, gain=1 / 153, low=-0.013, high=0.026, only_first=3, only_second=2, p=1.0)
BEHIND = PairedScore(value=0.93, gain=-0.054, low=-0.101, high=-0.008, only_first=2, only_second=10, p=0.04)


def spec(metric=METRIC):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 9, "metric": metric},
            "scheduler": {"max_epochs": 9},
            "base": {"data.path": "images", **({"data.target": "b"} if metric.startswith("target/") else {})},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


def trial(number, value, *, metric=METRIC, seconds=400.0, **fields):
    metrics = {metric: value, "usage/seconds": seconds}
    epochs = (EpochRecord(number=1, metrics=metrics, recorded=datetime.min.replace(tzinfo=UTC)),)
    known = {"state": "COMPLETE", "target": 1, "origin": "tpe", "params": {"optimizer.lr": 0.01}}
    return Trial(number=number, epochs=epochs, **known | fields)


def probe(value, **fields):
    overrides = {"model.until": None}
    return trial(0, value, seconds=10.0, origin=PROBE, overrides=overrides, **fields)


def judged(trials, *, best, others=None, metric=METRIC, soup=None, **notes):
    compared = {"trial": best, "soup": soup, "metric": metric, "confidence": 0.95, "num_images": 153}
    comparison = None if others is None else Comparison(**compared, own_size=224, others=others)
    made = SoupResult(of=soup, members=soup, value=0.92, kept=True) if soup else None
    known = {"test": ScoreOfTest(trial=best, soup=soup), "comparison": comparison, "soup": made}
    return search_verdict(trials, spec=spec(metric), notes=SearchNotes(**known | notes))


def test_what_is_clearly_better_says_by_how_much_with_the_interval():
    verdict = judged([probe(0.8), trial(1, 0.9)], best=1, others={"linear_probe": CLEAR})
    assert (verdict.kind, verdict.against, verdict.gain, verdict.low, verdict.high) == (
        "better",
        "linear_probe",
        CLEAR.gain,
        CLEAR.low,
        CLEAR.high,
    )
    assert verdict.sentence == "better than the linear probe by 3.4 to 16.6 points (95 %, on the same 153 images)"


def test_one_image_more_is_said_to_be_luck_and_how_much_cheaper_the_probe_was():
    verdict = judged([probe(0.9), trial(1, 0.91)], best=1, others={"linear_probe": LUCK})
    assert verdict.kind == "luck"
    assert verdict.sentence == (
        "better than the linear probe by 1 image of 153, which may be luck (95 %: -1.3 to +2.6 points); "
        "the linear probe does as well for what is known, it is 40 times cheaper to train"
    )
    assert any("tell nothing apart that differs by less than 1.9 points" in line for line in verdict.limits)


@pytest.mark.parametrize(
    ("score", "text"),
    [
        (BEHIND, "worse than the linear probe by 0.8 to 10.1 points (95 %, on the same 153 images)"),
        (
            replace(BEHIND, high=0.004),
            "not better than the linear probe on the same 153 images (95 %: -10.1 to +0.4 points)",
        ),
    ],
)
def test_a_candidate_that_the_probe_beats_is_not_crowned(score, text):
    # Confirmed trials come first whatever a probe has.
    trials = [probe(0.93), trial(1, 0.88, confirmed=({METRIC: 0.88},))]
    verdict = judged(trials, best=1, others={"linear_probe": score})
    assert verdict.kind == "not better"
    assert verdict.sentence == f"{text}: take the linear probe, it is 40 times cheaper to train"


def test_the_probe_that_wins_is_set_beside_the_best_trial():
    own = {"linear_probe": BaselineScore(measured={METRIC: 0.93})}
    score = PairedScore(value=0.88, gain=0.05, low=0.01, high=0.09, only_first=9, only_second=1, p=0.02)
    verdict = judged([probe(0.93), trial(1, 0.88)], best=0, others={"trial 1": score}, baselines=own)
    assert (verdict.kind, verdict.against) == ("probe", "trial 1")
    assert verdict.sentence == (
        "no trial is better than the linear probe: take it, it is 40 times cheaper to train; "
        "it is better than trial 1 by 1.0 to 9.0 points (95 %, on the same 153 images)"
    )


def test_the_strongest_of_several_is_the_one_to_beat_and_the_others_have_a_line():
    others = {"scratch": CLEAR, "linear_probe": LUCK}
    verdict = judged([probe(0.9), trial(1, 0.91)], best=1, others=others)
    assert verdict.against == "linear_probe"
    assert verdict.others == ("better than training from scratch by 3.4 to 16.6 points (95 %, on the same 153 images)",)


def test_a_probe_that_is_no_trial_and_better_is_the_one_to_take():
    stronger = {"probe_stage3_knn": BaselineScore(measured={METRIC: 0.95})}
    verdict = judged([probe(0.8), trial(1, 0.9)], best=1, others={"linear_probe": CLEAR}, baselines=stronger)
    assert (verdict.kind, verdict.against, verdict.gain) == ("not better", "probe_stage3_knn", pytest.approx(-0.05))
    assert verdict.sentence == (
        "worse than the probe of stage3 by knn by 5.0 points (not compared image by image): take the probe of stage3 by knn"
    )


def test_what_was_not_compared_image_by_image_is_not_called_better_for_sure():
    old = {"linear_probe": BaselineScore(measured={METRIC: 0.8})}
    verdict = judged([trial(1, 0.9)], best=1, baselines=old)
    assert verdict.kind == "unmeasured"
    assert verdict.sentence == (
        "better than the linear probe by 10.0 points (not compared image by image), so it may be luck"
    )
    named = {"source_only": BaselineScore(measured={"target/infomax": 0.4})}
    adapted = trial(1, 0.5, metric="target/infomax")
    verdict = judged([adapted], best=1, metric="target/infomax", others={}, baselines=named)
    assert "training on the source alone by 0.1000 of target/infomax (not" in verdict.sentence


def test_without_any_baseline_there_is_nothing_to_compare_with():
    verdict = judged([trial(1, 0.9)], best=1, others={})
    assert (verdict.kind, verdict.against, verdict.gain) == ("nothing", None, None)
    assert verdict.sentence.startswith("nothing to compare with: `baselines: [linear_probe]`")


def test_a_soup_is_compared_as_a_soup_and_costs_what_its_trials_cost():
    trials = [probe(0.9), trial(1, 0.91), trial(2, 0.9)]
    verdict = judged(trials, best=1, soup=[1, 2], others={"linear_probe": LUCK})
    assert "80 times cheaper" in verdict.sentence
    alone = judged(trials, best=1, soup=[1, 2], comparison=Comparison(trial=1, metric=METRIC, confidence=0.95))
    assert alone.kind == "nothing"  # what was noted is of the trial without the soup


def test_before_the_test_of_the_best_there_is_no_verdict():
    trials = [probe(0.8), trial(1, 0.9)]
    assert search_verdict(trials, spec=spec(), notes=SearchNotes()) is None
    assert judged([*trials, trial(2, 0.95)], best=1) is None


def test_the_test_score_has_its_interval_and_its_images():
    test = ScoreOfTest(
        trial=1, metrics={"accuracy": 0.9}, intervals={"accuracy": [0.7, 0.97]}, confusion=[[9, 1], [1, 9]]
    )
    assert judged([trial(1, 0.9)], best=1, test=test).test == "on 20 test images: accuracy 0.9000 (0.70 to 0.97), 95 %"


def test_a_loss_is_told_in_its_own_unit():
    text = beside_text("it", replace(CLEAR, low=0.05, high=0.1), metric="val/loss", num_images=9)
    assert text == "better than it by 0.0500 to 0.1000 of val/loss (95 %, on the same 9 images)"
