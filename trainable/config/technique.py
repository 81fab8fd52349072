"""What may be known of a technique without torch: the keys it reads, the settings it needs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Need:
    """A setting that a technique asks for: whether the value at ``path`` ``is_met``, and the ``message`` where it is not."""

    path: str
    is_met: Callable[[Any], bool]
    message: Callable[[Any], str]


@dataclass(frozen=True)
class Technique:
    """One value of a choice. ``keys`` are the dotted paths that it reads and that some other value of the choice does not."""

    keys: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Method:
    """A technique of adaptation, and what other parts of a trial must know of it.

    ``aligns`` says whether it draws the domains' features together, ``domain_classifier`` what one that learns beside the network
    looks at, if there is one; ``target_norms`` how batch norms come by the target's statistics, if they keep any;
    ``trains_on_target`` whether updates look at target images, ``changes_images`` whether they change source images.
    """

    keys: tuple[str, ...] = ()
    needs: tuple[Need, ...] = ()
    aligns: bool = False
    domain_classifier: Literal["features", "features and predictions"] | None = None
    target_norms: Literal["when measured", "in training"] | None = None
    trains_on_target: bool = True
    changes_images: bool = False


def unmet(technique: Technique | Method, *, config: object) -> Iterator[str]:
    """One line for each need of the technique that a configuration, read by attributes, does not meet."""
    for need in technique.needs:
        value = config
        for name in need.path.split("."):
            value = getattr(value, name)
        if not need.is_met(value):
            yield need.message(value)
