"""Holds a piece of work to the images that it is about."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from trainable.errors import OutageError

SHOWN = 12  # characters of a fingerprint

# By the field that names a data set, of `data` (`path`, `rehearsal`) or a whole path, the fingerprints that it may have.
Fingerprints = Mapping[str, Collection[str]]

_EXPECTED: ContextVar[Fingerprints | None] = ContextVar("expected fingerprints", default=None)


class ImagesChangedError(OutageError):
    """The images are not those that the work is about."""


@contextmanager
def held_to(expected: Fingerprints) -> Iterator[None]:
    """Inside, a data set of a field that is ``expected`` is opened with one of its fingerprints only.

    Another one is an ImagesChangedError. A generator is held where it is asked for its next value.
    """
    token = _EXPECTED.set(expected)
    try:
        yield
    finally:
        _EXPECTED.reset(token)


def check_held(fingerprint: str, *, field: str = "path") -> None:
    """Raise ImagesChangedError where the work in this block is about other images."""
    expected = _EXPECTED.get()
    if expected is not None and field in expected:
        check_unchanged(fingerprint, known=expected[field], field=field)


def check_unchanged(fingerprint: str, *, known: Collection[str], field: str = "path") -> None:
    """Raise ImagesChangedError where the ``fingerprint`` of a data set is none that is ``known``."""
    if fingerprint not in known:
        was = " or ".join(earlier[:SHOWN] for earlier in known)
        path = field if "." in field else f"data.{field}"
        raise ImagesChangedError(
            f"{path}: the images have changed since this search began (fingerprint {fingerprint[:SHOWN]}, was {was}); "
            "put the old ones back to go on with it, start a new one with --name, or ask `refresh` what the new ones need"
        )
