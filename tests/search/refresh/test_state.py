import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from search.ledger import ledger as ledgers
from search.ledger.ledger import LedgerFailsError
from search.ledger.refreshes import ChampionMark, Record, records_of, space_identity
from search.ledger.stored import SPEC_FILE
from search.refresh.state import Situation, fingerprint_of
from search.space.spec import SearchSpec
from search.tracking.registry import ModelVersion, Registry
from trainable.data.fingerprint import id_of
from trainable.errors import UserError

NOW = datetime(2026, 1, 1, tzinfo=UTC).isoformat()


def space(folder, *, name="cells", storage=None, low=1e-4, images="images"):
    return SearchSpec.model_validate(
        {
            "search": {"name": name, "trials": 4, "folder": str(folder / "searches"), "storage": storage},
            "scheduler": {"min_epochs": 1, "max_epochs": 2},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
            "base": {"data.path": str(images)},
            "vary": {"optimizer.lr": {"log": [low, 1e-1]}},
        }
    )


def situation(spec, folder):
    registry = Registry(spec.tracking.uri, name="cells", lock_folder=folder)
    return Situation(spec, records=records_of(spec), registry=registry, place=folder)


def store(spec, folder, *, finished, fingerprint="f" * 32):
    """A search with no trial, as its folder would hold it."""
    place = folder / "searches" / spec.search.name
    notes = {"metric": spec.search.metric, "data": {"fingerprint": fingerprint}, "finished": finished}
    ledgers.create(place, name=spec.search.name, storage=None, space=spec.space, metric=spec.search.metric, notes=notes)
    (place / SPEC_FILE).write_text(spec.model_dump_json())


def record(spec, number=1, **values):
    return Record(
        number=number,
        key=f"{number:016x}",
        identity=space_identity(spec),
        fingerprint="f" * 32,
        code="1",
        began=NOW,
        **values,
    )


def test_a_database_that_does_not_answer_is_no_missing_search(tmp_path):
    spec = space(tmp_path, storage="postgresql+psycopg://nobody@127.0.0.1:1/none")
    place = tmp_path / "searches" / "cells"
    place.mkdir(parents=True)
    (place / SPEC_FILE).write_text(spec.model_dump_json())
    # Where its driver is not installed, that is a mistake, which is no missing search either.
    with pytest.raises((LedgerFailsError, UserError), match=r"^search\.storage: cannot open the database"):
        situation(spec, tmp_path).searches.find("cells")
    assert situation(spec, tmp_path).searches.find("others") is None


def test_a_space_counts_as_searched_when_a_search_of_it_is_finished(tmp_path):
    spec = space(tmp_path)
    found = situation(spec, tmp_path)
    assert found.space_changes(record(spec)) is None
    store(spec, tmp_path, finished=False)
    assert found.space_changes(record(spec)) is None
    ledgers.open_existing(tmp_path / "searches/cells", name="cells", storage=None, space=spec.space).note(finished=True)
    assert found.space_changes(record(spec)) == []
    assert found.finished_search(record(spec)) == "cells"
    assert found.finished_search(record(spec, searches=("cells",))) is None


def test_a_changed_space_is_told_and_moved_images_are_no_change(tmp_path):
    spec = space(tmp_path)
    store(spec, tmp_path, finished=True)
    moved, wider = space(tmp_path, images=tmp_path / "moved"), space(tmp_path, low=1e-5)
    assert situation(moved, tmp_path).space_changes(record(moved)) == []
    (line,) = situation(wider, tmp_path).space_changes(record(wider))
    assert line.startswith("vary.optimizer.lr: ")
    records = records_of(wider)
    records.save(record(wider), state="done")
    assert situation(wider, tmp_path).space_changes(record(wider, number=2)) == []


OLD, NEW = (
    ChampionMark(version=number, study="s", candidate=str(number), fingerprint=str(number) * 32) for number in (1, 2)
)


@pytest.mark.parametrize(
    ("after", "champion", "is_tried"),
    [
        (OLD, OLD, True),  # the gate refused what was searched
        (None, None, True),
        (None, OLD, False),  # promoted since
        (OLD, NEW, False),
        (NEW, OLD, True),  # rolled back since
        (NEW, replace(NEW, fingerprint="f" * 32), False),  # what was searched is champion
    ],
)
def test_what_was_tried_in_vain_is_known(tmp_path, after, champion, is_tried):
    spec = space(tmp_path)
    records = records_of(spec)
    records.save(record(spec), decision={"kind": "warm search", "reasons": []}, state="done", after=after)
    records.save(record(spec, number=2), decision={"kind": "skip", "reasons": []}, state="done")
    found = situation(spec, tmp_path).refresh_in_vain(record(spec, number=3, champion=champion))
    assert (found is not None and found.number == 1) == is_tried


def versions(folder, draw_folder, *contents):
    """Refreshes of data of these images by turns; what each found, and the splits by image."""
    splits = []
    for number, images in enumerate(contents, start=1):
        shutil.rmtree(folder / "images", ignore_errors=True)
        draw_folder(images)
        spec = space(folder, images=folder / "images")
        found = situation(spec, folder)
        now = {one.sample_id: one.split for one in found.data_version.entries if one.present}
        records_of(spec).save(replace(record(spec, number=number), fingerprint=found.inventory.fingerprint))
        splits.append(now)
    return splits


def test_images_keep_their_split_when_data_go_back_and_forth(tmp_path, draw_folder):
    a, b = {"a": 12, "b": 12}, {"a": 20, "b": 20}
    first, second, again, last = versions(tmp_path, draw_folder, a, b, a, {"a": 30, "b": 30})
    assert first == again
    assert first.items() <= second.items() <= last.items()


def test_a_class_without_an_image_in_a_split_is_told_before_anything(tmp_path, draw_folder):
    spec = space(tmp_path, images=tmp_path / "images")
    draw_folder({"a": 12, "b": 12})
    found = situation(spec, tmp_path)
    records_of(spec).save(replace(record(spec), fingerprint=found.inventory.fingerprint))
    tests = found.data_version.ids("test")
    for one, digest in zip(found.inventory.source.samples, found.inventory.digests, strict=True):
        if one.label == "b" and id_of(digest) in tests:
            Path(one.file).unlink()
    with pytest.raises(UserError, match="class 'b' has no image in test: images that are known keep their split"):
        _ = situation(spec, tmp_path).data_version


def test_a_version_that_does_not_name_its_data_is_said():
    with pytest.raises(UserError, match="models:/cells/3: does not say what data it was trained on"):
        fingerprint_of(ModelVersion(name="cells", number=3, tags={}, run_id=""))


def test_a_touched_image_is_no_other_image(tmp_path, draw_folder):
    draw_folder({"a": 3, "b": 3})
    found = situation(space(tmp_path, images=tmp_path / "images"), tmp_path)
    path = Path(found.inventory.source.samples[0].file)
    os.utime(path, (1, 1))
    assert not found.have_changed()
    path.unlink()
    assert found.have_changed()
