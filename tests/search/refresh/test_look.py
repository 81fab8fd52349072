import os
from datetime import UTC, datetime, timedelta

import pytest

from search.ledger.refreshes import Record, Records, data_of, key_of, look_at_files, space_identity
from search.refresh.look import limits, look_first
from search.space.spec import SearchSpec

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
WRITTEN = NOW - timedelta(seconds=100)


@pytest.fixture
def images(tmp_path, draw_folder):
    """Two classes of images that were written some time before NOW."""
    folder = draw_folder({"a": 3, "b": 3})
    for path in folder.rglob("*"):
        os.utime(path, (WRITTEN.timestamp(), WRITTEN.timestamp()))
    os.utime(folder, (WRITTEN.timestamp(), WRITTEN.timestamp()))
    return folder


def space(images, **rule):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 4},
            "scheduler": {"min_epochs": 1, "max_epochs": 2},
            "base": {"data.path": str(images)},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
            "refresh": {"settle_seconds": 60} | rule,
        }
    )


def looked(spec, records, now=NOW):
    return look_first(spec, records=records, now=now)


def begun(spec, records, **changes):
    """A record of these images, as if their content had been read."""
    _, text = look_at_files(data_of(spec))
    key = key_of(spec, fingerprint="f" * 32)
    record = Record(
        number=1, key=key, identity=space_identity(spec), fingerprint="f" * 32, code="1", began=NOW.isoformat()
    )
    record = records.save(record, decision={"kind": "skip", "reasons": []}, **changes)
    records.remember_seen(text, fingerprint="f" * 32)
    return record


@pytest.fixture
def records(tmp_path):
    return Records(tmp_path / "cells")


def test_images_that_nobody_has_looked_at_are_read(images, records):
    assert looked(space(images), records) is None


def test_images_that_were_refreshed_are_not_read_again(images, records):
    spec = space(images)
    begun(spec, records, state="done")
    answer = looked(spec, records)
    assert (answer.decision, answer.code) == ("skip", 3)
    (path := next(images.rglob("*.png"))).touch()
    os.utime(path, (NOW.timestamp() - 70, NOW.timestamp() - 70))
    assert looked(spec, records) is None


def test_another_space_or_another_way_to_read_is_refreshed(images, records):
    begun(space(images), records, state="done")
    other = space(images).model_dump()
    other["base"]["data.channels"] = 1
    assert looked(SearchSpec.model_validate(other), records) is None


def test_young_files_are_waited_for(images, records):
    answer = looked(space(images, settle_seconds=150), records)
    assert (answer.decision, answer.code, round(answer.retry_after_seconds)) == ("wait", 3, 50)
    assert looked(space(images, settle_seconds=99), records) is None


def test_a_marker_is_waited_for(images, records):
    spec = space(images, marker="_SUCCESS")
    assert looked(spec, records).decision == "wait"
    (images / "_SUCCESS").touch()
    os.utime(images, (WRITTEN.timestamp(), WRITTEN.timestamp()))
    assert looked(spec, records) is None


def test_an_interrupted_refresh_goes_on_and_one_that_waits_waits(images, records):
    spec = space(images, settle_seconds=1000)
    record = begun(spec, records)
    assert looked(spec, records) is None
    until = (NOW + timedelta(hours=2)).isoformat()
    records.save(record, wait={"until": until, "reason": "the cool-down", "limits": limits(spec.refresh)})
    answer = looked(spec, records)
    assert (answer.reasons, answer.retry_after_seconds) == (("the cool-down",), 7200)
    assert looked(spec, records, now=NOW + timedelta(hours=3)) is None
    assert (
        looked(space(images, settle_seconds=1000, cooldown_hours=1), records) is None
    )  # other limits than it waits by
