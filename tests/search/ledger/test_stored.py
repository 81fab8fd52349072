import contextlib
import shutil
from pathlib import Path

import pytest

from search.ledger.stored import SPEC_FILE, as_written, check_called_as_its_folder, stored_spec, study_name
from search.run.search import search_folder
from search.space.spec import BACKBONE, SearchSpec, difference
from trainable.errors import UserError


def make_spec(*, folder="searches", uri="sqlite:///mlflow.db", **sections):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1, "folder": folder},
            "scheduler": {"min_epochs": 1, "max_epochs": 1},
            "tracking": {"uri": uri},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
        | sections
    )


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Writes down a search that was begun in the folder ``a``; beside it is the empty ``b``."""

    def write(spec):
        monkeypatch.chdir(tmp_path / "a")
        folder = search_folder(spec)
        folder.mkdir(parents=True)
        (folder / SPEC_FILE).write_text(spec.model_dump_json())
        return spec

    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    return write


@pytest.mark.parametrize("folder", ["searches", "./searches", "my/searches"])
def test_a_search_is_where_it_is_pointed_at_whatever_its_file_says(keep, tmp_path, folder):
    spec = keep(make_spec(folder=folder))
    for here, there in (
        ("a", folder),
        ("b", f"../a/{folder}"),
        ("b", str(tmp_path / "a" / folder)),
        (".", f"a/{folder}"),
    ):
        with contextlib.chdir(tmp_path / here):
            found = stored_spec(Path(there) / "cells")
            assert search_folder(found).resolve() == tmp_path / "a" / folder / "cells"
            assert found.step_folder("ssl").resolve() == tmp_path / "a" / folder / "cells/ssl"
            assert difference(found, spec) == []


def test_the_weights_of_a_step_are_found_in_a_search_that_was_moved(keep, tmp_path):
    base = {"model.name": "resnet10t", "model.weights": "ssl"}
    keep(make_spec(ssl={}, base=base))
    shutil.move(tmp_path / "a/searches", tmp_path / "b/archive")
    found = stored_spec(tmp_path / "b/archive/cells")
    assert found.trial_config({})["model"]["weights"] == str(tmp_path / "b/archive/cells/ssl" / BACKBONE)


def test_mlflows_file_is_that_of_the_directory_the_search_was_begun_in(keep, tmp_path):
    keep(make_spec())
    assert stored_spec(Path("searches/cells")).tracking.uri == "sqlite:///mlflow.db"
    with contextlib.chdir(tmp_path / "b"):
        assert stored_spec(tmp_path / "a/searches/cells").tracking.uri == f"sqlite:///{tmp_path}/a/mlflow.db"
    shutil.move(tmp_path / "a", tmp_path / "c")
    with contextlib.chdir(tmp_path / "b"):
        assert stored_spec(tmp_path / "c/searches/cells").tracking.uri == f"sqlite:///{tmp_path}/c/mlflow.db"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:5000", "sqlite:////tmp/mlflow.db", "databricks"])
def test_an_address_that_counts_from_nowhere_stays(keep, tmp_path, uri):
    keep(make_spec(uri=uri))
    with contextlib.chdir(tmp_path / "b"):
        assert stored_spec(tmp_path / "a/searches/cells").tracking.uri == uri


def test_what_is_kept_of_a_search_that_goes_on_from_elsewhere_holds_where_it_was_begun(keep, tmp_path):
    spec = keep(make_spec())
    with contextlib.chdir(tmp_path / "b"):
        folder = tmp_path / "a/searches/cells"
        assert as_written(stored_spec(folder), folder=folder) == spec
        other = make_spec(folder=str(tmp_path / "a/searches"), uri="sqlite:///other.db")
        assert as_written(other, folder=folder) == make_spec(uri="sqlite:///other.db")


def test_a_search_is_called_as_its_folder_and_keeps_what_it_was_called_outside(keep, tmp_path):
    spec = keep(make_spec())
    folder = (tmp_path / "a/searches/cells").rename(tmp_path / "a/searches/old")
    found = stored_spec(Path("searches/old"))
    assert (search_folder(found), found.search.name) == (Path("searches/old"), "old")
    assert (found.tracking.experiment, found.model_name) == ("cells", "cells")
    assert study_name(found, folder=folder) == "cells"
    assert as_written(found, folder=Path("searches/old")) == spec
    check_called_as_its_folder(found, folder=folder)


@pytest.mark.parametrize(
    ("name", "search"), [("an old one", {}), ("old", {"storage": "postgresql://user@host/searches"})]
)
def test_a_name_that_no_search_has_or_a_ledger_elsewhere_is_not_gone_on_with(keep, tmp_path, name, search):
    keep(make_spec(search={"name": "cells", "trials": 1, **search}))
    folder = (tmp_path / "a/searches/cells").rename(tmp_path / "a/searches" / name)
    with pytest.raises(UserError, match=rf"/{name}: holds the search 'cells'; call the folder so to go on with it$"):
        check_called_as_its_folder(stored_spec(folder), folder=folder)


def test_relative_images_are_those_of_the_directory_the_search_was_begun_in(keep, tmp_path):
    spec = keep(make_spec(base={"data.path": "images", "data.images": "images", "model.weights": "pretrained"}))
    (tmp_path / "a/images").mkdir()
    there = str(tmp_path / "a/images")
    assert stored_spec(Path("searches/cells")).base["data.path"] == "images"
    folder = tmp_path / "a/searches/cells"
    with contextlib.chdir(tmp_path / "b"):
        found = stored_spec(folder)
        assert found.base == {"data.path": there, "data.images": there, "model.weights": "pretrained"}
        assert as_written(found, folder=folder) == spec


@pytest.mark.parametrize("text", [b"{not json", b"[]", b"\xff\xfe"])
def test_a_file_that_is_not_what_a_search_keeps_is_one_line(tmp_path, text):
    (tmp_path / SPEC_FILE).write_bytes(text)
    with pytest.raises(UserError, match="search.json: is not the JSON that a search keeps there"):
        stored_spec(tmp_path)
