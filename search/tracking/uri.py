"""Addresses of MLflow stores: checked, made absolute, shown without secrets."""

import re
from pathlib import Path
from urllib.parse import urlsplit

from trainable.errors import OutageError, UserError

DEFAULT_PORT = 5000
DATABRICKS = "databricks"
LONGEST_REASON = 200
_USERINFO = re.compile(r"(?<=://)[^/@\s]+@")
_SECRET = re.compile(r"(?i)(?<=[?&])(password|passwd|token|secret)=[^&\s]*")


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
            f"tracking.uri: {redact(uri)!r} is a folder of plain files, which MLflow no longer writes; "
            "must be a database such as 'sqlite:///mlflow.db' or a server such as 'http://127.0.0.1:5000'"
        )
    if scheme != "sqlite":
        return uri
    name, _, query = uri.partition(":///")[2].partition("?")
    path = Path(name).absolute()
    if not name or not path.parent.is_dir():
        raise UserError(
            f"tracking.uri: {uri!r} names no file in a folder that exists; must be like 'sqlite:///mlflow.db'"
        )
    return f"sqlite:///{path}" + (f"?{query}" if query else "")


def redact(text: str) -> str:
    """The text with users, passwords and tokens taken out of every address in it."""
    return _SECRET.sub(r"\1=***", _USERINFO.sub("", text))


def first_line(error: Exception) -> str:
    """The beginning of what a store's error says, without secrets."""
    text = redact(str(error).strip()) or type(error).__name__
    return text.splitlines()[0][:LONGEST_REASON]


def is_server(uri: str) -> bool:
    """Whether the address is an MLflow server, which has its own pages."""
    return _scheme(uri) in ("http", "https", DATABRICKS)


def page_address(uri: str, *, port: int = DEFAULT_PORT) -> str:
    """Where a browser finds the pages: the server itself, or the one that ``python -m search ui`` starts."""
    return redact(uri).rstrip("/") if is_server(uri) else f"http://127.0.0.1:{port}"


def _scheme(uri: str) -> str:
    """What kind of store it is; Databricks' of the default profile is called by that word alone."""
    return DATABRICKS if uri.lower() == DATABRICKS else urlsplit(uri).scheme.lower()


def artifact_folder(uri: str) -> str | None:
    """Where MLflow keeps files beside an SQLite database; None where the server or the user decides."""
    if not uri.startswith("sqlite:///"):
        return None
    return (Path(uri.removeprefix("sqlite:///").partition("?")[0]).parent / "mlartifacts").as_uri()
