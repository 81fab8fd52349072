import re

import pytest

from search.tracking.uri import artifact_folder, check_uri, folder_name, is_server
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


def test_a_folder_with_odd_signs_is_the_one_that_is_meant(tmp_path, monkeypatch):
    folder = tmp_path / "a%20b?c"
    folder.mkdir()
    monkeypatch.chdir(folder)
    uri = check_uri("sqlite:///mlflow.db")
    assert check_uri(uri) == uri
    assert artifact_folder(uri) == (folder / "mlartifacts").as_uri()


def test_a_tilde_is_the_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert check_uri("sqlite:///~/mlflow.db") == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("name", ["cells", "resnet-1.2_b"])
def test_an_experiment_of_plain_name_has_a_folder_of_its_name(name):
    assert folder_name(name) == name


def test_an_experiment_of_odd_name_has_one_folder_of_its_own():
    names = [
        "a/b",
        "a b",
        "a:b",
        "../a",
        "../../escape",
        "/etc",
        "..",
        ".",
        "a%2Fb",
        "..%2F..%2Fescape",
        "~root",
        "?x#y",
        "ä",
    ]
    folders = [folder_name(name) for name in names]
    assert len(set(folders)) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", folder) and folder.strip(".") for folder in folders)
