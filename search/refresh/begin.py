"""The record of a refresh: found where it was begun before, else begun."""

from collections.abc import Callable
from datetime import datetime

from search.ledger.refreshes import ChampionMark, Record, code_version, key_of, space_identity
from search.promotion.checks import check_floors
from search.refresh.state import Situation, mark_of
from search.tracking.registry import CHAMPION


def begin(situation: Situation, *, now: Callable[[], datetime]) -> Record:
    """Give the record of this space, data and code; a new one where there is none, or none that began with today's champion.

    Open ones of others are given up. Raises UserError for data that cannot be used, and for floors of classes that they have not.
    """
    has_settled = situation.have_settled(now=now().timestamp())
    check_floors(situation.spec, classes=list(situation.data_version.counts))
    version = situation.registry.by_alias(CHAMPION)
    champion = None if version is None else mark_of(version)
    record = _find(situation, champion=champion) or _begin_anew(situation, champion=champion, now=now)
    if has_settled:
        situation.records.remember_seen(situation.images_read.files_text, fingerprint=record.fingerprint)
    return record


def _find(situation: Situation, *, champion: ChampionMark | None) -> Record | None:
    """Find the record that this refresh goes on with."""
    record = situation.records.find(_key(situation))
    if record is None or record.state == "superseded":
        return None
    if record.state == "done" or record.champion == champion:
        return record
    is_there = record.champion is None or situation.registry.has(record.champion.version)
    return record if record.searches and is_there else None


def _begin_anew(situation: Situation, *, champion: ChampionMark | None, now: Callable[[], datetime]) -> Record:
    """Write a new record, with what is new on its images."""
    records = situation.records
    for earlier in situation.history:
        if earlier.state == "open":
            records.save(earlier, state="superseded")
    record = Record(
        number=max((earlier.number for earlier in situation.history), default=0) + 1,
        key=_key(situation),
        identity=space_identity(situation.spec),
        fingerprint=situation.inventory.fingerprint,
        code=code_version(),
        began=now().isoformat(),
        champion=champion,
        classes=situation.data_version.counts,
    )
    change = situation.find_change(record)
    if change is None:
        return records.save(record)
    difference, bad = change
    return records.save(record, difference=difference.as_dict(), difference_text=difference.said(), bad=bad)


def _key(situation: Situation) -> str:
    return key_of(situation.spec, fingerprint=situation.inventory.fingerprint)
