from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from search.ledger.sqlite_address import sqlite_address, sqlite_file


@pytest.mark.parametrize("name", ["plain", "a b", "a[b]", "a#b", "a%20b", "a?b", "50%", "ä;é", "a%2520b?c=d"])
def test_the_file_of_an_address_lies_in_the_folder_meant_whatever_its_name(tmp_path, name):
    path = tmp_path / name / "mlflow.db"
    path.parent.mkdir()
    address = sqlite_address(path)
    with create_engine(address).connect() as connection:
        connection.execute(text("create table t (x int)"))
    assert path.is_file()
    assert [folder.name for folder in tmp_path.iterdir()] == [name]
    assert sqlite_file(address) == (path, "")


def test_a_name_without_odd_signs_gives_the_address_everybody_knows():
    assert sqlite_address(Path("/a/mlflow.db")) == "sqlite:////a/mlflow.db"
    assert sqlite_address(Path("/a/mlflow.db"), query="timeout=5") == "sqlite:////a/mlflow.db?timeout=5"


def test_what_follows_a_question_mark_is_no_part_of_the_name():
    assert sqlite_file("sqlite:///a/mlflow.db?timeout=5") == (Path("a/mlflow.db"), "timeout=5")


@pytest.mark.parametrize("address", ["sqlite://", "sqlite:///", "postgresql://host/a", "http://host", "mlruns"])
def test_what_names_no_file_of_sqlite_has_none(address):
    assert sqlite_file(address) is None
