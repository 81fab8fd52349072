"""Takes passwords and tokens out of addresses that are shown or kept."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

HIDDEN = "***"
# Where a container or a revision stands before the @ rather than a user: a name alone is shown.
_NAMED_BEFORE_AT = ("abfs", "abfss", "az", "hf")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\S*)")
_QUERY = re.compile(r"[?#](?=[^=&\s]+=)")
_USER = re.compile(r"[^/@]*@")
_USER_AND_PASSWORD = re.compile(r"[^/:@]*:(.*)@", re.DOTALL)  # as SQLAlchemy reads it: a password may hold a slash
_PORT_AND_PATH = re.compile(r"\d+/.*", re.DOTALL)
_SECRET_NAME = (
    r"[\w.%-]*(?:pass|pwd|token|secret|signature|cred|auth(?!or)|(?<![a-z])(?:sig|key)(?![a-z])|"
    r"(?:access|account|api|private|ssl|storage)[-_]?key)[\w.%-]*"
)
_SECRET_VALUE = re.compile(rf"(?i)([?&;#]{_SECRET_NAME}=)([^&;\s]+)")


def masked(text: str) -> str:
    """The text with users, passwords and secret values of a query taken out of every address in it."""
    return _ADDRESS.sub(lambda address: _masked(address[1], address[2]), text)


def masked_address(address: str) -> str:
    """:func:`masked` of one address, whose password may hold spaces too."""
    scheme, mark, rest = address.partition("://")
    return _masked(scheme, rest) if mark else address


def holds_secret(address: str) -> bool:
    """Whether an address has a password or a secret value in its query; a user's name alone is none."""
    rest = address.partition("://")[2]
    password = _USER_AND_PASSWORD.match(_parts(rest)[0])
    has_password = password is not None and bool(password[1]) and _PORT_AND_PATH.fullmatch(password[1]) is None
    return has_password or _SECRET_VALUE.search(rest) is not None


def secrets_below(values: Any, *, path: str = "") -> Iterator[str]:
    """The dotted paths of nested settings under which an address with a secret stands."""
    if isinstance(values, str) and holds_secret(values):
        yield path
    if isinstance(values, list):
        values = dict(enumerate(values))
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from secrets_below(value, path=f"{path}.{name}" if path else str(name))


def _masked(scheme: str, rest: str) -> str:
    place, query = _parts(rest)
    if _USER_AND_PASSWORD.match(place) or not (scheme in _NAMED_BEFORE_AT or _USER.match(place) is None):
        place = place.rpartition("@")[2]
    asked = _SECRET_VALUE.sub(lambda value: value[1] + HIDDEN, query)
    return f"{scheme}://{place}{asked}"


def _parts(rest: str) -> tuple[str, str]:
    """What follows the scheme, and the query; a question mark before an @ may be one of the password."""
    query = _QUERY.search(rest)
    if query is None:
        return rest, ""
    place, asked = rest[: query.start()], rest[query.start() :]
    return (rest, "") if ":" in place.partition("/")[0] and "@" not in place and "@" in asked else (place, asked)
