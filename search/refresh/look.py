"""The cheap look before a refresh: whether there is anything new, and whether it has settled."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from search.ledger.refreshes import Record, Records, data_of, key_of, look_at_files
from search.space.promotion_sections import RefreshSection
from search.space.spec import SearchSpec
from trainable.data.readers.file_state import has_marker

DID, NOTHING = 0, 3  # exit codes
MARKER_SECONDS = 300.0  # until somebody looks for a marker again


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a refresh says: its decision in a word, the reasons, and, where it waits, for how long at most."""

    decision: str
    reasons: tuple[str, ...]
    code: int = NOTHING
    retry_after_seconds: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """A plain dict for JSON."""
        wait = {} if self.retry_after_seconds is None else {"retry_after_seconds": round(self.retry_after_seconds, 1)}
        return {"decision": self.decision, "reasons": list(self.reasons), **wait, **self.facts}


class MustWaitError(Exception):
    """A refresh must wait before it begins a search: ``answer`` is what it says."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(*answer.reasons)
        self.answer = answer


def answer_of(record: Record) -> Answer:
    """What was done in a refresh that has just ended."""
    assert record.decision is not None, "it has ended"
    kind = str(record.decision["kind"])
    code = NOTHING if kind == "skip" and not record.promotions else DID
    return Answer(decision=kind, reasons=tuple(record.decision["reasons"]), code=code, facts=_facts(record))


def nothing_new(record: Record) -> Answer:
    """The answer where this space, data and code were refreshed before."""
    assert record.decision is not None, "it has ended"
    reason = f"refresh {record.number} of these images is {record.state}, it decided: {record.decision['kind']}"
    return Answer(decision="skip", reasons=(reason,), facts=_facts(record))


def still_waits(record: Record, *, rule: RefreshSection, now: datetime) -> Answer | None:
    """The answer where a refresh must still wait before it begins a search; None where it need not, or not by these limits."""
    wait = record.wait
    if wait is None or wait["limits"] != limits(rule):
        return None
    seconds = (datetime.fromisoformat(wait["until"]) - now).total_seconds()
    return (
        Answer(decision="wait", reasons=(wait["reason"],), retry_after_seconds=seconds, facts=_facts(record))
        if seconds > 0
        else None
    )


def limits(rule: RefreshSection) -> dict[str, Any]:
    """What keeps searches apart."""
    return rule.model_dump(include={"cooldown_hours", "gpu_hours_per_month"})


def busy(reason: str) -> Answer:
    """The answer where another process refreshes."""
    return Answer(decision="busy", reasons=(reason,), retry_after_seconds=MARKER_SECONDS)


def look_first(spec: SearchSpec, *, records: Records, now: datetime) -> Answer | None:
    """The answer where looking at names, sizes and dates of the files is enough; None where their content must be read.

    Raises UserError for data that cannot be used.
    """
    state, text = look_at_files(data_of(spec))
    fingerprint = records.fingerprint_seen(text)
    record = None if fingerprint is None else records.find(key_of(spec, fingerprint=fingerprint))
    if record is not None and record.state == "done":
        return nothing_new(record)
    if record is not None and record.state == "open":
        return still_waits(record, rule=spec.refresh, now=now)
    rule = spec.refresh
    if rule.marker is not None and not has_marker(data_of(spec), rule.marker):
        reason = f"there is no {rule.marker} beside the images (refresh.marker): they count as half-copied"
        return Answer(decision="wait", reasons=(reason,), retry_after_seconds=MARKER_SECONDS)
    age = now.timestamp() - state.newest
    if 0 <= age < rule.settle_seconds:
        written = datetime.fromtimestamp(state.newest, UTC)
        settled = f"the images have settled {rule.settle_seconds:g} s after the last one (refresh.settle_seconds)"
        reason = f"a file was written {age:.0f} s ago; {settled}"
        return Answer(
            decision="wait",
            reasons=(reason,),
            retry_after_seconds=rule.settle_seconds - age,
            facts={"written": f"{written:%F %T}"},
        )
    return None


def _facts(record: Record) -> dict[str, Any]:
    """What a scheduler's log should hold of a record."""
    return {
        "refresh": record.number,
        "key": record.key,
        "fingerprint": record.fingerprint,
        "difference": record.difference_text,
        "searches": list(record.searches),
        "promotions": [dict(promotion) for promotion in record.promotions],
        "champion": None if record.after is None else asdict(record.after),
    }
