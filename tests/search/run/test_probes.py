"""Which probe beats every trial, told from plain records."""

from datetime import UTC, datetime

import pytest

from search.ledger.notes import BaselineScore, SoupResult
from search.ledger.trials import PROBE, EpochRecord, Trial
from search.run.probes import stage_of, winning_probe

METRIC = "val/accuracy"


def trial(number, value, origin="random"):
    epoch = EpochRecord(number=1, metrics={METRIC: value}, recorded=datetime.now(UTC))
    return Trial(number=number, params={}, state="COMPLETE", epochs=(epoch,), target=1, origin=origin)


def baselines(**values):
    return {name: BaselineScore(metrics={"accuracy": value}) for name, value in values.items()}


def winner(found, *, trials=(0.5, 0.7), soup=None):
    made = None if soup is None else SoupResult(of=[0, 1], members=[0, 1], value=soup, kept=True)
    records = [trial(number, value) for number, value in enumerate(trials)]
    return winning_probe(found, trials=records, soup=made, metric=METRIC)


def test_the_best_probe_of_a_stage_that_beats_every_trial_wins():
    assert winner(baselines(probe_stage1=0.8, probe_stage2=0.75, probe_stage3=0.9)) == "stage3"
    assert winner(baselines(probe_stage1=0.7, probe_stage3=0.69)) is None


def test_a_soup_that_is_kept_is_to_be_beaten_too():
    assert winner(baselines(probe_stage3=0.8), soup=0.85) is None
    assert winner(baselines(probe_stage3=0.9), soup=0.85) == "stage3"


def test_the_probe_of_the_whole_network_is_to_be_beaten_as_any_trial():
    records = [trial(0, 0.75, origin=PROBE), trial(1, 0.5)]
    assert winning_probe(baselines(probe_stage3=0.8), trials=records, soup=None, metric=METRIC) == "stage3"
    assert winning_probe(baselines(probe_stage3=0.7), trials=records, soup=None, metric=METRIC) is None


@pytest.mark.parametrize("name", ["linear_probe", "probe_stage3_knn", "probe_pooled_ridge", "scratch", "bit_hyperrule"])
def test_other_baselines_are_no_trial_with_a_linear_head(name):
    assert stage_of(name) is None
    assert winner(baselines(**{name: 0.99})) is None
