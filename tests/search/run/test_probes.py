"""Which probe beats every trial, told from plain records."""

from datetime import UTC, datetime

import pytest

from search.ledger import ledger as ledgers
from search.ledger.notes import BaselineScore, SoupResult
from search.ledger.trials import PROBE, EpochRecord, Trial, probe_name
from search.run.probes import begin_probes, probe_scores, stage_of, winning_probe
from search.space.spec import SearchSpec
from trainable.config.trial import TrialConfig

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


@pytest.mark.parametrize(
    "name", ["linear_probe", "zero_shot", "probe_stage3_knn", "probe_pooled_ridge", "scratch", "bit_hyperrule"]
)
def test_other_baselines_are_no_trial_with_a_linear_head(name):
    assert stage_of(name) is None
    assert winner(baselines(**{name: 0.99})) is None


def test_the_probes_that_are_asked_for_are_noted_once_and_scored_by_their_names(tmp_path):
    spec = SearchSpec.model_validate(
        {
            "search": {"name": "one", "trials": 3},
            "scheduler": {"max_epochs": 9},
            "base": {"data": {"path": "images"}, "model": {"head": "cosine"}},
            "vary": {"model.pool": {"choice": ["gem", "stages"]}},
            "baselines": ["linear_probe", "zero_shot"],
        }
    )
    ledger = ledgers.create(
        tmp_path, name="one", storage=None, space=spec.space, metric=METRIC, notes={"metric": METRIC}
    )
    for _ in range(2):
        begin_probes(spec, ledger)
    trials = ledger.trials()
    assert [probe_name(trial) for trial in trials] == ["linear_probe", "zero_shot"]
    configs = [TrialConfig.model_validate(spec.config_of(trial)) for trial in trials]
    assert [(one.model.head, one.finetune.solver, one.model.pool) for one in configs] == [
        ("linear", "lbfgs", "own"),
        ("text", "text", "own"),
    ]
    assert probe_scores(ledger) == {}
    ledger.record(1, epoch=1, metrics={METRIC: 0.5, "train/loss": 2.0, "usage/seconds": 3.0}, ended="solved")
    measured = {METRIC: 0.5, "train/loss": 2.0}
    assert probe_scores(ledger) == {"zero_shot": BaselineScore(metrics={"accuracy": 0.5}, measured=measured)}
