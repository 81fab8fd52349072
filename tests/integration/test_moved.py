"""A search that is looked at and gone on with from another working directory, and after it was moved."""

import shutil
from dataclasses import replace

import pytest

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def begun(make_place):
    """A search of one trial, begun in the folder ``a``; and the empty folder ``b`` beside it."""
    place = make_place()
    (place.folder / "a").mkdir()
    (place.folder / "b").mkdir()
    own = replace(place, folder=place.folder / "a")
    (place.folder / "mlflow.db").rename(own.folder / "mlflow.db")
    own.write_space(
        search={"trials": 1},
        scheduler={"max_epochs": 1},
        base={"data": {"path": str((place.folder / "images").resolve()), "image_size": 32}},
        soup=0,
        promote={"confirm": {"top": 1, "seeds": 1}},
    )
    own.told("run", "space.yaml")
    return own, replace(place, folder=place.folder / "b")


def searches_below(folder):
    return sorted(str(path.parent.relative_to(folder)) for path in folder.rglob("search.json"))


@pytest.mark.long
def test_every_command_works_on_the_search_it_is_pointed_at_and_writes_nothing_where_it_is_called(begun):
    own, other = begun
    there = ("--folder", "../a/searches")
    document = other.read("resume", "cells", *there, "--trials", "2")
    assert (document["status"], document["trials_asked"]) == ("finished", 2)
    assert len(own.ledger().trials()) == 2
    for words in (("status", "cells"), ("report", "cells"), ("list",)):
        other.read(*words, *there)
    other.told("report", "cells", *there)
    assert "2 trials are in" in other.told("sync", "cells", *there)
    assert other.read("promote", "cells", "--force", *there)["outcome"] == "promoted"
    assert other.read("promote", "cells", *there)["outcome"] == "unchanged"
    other.told("export", "cells", *there)
    assert [path.name for path in other.folder.iterdir()] == ["cache"]  # of decoded images, where the test puts it
    assert searches_below(own.folder) == ["searches/cells"]
    assert own.read("promote", "cells")["outcome"] == "unchanged"
    assert own.read("resume", "cells", "--trials", "2")["status"] == "finished"


def test_a_moved_search_goes_on_where_it_lies_now(begun):
    own, other = begun
    shutil.copytree(own.folder, other.folder.parent / "c")
    moved = replace(own, folder=other.folder.parent / "c")
    (moved.folder / "searches").rename(moved.folder / "archive")
    trials = 1 + len(own.ledger().trials())
    document = moved.read("resume", "cells", "--folder", "archive", "--trials", str(trials))
    assert document["trials"] == {"COMPLETE": trials}
    assert searches_below(moved.folder) == ["archive/cells"]
    assert len(own.ledger().trials()) == trials - 1
    shutil.rmtree(moved.folder)


def test_a_renamed_search_goes_on_under_its_new_name_with_its_trials_and_refits(begun):
    own, other = begun
    shutil.copytree(own.folder, other.folder.parent / "d")
    renamed = replace(own, folder=other.folder.parent / "d")
    (renamed.folder / "searches/cells").rename(renamed.folder / "searches/old")
    trials = 1 + len(own.ledger().trials())
    document = renamed.read("resume", "old", "--trials", str(trials), "--set", "resources.gpu=auto")
    assert document["trials"] == {"COMPLETE": trials}
    assert searches_below(renamed.folder) == ["searches/old"]
    assert "trials are in" in renamed.told("sync", "old")
    shutil.rmtree(renamed.folder)


@pytest.mark.long
def test_images_that_were_moved_are_named_anew_and_others_are_refused(begun):
    own, other = begun
    images = (other.folder.parent / "images").resolve()
    place = replace(own, folder=other.folder.parent / "e")
    shutil.copytree(own.folder, place.folder)
    shutil.copytree(images, place.folder / "first")
    text = (place.folder / "searches/cells/search.json").read_text()
    (place.folder / "searches/cells/search.json").write_text(text.replace(str(images), "first"))
    (place.folder / "first").rename(place.folder / "moved")
    lost = place.call("resume", "cells")
    assert lost.returncode == 2
    assert lost.stderr == "error: data.path: 'first' does not exist; `--data PATH` says where the images lie now\n"
    assert place.read("resume", "cells", "--data", "moved")["status"] == "finished"
    assert place.read("resume", "cells")["status"] == "finished"
    next((place.folder / "moved/defective").iterdir()).unlink()
    refused = place.call("resume", "cells")
    assert "the images have changed since this search began" in refused.stderr
    assert refused.returncode == 1
    shutil.rmtree(place.folder)
