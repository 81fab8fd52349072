import csv

import pytest

from search.tracking.classes import CLASSES, CONFUSION, STATE, class_files
from trainable import TrialConfig, fit
from trainable.training import checkpoint


def read(text):
    return list(csv.DictReader(text.splitlines()))


def test_a_real_checkpoint_tells_its_classes_the_worst_first(cell_folder, tmp_path):
    assert checkpoint.STATE == STATE
    config = {
        "data": {"path": str(cell_folder), "image_size": 32, "cache": str(tmp_path / "cache")},
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"epochs": 1, "batch_size": 9},
    }
    epoch = next(fit(TrialConfig.of(config)))
    epoch.save(tmp_path / "epoch")
    files = class_files(tmp_path / "epoch")
    rows = read(files[CLASSES])
    told = epoch.evaluation.per_class
    assert {row["class"] for row in rows} == set(told)
    recalls = [float(row["recall"]) for row in rows]
    assert recalls == sorted(recalls)
    for row in rows:
        assert float(row["recall"]) == pytest.approx(told[row["class"]]["recall"], abs=1e-4)
        assert float(row["recall_low"]) <= float(row["recall"]) <= float(row["recall_high"])
        assert int(row["count"]) == told[row["class"]]["count"]
    confusion = read(files[CONFUSION])
    assert [[int(row[name]) for name in told] for row in confusion] == [list(row) for row in epoch.evaluation.confusion]
    assert [row["true, taken for"] for row in confusion] == list(told)


@pytest.mark.parametrize("text", ["", "{}", '{"results": {"evaluation": {}}}', '{"results": null}'])
def test_what_tells_none_gives_none(tmp_path, text):
    assert class_files(tmp_path) == {}
    (tmp_path / STATE).write_text(text)
    assert class_files(tmp_path) == {}
