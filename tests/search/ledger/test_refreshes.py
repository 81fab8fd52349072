"""The records of refreshes: written whole, read back, found by what they are about."""

import json

import pytest

from search.ledger.refreshes import ChampionMark, Record, Records, key_of, space_hash, space_identity
from search.space.spec import SearchSpec
from trainable.errors import UserError

SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 4},
        "scheduler": {"min_epochs": 1, "max_epochs": 2},
        "base": {"data.path": "images"},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
    }
)
CHAMPION = ChampionMark(version=2, study="cells", candidate="x", fingerprint="e" * 32)


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "cells")


def make_record(number=1, fingerprint="f" * 32, **values):
    return Record(
        number=number,
        key=key_of(SPEC, fingerprint=fingerprint),
        identity=space_identity(SPEC),
        fingerprint=fingerprint,
        code="1",
        began="2026-11-21T12:00:00+00:00",
        **values,
    )


def test_a_record_is_read_back_as_it_was_written(records):
    record = make_record(bad=(2**64 - 1,), searches=("a", "b"), promotions=({"version": 1},), champion=CHAMPION)
    assert records.save(record) == record
    assert records.find(record.key) == record
    assert records.all() == [record]
    assert [path.name for path in records.folder.glob("*.tmp")] == []


def test_a_champion_is_written_with_what_tells_it_from_others(records):
    records.save(make_record(), after=CHAMPION)
    (path,) = records.folder.glob("[0-9]*.json")
    assert json.loads(path.read_text())["after"] == {
        "version": 2,
        "study": "cells",
        "candidate": "x",
        "fingerprint": "e" * 32,
    }


def test_of_a_key_the_newest_is_found(records):
    for number in (1, 2):
        records.save(make_record(number))
    records.save(make_record(3, fingerprint="0" * 32))
    assert records.find(make_record().key).number == 2
    assert records.find("0" * 16) is None
    assert [record.number for record in records.all()] == [1, 2, 3]


def test_what_is_no_record_is_named(records):
    records.save(make_record())
    (path,) = records.folder.glob("[0-9]*.json")
    path.write_text("{}")
    with pytest.raises(UserError, match=f"{path}: is no record of this version of the program .*; move it away"):
        records.all()


def test_files_that_look_the_same_are_known_by_their_content(records):
    assert records.fingerprint_seen("some files") is None
    records.save(make_record())
    records.remember_seen("some files", fingerprint="f" * 32)
    assert records.fingerprint_seen("some files") == "f" * 32
    assert records.fingerprint_seen("other files") is None


def test_the_key_is_of_space_and_data(records):
    wider = SearchSpec.model_validate(SPEC.model_dump() | {"vary": {"optimizer.lr": {"log": [1e-5, 1e-1]}}})
    keys = {key_of(SPEC, fingerprint="a"), key_of(SPEC, fingerprint="b"), key_of(wider, fingerprint="a")}
    assert len(keys) == 3
    assert space_hash(SPEC) != space_hash(wider)
