"""Whether changed data are worth a new search, and how much of one: a pure decision with its reasons.

The rungs, cheapest first: nothing has changed; the champion is asked about the new images; its configuration is trained
again on old and new ones; a search that begins with the best of the last ones; a search from the beginning.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from search.space.promotion_sections import RefreshSection

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

    def describe(self, images: str) -> str:
        """Say it in words."""
        return (
            f"{self.value:.4f} on {self.num_images} {images} against {self.level:.4f} on the champion's own test images"
        )


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is known when a rung is chosen; None is what has not been measured yet."""

    has_champion: bool
    finished_search: str | None = None  # of this space on these images
    refresh_in_vain: int | None = (
        None  # that trained last, and no new champion came of it: what has changed since counts
    )
    same_data: bool = False
    is_new_space: bool = False
    space_changes: tuple[str, ...] = ()
    num_changed: int = 0
    share_changed: float = 0.0
    only_removed: bool = False
    new_classes: tuple[str, ...] = ()
    vanished_classes: tuple[str, ...] = ()
    drift: tuple[str, ...] | None = None  # what drifted, in words; nothing where nothing did
    why_drift_unknown: str = ""
    champion_loss: Loss | None = None
    why_champion_not_asked: str = ""
    refit_loss: Loss | None = None  # of the champion's configuration, trained again
    why_no_refit: str = ""


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
    """Choose the next measurement, ``drift``, ``champion`` or ``refit``, or make the decision.

    A decision is ``skip``, ``re-evaluate`` (the champion was asked and is still good), ``refit`` (its configuration, trained
    again, is good), ``warm search`` or ``full search``.
    """
    if facts.finished_search is not None:
        return _last("skip", f"search {facts.finished_search!r} of this space on these images is finished")
    if facts.is_new_space:
        return _last("full search", "this space has not been searched yet")
    if facts.space_changes:
        more = f" (and {len(facts.space_changes) - 1} more)" if len(facts.space_changes) > 1 else ""
        return _last("full search", f"the space has changed, {facts.space_changes[0]}{more}")
    if not facts.has_champion and facts.refresh_in_vain is None:
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
        much = f"{changed}, more than {rule.small_share:.0%}"
        if not facts.has_champion:
            return _last("warm search", much, "there is no champion to ask")
        return _train_again(facts, much, rule=rule)
    if facts.only_removed:
        return _last("skip", changed, "all of them were removed")
    if facts.refresh_in_vain is not None:
        in_vain = f"no new champion came of refresh {facts.refresh_in_vain}; that few are no reason to train again"
        return _last("skip", changed, in_vain)
    if facts.why_champion_not_asked:
        return _last("skip", changed, f"too little to ask the champion about: {facts.why_champion_not_asked}")
    if facts.champion_loss is None:
        return Rung("champion", (changed,), is_last=False)
    if not _is_short(facts.champion_loss, rule=rule):
        return _last("re-evaluate", changed, _good("the champion is still good", facts.champion_loss, "of them"))
    short = _short("the champion has lost", facts.champion_loss, "of them", rule=rule)
    return _train_again(facts, changed, short, rule=rule)


def _train_again(facts: Facts, *reasons: str, rule: RefreshSection) -> Rung:
    """Train the champion's configuration again, or search where that cannot be or was not enough."""
    if facts.why_no_refit:
        why = f"the champion's configuration cannot be trained again: {facts.why_no_refit}"
        return _last("warm search", *reasons, why)
    if facts.refit_loss is None:
        return Rung("refit", reasons, is_last=False)
    images = "validation images, old and new,"
    if not _is_short(facts.refit_loss, rule=rule):
        return _last("refit", *reasons, _good("its configuration trained again is good", facts.refit_loss, images))
    short = _short("its configuration trained again is short too", facts.refit_loss, images, rule=rule)
    return _last("warm search", *reasons, short)


def _changed(facts: Facts) -> str:
    since = "" if facts.refresh_in_vain is None else f" since refresh {facts.refresh_in_vain}"
    changed = f"{facts.num_changed} images ({facts.share_changed:.1%}) have changed{since}"
    if facts.drift is None or facts.only_removed:
        return changed
    if facts.why_drift_unknown:
        return f"{changed}, whether they drifted cannot be told ({facts.why_drift_unknown})"
    return f"{changed}, without drift"


@dataclass(frozen=True)
class Wait:
    """Why no search may begin now, and from when on one may."""

    reason: str
    until: datetime


def wait_before_search(
    now: datetime, *, last_ended: datetime | None, gpu_hours: float, rule: RefreshSection
) -> Wait | None:
    """Whether a search must wait: for the cool-down since the last one, or where this month's searches spent its hours."""
    if last_ended is not None:
        until = last_ended + timedelta(hours=rule.cooldown_hours)
        if now < until:
            return Wait(f"the last search ended at {last_ended:%F %R} UTC, less than refresh.cooldown_hours ago", until)
    limit = rule.gpu_hours_per_month
    if limit is not None and gpu_hours >= limit:
        reason = f"this month's searches took {gpu_hours:.2f} of {limit:g} hours (refresh.gpu_hours_per_month)"
        return Wait(reason, _next_month(now))
    return None


def hours_of_month(moments: Sequence[tuple[datetime, float]], *, now: datetime) -> float:
    """Sum the hours of what ended in the calendar month of ``now``, UTC."""
    month = (now.astimezone(UTC).year, now.astimezone(UTC).month)
    return sum(hours for ended, hours in moments if (ended.astimezone(UTC).year, ended.astimezone(UTC).month) == month)


def _next_month(now: datetime) -> datetime:
    first = now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (first + timedelta(days=32)).replace(day=1)


def _is_short(loss: Loss, *, rule: RefreshSection) -> bool:
    return loss.low is not None and loss.low > rule.tolerance


def _good(what: str, loss: Loss, images: str) -> str:
    unsure = ", too few to tell" if loss.low is None else ""
    return f"{'whether ' if unsure else ''}{what}: {loss.describe(images)}{unsure}"


def _short(what: str, loss: Loss, images: str, *, rule: RefreshSection) -> str:
    return f"{what}: {loss.describe(images)}, a loss of {loss.low:.4f} at least, more than {rule.tolerance:g}"


def _last(kind: Kind, *reasons: str) -> Rung:
    return Rung(kind, reasons, is_last=True)
