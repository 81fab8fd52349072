from dataclasses import replace
from datetime import UTC, datetime

import pytest

from search.engine.audit import is_drawn
from search.ledger.files import KEPT_TRIALS, checkpoint_folder, epoch_folder
from search.ledger.trials import PROBE, EpochRecord, Trial
from search.run.keeping import Keeper
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"


def spec_of(**search):
    return SearchSpec.model_validate(
        {
            "search": {"name": "one", "trials": 90, **search},
            "scheduler": {"min_epochs": 1, "max_epochs": 9, "reduction": 3},
            "base": {"data": {"path": "images"}},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


def trial_of(folder, number, *, value, state="PRUNED", epochs=1, target=1):
    records = [
        EpochRecord(number=epoch, metrics={METRIC: value - 0.001 * epoch}, recorded=datetime.now(UTC))
        for epoch in range(1, epochs + 1)
    ]
    for epoch in range(1, epochs + 1):
        epoch_folder(checkpoint_folder(folder, number), epoch).mkdir(parents=True)
    return Trial(number=number, params={}, state=state, epochs=tuple(records), target=target, origin="random")


def held(folder):
    return {int(path.name) for path in (folder / "checkpoints").iterdir()}


def test_of_ended_trials_the_best_keep_the_checkpoint_of_their_best_epoch(tmp_path):
    keeper = Keeper(tmp_path, spec=spec_of(), trials=[])
    for number in range(50):
        keeper.changed(trial_of(tmp_path, number, value=(number * 37 % 50) / 50, epochs=2))
        assert len(held(tmp_path)) <= KEPT_TRIALS
    best = sorted(range(50), key=lambda number: -(number * 37 % 50))[:KEPT_TRIALS]
    assert held(tmp_path) == set(best)
    assert all(len(list(checkpoint_folder(tmp_path, number).iterdir())) == 1 for number in best)


def test_a_probe_that_many_beat_keeps_its_own_to_be_compared_with(tmp_path):
    keeper = Keeper(tmp_path, spec=spec_of(), trials=[])
    keeper.changed(replace(trial_of(tmp_path, 0, value=0.0, state="COMPLETE"), origin=PROBE))
    for number in range(1, 31):
        keeper.changed(trial_of(tmp_path, number, value=number / 30))
    assert held(tmp_path) == {0, *range(31 - KEPT_TRIALS, 31)}


def test_as_many_wait_with_their_checkpoints_as_can_pass_a_rung(tmp_path):
    keeper = Keeper(tmp_path, spec=spec_of(), trials=[])
    for number in range(80):
        keeper.changed(trial_of(tmp_path, number, value=number / 80, state="RUNNING"))
    assert held(tmp_path) == set(range(50, 80))  # 90 trials, of which 30 can pass


def test_trials_at_work_and_interrupted_ones_keep_theirs(tmp_path):
    trials = [trial_of(tmp_path, number, value=0.0, state="RUNNING", epochs=2, target=3) for number in range(99)]
    keeper = Keeper(tmp_path, spec=spec_of(), trials=trials)
    keeper.changed(trials[0])
    assert held(tmp_path) == set(range(99))


def test_a_search_that_goes_on_knows_what_it_kept(tmp_path):
    earlier = [trial_of(tmp_path, number, value=0.5 + number / 100) for number in range(KEPT_TRIALS)]
    keeper = Keeper(tmp_path, spec=spec_of(), trials=earlier)
    keeper.changed(trial_of(tmp_path, 99, value=0.9))
    assert held(tmp_path) == {99, *range(1, KEPT_TRIALS)}


@pytest.mark.parametrize("several", [False, True])
def test_finalists_stay_where_several_metrics_choose_among_them(tmp_path, several):
    chosen = {"choose_by": ["val/accuracy", "val/loss"]} if several else {}
    keeper = Keeper(tmp_path, spec=spec_of(**chosen), trials=[])
    for number in range(KEPT_TRIALS + 3):
        keeper.changed(trial_of(tmp_path, number, value=number / 100, state="COMPLETE"))
    assert len(held(tmp_path)) == KEPT_TRIALS + (3 if several else 0)


def test_without_a_bound_of_trials_as_many_wait_as_can_pass_among_twice_those_there_are(tmp_path):
    keeper = Keeper(tmp_path, spec=spec_of(trials=None, budget={"minutes": 5}), trials=[])
    for number in range(90):
        keeper.changed(trial_of(tmp_path, number, value=number / 90, state="RUNNING"))
    assert held(tmp_path) == set(range(30, 90))


def test_trials_that_an_audit_may_train_on_keep_their_checkpoints(tmp_path):
    spec = spec_of(trials=9)
    spec = spec.model_copy(update={"scheduler": spec.scheduler.model_copy(update={"audit": 0.2})})
    keeper = Keeper(tmp_path, spec=spec, trials=[])
    for number in range(80):
        keeper.changed(trial_of(tmp_path, number, value=1 - number / 100, state="RUNNING"))
    drawn = {number for number in range(80) if is_drawn(number, share=0.2, seed=0)}
    assert 5 < len(drawn) < 40
    assert drawn <= held(tmp_path)
    assert len(held(tmp_path) - drawn) == KEPT_TRIALS
