from datetime import UTC, datetime

import pytest

from search.ledger import ledger as ledgers
from search.ledger.lease import lease
from search.ledger.refreshes import records_of
from search.ledger.stored import SPEC_FILE
from search.refresh.refresh import Surroundings, refresh
from search.refresh.state import Situation
from search.space.spec import SearchSpec
from search.tracking.registry import Registry
from trainable.errors import UserError

NOW = datetime(2026, 11, 21, tzinfo=UTC)
AROUND = Surroundings(address=None, listeners=list, tell=lambda line: None, now=lambda: NOW)


@pytest.fixture
def spec(tmp_path, draw_folder):
    return space(tmp_path, images=draw_folder({"a": 12, "b": 12}))


def space(folder, *, images, **promote):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 4, "folder": str(folder / "searches")},
            "scheduler": {"min_epochs": 1, "max_epochs": 2},
            "resources": {"cpu": 1, "concurrency": 1},
            "refresh": {"settle_seconds": 0},
            "promote": promote,
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
            "base": {"data": {"path": str(images), "image_size": 32}},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


@pytest.fixture
def situation(spec, tmp_path):
    """What there is when the images have been looked at."""
    registry = Registry(spec.tracking.uri, name="cells", lock_folder=tmp_path)
    return Situation(spec, records=records_of(spec), registry=registry, place=tmp_path)


def test_a_search_of_the_same_that_is_situation_is_waited_for(spec, situation, tmp_path):
    place = tmp_path / "searches/cells"
    notes = {"metric": spec.search.metric, "data": {"fingerprint": situation.inventory.fingerprint}}
    ledgers.create(place, name="cells", storage=None, space=spec.space, metric=spec.search.metric, notes=notes)
    (place / SPEC_FILE).write_text(spec.model_dump_json())
    with lease(place):
        answer = refresh(spec, around=AROUND)
    assert (answer.decision, answer.code) == ("busy", 3)
    (record,) = records_of(spec).all()
    assert record.searches == ("cells",)


def test_what_promotion_would_refuse_is_told_before_anything(spec, tmp_path):
    images = spec.base["data.path"]
    with pytest.raises(UserError, match="promote.min_recall.rust: there is no such class"):
        refresh(space(tmp_path, images=images, min_recall={"rust": 0.5}), around=AROUND)
    tracking = spec.tracking.model_copy(update={"experiment": "solar cells"})
    with pytest.raises(UserError, match="'solar cells' .* can be no model's name"):
        refresh(spec.model_copy(update={"tracking": tracking}), around=AROUND)
    assert records_of(spec).all() == []
