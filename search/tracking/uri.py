"""Addresses of MLflow stores: checked, made absolute, shown without secrets."""

import hashlib
import re
import shlex
from urllib.parse import urlsplit

from search.ledger.sqlite_address import sqlite_address, sqlite_file
from trainable.errors import OutageError, UserError
from trainable.home import expand_home
from trainable.masking import masked, masked_address

DEFAULT_PORT = 5000
DATABRICKS = "databricks"
LONGEST_REASON = 200


class StoreFailsError(OutageError):
    """MLflow's store refuses or cannot do what it was asked."""


def check_uri(uri: str) -> str:
    """The address with an absolute path; a relative one counts from the current directory.

    Raises UserError for a folder of plain files, which MLflow no longer writes, and for an SQLite file in a folder
    that does not exist.
    """
    scheme = _scheme(uri)
    if scheme in ("", "file"):
        raise UserError(
            f"tracking.uri: {masked_address(uri)!r} is a folder of plain files, which MLflow no longer writes; "
            "must be a database such as 'sqlite:///mlflow.db' or a server such as 'http://127.0.0.1:5000'"
        )
    if not scheme.startswith("sqlite"):
        return uri
    named = sqlite_file(expand_home(uri))
    if named is None or not named[0].absolute().parent.is_dir():
        raise UserError(
            f"tracking.uri: {masked_address(uri)!r} names no file in a folder that exists; must be like 'sqlite:///mlflow.db'"
        )
    path, query = named
    return sqlite_address(path.absolute(), query=query)


def first_line(error: Exception) -> str:
    """The beginning of what a store's error says, without secrets."""
    text = masked(str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:LONGEST_REASON]


def store_failure(uri: str, error: Exception) -> UserError | StoreFailsError:
    """What to say of a store's error: what the user must change where its tables are of another version of MLflow's."""
    if "mlflow db upgrade" in str(error):
        upgrade = f"`mlflow db upgrade {shlex.quote(masked_address(uri))}`"
        return UserError(
            f"tracking.uri: {masked_address(uri)} is of another MLflow; {upgrade}, after a backup, makes it one of this"
        )
    return StoreFailsError(f"tracking.uri: {masked_address(uri)} fails ({first_line(error)})")


def is_server(uri: str) -> bool:
    """Whether the address is an MLflow server, which has its own pages."""
    return _scheme(uri) in ("http", "https", DATABRICKS)


def page_address(uri: str, *, port: int = DEFAULT_PORT) -> str:
    """Where a browser finds the pages: the server itself, or the one that ``python -m search ui`` starts."""
    return masked_address(uri).rstrip("/") if is_server(uri) else f"http://127.0.0.1:{port}"


def _scheme(uri: str) -> str:
    """What kind of store it is; Databricks' of the default profile is called by that word alone."""
    return DATABRICKS if uri.lower() == DATABRICKS else urlsplit(uri).scheme.lower()


def artifact_folder(uri: str) -> str | None:
    """Where MLflow keeps files beside an SQLite database; None where the server or the user decides."""
    named = sqlite_file(uri)
    return None if named is None else (named[0].parent / "mlartifacts").as_uri()


def folder_name(name: str) -> str:
    """A name as that of one folder, whose address is written as it is; two names never become one."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", name)
    return plain if plain == name and name.strip(".") else f"{plain}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
