"""Whether changed data are worth a new search, and how much of one: a pure decision with its reasons.

The rungs, cheapest first: nothing has changed; the champion is asked about the new images; its configuration is trained
again on old and new ones; a search that begins with the best of the last ones; a search from the beginning.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from search.space.sections import RefreshSection

Kind = Literal["drift", "champion", "refit", "skip", "re-evaluate", "warm search", "full search"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What was lost against the champion's own test images, by ``promote.metric`` over the classes that both have.

    ``value`` was measured on ``num_images`` images, ``level`` on the champion's; ``low`` is the lower bound of
    level - value, None where images are too few to tell.
    """

    value: float
    level: float
    low: float | None
    num_images: int

    def said(self, images: str) -> str:
        """In words."""
        return (
            f"{self.value:.4f} on {self.num_images} {images} against {self.level:.4f} on the champion's own test images"
        )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known when a rung is chosen; None is what has not been measured yet.

    ``searched`` names the finished search of this space on these images, if there is one; ``tried`` is the refresh that
    trained something last, where no new champion came of it: what has changed since is what counts. ``drift`` says in words
    what drifted, nothing where nothing did, ``untold`` what could not be compared; ``unasked`` why the champion could not be
    asked, ``unfit`` why its configuration not be trained again.
    """

    has_champion: bool
    searched: str | None = None
    tried: int | None = None
    same_data: bool = False
    is_new_space: bool = False
    space_changes: tuple[str, ...] = ()
    changed: int = 0
    share_changed: float = 0.0
    only_removed: bool = False
    new_classes: tuple[str, ...] = ()
    vanished_classes: tuple[str, ...] = ()
    drift: tuple[str, ...] | None = None
    untold: str = ""
    champion: Loss | None = None
    unasked: str = ""
    refit: Loss | None = None
    unfit: str = ""


@dataclass(frozen=True)
class Rung:
    """What is to be done next; ``is_last`` says that nothing is decided after it."""

    kind: Kind
    reasons: tuple[str, ...]
    is_last: bool

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        return asdict(self)


def next_rung(facts: Facts, *, rule: RefreshSection) -> Rung:
    """The next measurement, ``drift``, ``champion`` or ``refit``, or the decision.

    A decision is ``skip``, ``re-evaluate`` (the champion was asked and is still good), ``refit`` (its configuration, trained
    again, is good), ``warm search`` or ``full search``.
    """
    if facts.searched is not None:
        return _last("skip", f"search {facts.searched!r} of this space on these images is finished")
    if facts.is_new_space:
        return _last("full search", "this space has not been searched yet")
    if facts.space_changes:
        more = f" (and {len(facts.space_changes) - 1} more)" if len(facts.space_changes) > 1 else ""
        return _last("full search", f"the space has changed, {facts.space_changes[0]}{more}")
    if not facts.has_champion and facts.tried is None:
        return _last("warm search", "there is no champion to ask")
    if facts.same_data:
        return _last("skip", "the images are those the champion was trained on")
    for word, names in (("new", facts.new_classes), ("vanished", facts.vanished_classes)):
        if names:
            return _last("warm search", f"{word} classes {', '.join(map(repr, names))}")
    if facts.has_champion and facts.drift is None:
        return Rung("drift", (), is_last=False)
    if facts.drift:
        return _last("warm search", *(f"drift: {line}" for line in facts.drift))
    return _without_drift(facts, rule=rule)


def _without_drift(facts: Facts, *, rule: RefreshSection) -> Rung:
    changed = _changed(facts)
    if facts.share_changed > rule.small_share:
        reasons = [f"{changed}, more than {rule.small_share:.0%}"]
        if not facts.has_champion:
            return _last("warm search", *reasons, "there is no champion to ask")
    elif facts.only_removed:
        return _last("skip", changed, "all of them were removed")
    elif facts.tried is not None:
        in_vain = f"no new champion came of refresh {facts.tried}; that few are no reason to train again"
        return _last("skip", changed, in_vain)
    elif facts.champion is None and not facts.unasked:
        return Rung("champion", (changed,), is_last=False)
    elif facts.champion is None:
        return _last("skip", changed, f"too little to ask the champion about: {facts.unasked}")
    elif not _is_short(facts.champion, rule=rule):
        return _last("re-evaluate", changed, _good("the champion is still good", facts.champion, "of them"))
    else:
        reasons = [changed, _short("the champion has lost", facts.champion, "of them", rule=rule)]
    if facts.unfit:
        return _last("warm search", *reasons, f"the champion's configuration cannot be trained again: {facts.unfit}")
    if facts.refit is None:
        return Rung("refit", tuple(reasons), is_last=False)
    images = "validation images, old and new,"
    if not _is_short(facts.refit, rule=rule):
        return _last("refit", *reasons, _good("its configuration trained again is good", facts.refit, images))
    short = _short("its configuration trained again is short too", facts.refit, images, rule=rule)
    return _last("warm search", *reasons, short)


def _changed(facts: Facts) -> str:
    since = "" if facts.tried is None else f" since refresh {facts.tried}"
    changed = f"{facts.changed} images ({facts.share_changed:.1%}) have changed{since}"
    if facts.drift is None or facts.only_removed:
        return changed
    return f"{changed}, " + (
        f"whether they drifted cannot be told ({facts.untold})" if facts.untold else "without drift"
    )


@dataclass(frozen=True)
class Postponed:
    """Why no search may begin now, and from when on one may."""

    reason: str
    until: datetime


def postponed(
    now: datetime, *, last_ended: datetime | None, gpu_hours: float, rule: RefreshSection
) -> Postponed | None:
    """Whether a search must wait: for the cool-down since the last one, or where this month's searches spent its hours."""
    if last_ended is not None:
        until = last_ended + timedelta(hours=rule.cooldown_hours)
        if now < until:
            return Postponed(
                f"the last search ended at {last_ended:%F %R} UTC, less than refresh.cooldown_hours ago", until
            )
    limit = rule.gpu_hours_per_month
    if limit is not None and gpu_hours >= limit:
        reason = f"this month's searches took {gpu_hours:.2f} of {limit:g} hours (refresh.gpu_hours_per_month)"
        return Postponed(reason, _next_month(now))
    return None


def of_month(moments: Sequence[tuple[datetime, float]], *, now: datetime) -> float:
    """The hours of those that ended in the calendar month of ``now``, UTC."""
    month = (now.astimezone(UTC).year, now.astimezone(UTC).month)
    return sum(hours for ended, hours in moments if (ended.astimezone(UTC).year, ended.astimezone(UTC).month) == month)


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _is_short(loss: Loss, *, rule: RefreshSection) -> bool:
    return loss.low is not None and loss.low > rule.tolerance


def _good(what: str, loss: Loss, images: str) -> str:
    unsure = ", too few to tell" if loss.low is None else ""
    return f"{'whether ' if unsure else ''}{what}: {loss.said(images)}{unsure}"


def _short(what: str, loss: Loss, images: str, *, rule: RefreshSection) -> str:
    return f"{what}: {loss.said(images)}, a loss of {loss.low:.4f} at least, more than {rule.tolerance:g}"


def _last(kind: Kind, *reasons: str) -> Rung:
    return Rung(kind, reasons, is_last=True)
