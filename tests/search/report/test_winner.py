"""What is said of how sure the winner is."""

from datetime import UTC, datetime

import pytest

from search.ledger.notes import Confirmation, ConfirmedTrial, SearchNotes, WinnerInterval
from search.ledger.trials import EpochRecord, Trial
from search.report.winner import winner_data, winner_texts

METRIC = "val/accuracy"


def trial(number, value, *, confirmed=(), **fields):
    epochs = (EpochRecord(number=1, metrics={METRIC: value}, recorded=datetime.min.replace(tzinfo=UTC)),)
    seeds = tuple({METRIC: other} for other in confirmed)
    known = {"state": "COMPLETE", "target": 1, "origin": "tpe", "confirmed": seeds}
    return Trial(number=number, params={}, epochs=epochs, **known | fields)


def interval(**changes):
    fields = {"trial": 1, "metric": METRIC, "confidence": 0.95, "value": 0.9, "low": 0.85, "high": 0.94}
    return WinnerInterval(**fields | {"num_images": 120} | changes)


def texts(trials, *, test=None, **notes):
    data = winner_data(trials, notes=SearchNotes(**notes), metric=METRIC)
    return winner_texts(data, metric=METRIC, test=test, best=1)


def test_the_winner_has_its_interval_and_the_images_it_is_from():
    lines = texts([trial(1, 0.9)], interval=interval())
    assert lines == [
        "val/accuracy of trial 1: between 0.8500 and 0.9400 (95 %, by resampling its 120 images, before its finish)"
    ]


def test_an_interval_of_another_winner_is_not_shown():
    assert texts([trial(1, 0.9)], interval=interval(trial=0)) == []


def test_a_metric_without_an_interval_has_no_line():
    assert texts([trial(1, 0.9)], interval=interval(value=None, low=None, high=None)) == []


def test_the_soup_is_named_where_it_is_the_candidate():
    (line,) = texts([trial(1, 0.9)], interval=interval(soup=[1, 0]))
    assert line.startswith("val/accuracy of the soup of trials 1, 0: between")


def test_the_best_of_several_is_said_to_be_too_good_and_the_test_score_stands_beside_it():
    lines = texts([trial(0, 0.8), trial(1, 0.9)], test={"accuracy": 0.83})
    assert lines == [
        "that val/accuracy is the best of 2 trials on the same images, so it is too good on average, the more the more "
        "trials; without that bias is test/accuracy 0.8300"
    ]


def test_both_seeds_of_the_candidates_are_told_with_mean_and_spread():
    trials = [trial(0, 0.92, confirmed=[0.80]), trial(1, 0.90, confirmed=[0.88])]
    noted = Confirmation(
        trials=[
            ConfirmedTrial(number=0, seeds={"7": {METRIC: 0.80}}),
            ConfirmedTrial(number=1, seeds={"7": {METRIC: 0.88}}),
        ]
    )
    first, second, _ = texts(trials, confirmation=noted)
    assert first == "trial 0 with both seeds: val/accuracy 0.9200 and 0.8000, mean 0.8600, spread 0.1200"
    assert second == "trial 1 with both seeds: val/accuracy 0.9000 and 0.8800, mean 0.8900, spread 0.0200: the winner"
    rows = winner_data(trials, notes=SearchNotes(confirmation=noted), metric=METRIC)["confirmed"]["trials"]
    assert [row["mean"] for row in rows] == pytest.approx([0.86, 0.89])


def test_a_candidate_that_failed_with_the_other_seed_is_out_and_a_winner_of_one_seed_is_said_to_be():
    noted = Confirmation(trials=[ConfirmedTrial(number=1, why_not="refit 0 failed: diverged")])
    assert texts([trial(1, 0.9)], confirmation=noted) == ["trial 1 with another seed: out, refit 0 failed: diverged"]
    (line,) = texts([trial(1, 0.9)], confirmation=Confirmation(why_not="it takes 6 epochs, search.budget leaves 5"))
    assert line == (
        "not confirmed on a second seed: it takes 6 epochs, search.budget leaves 5; the winner is named from one seed"
    )


def test_before_there_is_a_winner_nothing_is_said():
    data = winner_data([], notes=SearchNotes(), metric=METRIC)
    assert winner_texts(data, metric=METRIC, test=None, best=None) == []


def test_of_the_audited_trials_those_that_would_have_won_are_counted_with_wilsons_interval():
    stopped = [trial(number, 0.1, state="PRUNED") for number in (0, 2, 3)]
    audited = [trial(number, 0.5, audited_at=1) for number in range(4, 13)] + [trial(13, 0.95, audited_at=3)]
    trials = [stopped[0], trial(1, 0.9), *stopped[1:], *audited]
    data = winner_data(trials, notes=SearchNotes(), metric=METRIC)
    lines = winner_texts(data, metric=METRIC, test=None, best=13)
    # Wilson's interval of 1 of 10
    assert lines[0] == ("of 10 audited stopped trials 1 would have won, i.e. 10 % of the 13 stopped (95 %: 2 to 40 %)")
    assert lines[1] == "trial 13, the best, was stopped at epoch 3: scheduler.audit alone trained it on"
    assert data["audit"]["won"] == [13]


def test_an_audit_that_finds_nothing_is_honest_about_how_little_that_says():
    trials = [trial(0, 0.9), trial(1, 0.5, audited_at=1), trial(2, 0.9, audited_at=1)]
    first, *_ = texts(trials)
    assert first == "of 2 audited stopped trials 0 would have won, i.e. 0 % of the 2 stopped (95 %: 0 to 66 %)"


def test_without_audits_nothing_is_said_of_them():
    assert winner_data([trial(0, 0.9)], notes=SearchNotes(), metric=METRIC)["audit"] is None
