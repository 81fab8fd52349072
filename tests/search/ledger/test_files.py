from datetime import UTC, datetime

from search.ledger.files import checkpoint_folder, epoch_folder, tidy
from search.ledger.trials import EpochRecord, Trial

METRIC = "val/accuracy"


def trial(*values):
    epochs = tuple(
        EpochRecord(number=i, metrics={METRIC: value}, recorded=datetime.now(UTC))
        for i, value in enumerate(values, start=1)
    )
    return Trial(number=7, params={}, state="COMPLETE", epochs=epochs, target=len(values), origin="random")


def checkpoints_after(folder, ended, *, of_epochs):
    place = checkpoint_folder(folder, ended.number)
    for epoch in of_epochs:
        epoch_folder(place, epoch).mkdir(parents=True)
    tidy(folder, ended, metric=METRIC)
    return sorted(path.name for path in place.iterdir())


def test_of_an_ended_trial_its_best_checkpoint_stays(tmp_path):
    assert checkpoints_after(tmp_path, trial(0.5, 0.9, 0.7), of_epochs=(2, 3)) == ["epoch_00002"]


def test_no_checkpoint_is_deleted_where_the_best_one_is_not_found(tmp_path):
    assert checkpoints_after(tmp_path, trial(0.5, 0.9, 0.7), of_epochs=(1, 3)) == ["epoch_00001", "epoch_00003"]


def test_no_checkpoint_is_deleted_where_no_epoch_has_a_value(tmp_path):
    assert checkpoints_after(tmp_path, trial(), of_epochs=(1,)) == ["epoch_00001"]
