"""The record of a refresh: gone on with where it was begun before, else begun."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from search.ledger.refreshes import ChampionMark, Record, key_of, records_of, space_identity
from search.refresh.begin import begin
from search.refresh.state import Situation
from search.space.spec import SearchSpec
from search.tracking.registry import Registry

NOW = datetime(2026, 11, 21, tzinfo=UTC)


@pytest.fixture
def spec(tmp_path, draw_folder):
    images = draw_folder({"a": 12, "b": 12})
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 4, "folder": str(tmp_path / "searches")},
            "scheduler": {"min_epochs": 1, "max_epochs": 2},
            "resources": {"cpu": 1, "concurrency": 1},
            "refresh": {"settle_seconds": 0},
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
            "base": {"data": {"path": str(images), "image_size": 32}},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


@pytest.fixture
def make_situation(spec, tmp_path):
    """Makes what there is for one call of `refresh`."""

    def make():
        registry = Registry(spec.tracking.uri, name="cells", lock_folder=tmp_path)
        return Situation(spec, records=records_of(spec), registry=registry, place=tmp_path)

    return make


@pytest.fixture
def situation(make_situation):
    return make_situation()


def test_a_record_whose_champion_is_gone_is_begun_anew(spec, situation, make_situation):
    fingerprint = situation.inventory.fingerprint
    assert situation.data_version.counts == {"a": 12, "b": 12}
    champion = ChampionMark(version=1, study="cells", candidate="x", fingerprint="f" * 32)
    key = key_of(spec, fingerprint=fingerprint)
    broken_off = Record(
        number=1,
        key=key,
        identity=space_identity(spec),
        fingerprint=fingerprint,
        code="1",
        began=NOW.isoformat(),
        searches=("cells.refit",),
    )
    records_of(spec).save(replace(broken_off, champion=champion))
    record = begin(make_situation(), now=lambda: NOW)
    assert (record.number, record.champion) == (2, None)
    assert begin(make_situation(), now=lambda: NOW) == record
    assert [one.state for one in records_of(spec).all()] == ["superseded", "open"]


def test_a_refresh_that_is_done_is_not_begun_again(spec, make_situation):
    record = begin(make_situation(), now=lambda: NOW)
    done = records_of(spec).save(record, state="done")
    assert begin(make_situation(), now=lambda: NOW) == done
    assert records_of(spec).all() == [done]
