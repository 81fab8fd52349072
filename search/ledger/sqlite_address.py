"""SQLite files as addresses, in which some signs that a folder's name may have mean something else."""

from pathlib import Path
from urllib.parse import unquote

PLAIN = "sqlite:///"
# MLflow makes the folder of a `sqlite:///` address as it is written, without reading the escapes; not that of this one.
ESCAPED = "sqlite+pysqlite:///"


def sqlite_address(path: Path, *, query: str = "") -> str:
    """The address of an SQLite file, plain where its path has no sign that an address reads otherwise."""
    escaped = str(path).replace("%", "%25").replace("?", "%3F")
    scheme = PLAIN if escaped == str(path) else ESCAPED
    return f"{scheme}{escaped}" + (f"?{query}" if query else "")


def sqlite_file(address: str) -> tuple[Path, str] | None:
    """The file that an address names, with the query after it; None for an address of anything else, or of no file."""
    for scheme in (PLAIN, ESCAPED):
        if address.startswith(scheme):
            name, _, query = address.removeprefix(scheme).partition("?")
            return (Path(unquote(name)), query) if name else None
    return None
