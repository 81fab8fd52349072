"""The errors that are one line for the user: a mistake of his, or something that cannot be done now."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


class UserError(Exception):
    """A mistake of the user's, said in one line: where, what was given, what would be right."""


class OutageError(Exception):
    """What is no mistake but cannot be done now, said in one line: the same call may succeed later.

    It is no UserError, so that nobody who answers a mistake, such as a name that is not there, takes an outage for one.
    """


class SettingsError(UserError):
    """The mistakes of a settings file: the first is the message, ``problems`` has a line for each."""

    def __init__(self, problems: Sequence[str]) -> None:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(problems[0] + more)
        self.problems = tuple(problems)

    def __reduce__(self) -> "tuple[type[SettingsError], tuple[tuple[str, ...]]]":
        """Pickled by its problems, so that it comes whole from a worker."""
        return type(self), (self.problems,)


def nearest(name: str, names: Iterable[str]) -> str:
    """The end of a message that offers the nearest good name, ``; did you mean 'lr'?``; empty where none is near."""
    near = get_close_matches(name, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
