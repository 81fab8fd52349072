"""A registered network as files for other runtimes."""

import shutil

import pytest
from mlflow import MlflowClient

from search.promotion.export import COLUMNS, export, variants_table
from search.tracking.registry import ROOT, Registry
from trainable.deploy.exporting import Wanted
from trainable.errors import UserError

pytestmark = pytest.mark.slow

WANTED = Wanted(to=("pt2",))


@pytest.fixture
def uri(served, empty_database, tmp_path):
    """A store with one registered model."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    experiment = MlflowClient(uri).create_experiment("cells", artifact_location=(tmp_path / "artifacts").as_uri())
    run = MlflowClient(uri).create_run(experiment)
    registry = Registry(uri, name="cells", lock_folder=tmp_path)
    tags = {ROOT: str(tmp_path)}
    registry.register("one", model=served("old").folder, run_id=run.info.run_id, tags=tags, sentence="as made")
    return uri


def test_a_registered_model_is_exported_and_its_table_goes_to_its_run(uri, tmp_path):
    exported = export("models:/cells/1", folder=tmp_path, uri=uri, out=tmp_path / "out", wanted=WANTED)
    assert (exported.what, exported.folder, exported.note) == ("models:/cells/1", tmp_path / "out", None)
    assert [row["name"] for row in exported.rows] == ["torch fp32", "pt2 fp32"]
    table = variants_table(exported.rows)
    assert (table.row_count, len(table.columns)) == (2, len(COLUMNS))
    client = MlflowClient(uri)
    run_id = client.get_model_version("cells", "1").run_id
    assert {file.path for file in client.list_artifacts(run_id, "export")} == {
        "export/model.pt2",
        "export/variants.json",
    }


def test_a_file_is_no_folder_to_write_into(uri, tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(UserError, match="--out: .*out is a file; name a folder"):
        export("models:/cells/1", folder=tmp_path, uri=uri, out=tmp_path / "out", wanted=WANTED)


def test_a_search_that_is_not_there_is_named(tmp_path):
    with pytest.raises(UserError, match="cells: no search of this name"):
        export("cells", folder=tmp_path, uri=None, out=None, wanted=WANTED)
