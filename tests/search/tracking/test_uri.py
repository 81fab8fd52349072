from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from search.tracking.uri import check_uri, experiment_folder, is_server
from trainable.errors import UserError


@pytest.mark.parametrize("uri", ["databricks", "databricks://profile"])
def test_a_databricks_workspace_is_taken_as_it_is_and_has_its_own_pages(uri):
    assert check_uri(uri) == uri
    assert is_server(uri)


@pytest.mark.parametrize(
    "uri", ["http://127.0.0.1:5000", "https://host/path", "postgresql://user@host/db", "mysql+pymysql://host/db"]
)
def test_a_server_or_a_database_is_taken_as_it_is(uri):
    assert check_uri(uri) == uri


@pytest.mark.parametrize("uri", ["mlruns", "./databricks", "databricks/runs", "/tmp/mlruns", "file:///tmp/mlruns"])
def test_a_folder_of_plain_files_is_refused(uri):
    with pytest.raises(UserError, match=r"^tracking\.uri: '.*' is a folder of plain files"):
        check_uri(uri)


@pytest.mark.parametrize(
    "name", ["../../escape", "/etc", "..", ".", "a/../../b", "..%2F..%2Fescape", "~root", "a\\..\\b", "?x#y"]
)
def test_no_name_of_an_experiment_leads_out_of_the_folder_of_artifacts(name):
    place = urlsplit(experiment_folder("sqlite:////data/mlflow.db", experiment=name))
    assert (place.query, place.fragment) == ("", "")
    assert Path(unquote(place.path)).parent == Path("/data/mlartifacts")
    assert ".." not in Path(unquote(place.path)).parts


def test_an_experiment_of_an_ordinary_name_is_called_by_it():
    assert (
        experiment_folder("sqlite:////data/mlflow.db", experiment="cells 2.0") == "file:///data/mlartifacts/cells 2.0"
    )
    assert experiment_folder("http://host", experiment="cells") is None
