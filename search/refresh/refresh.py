"""One refresh from beginning to end: looked at, measured, decided, carried out, each step recorded so that it is done once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.engine.listeners import Listener
from search.ledger.lease import HeldError, lease
from search.ledger.ledger import Ledger
from search.ledger.notes import RefreshMark, WarmStart
from search.ledger.refits import existing_refits
from search.ledger.refreshes import Record, code_version, key_of, look, records_of, space_identity
from search.ledger.stored import SPEC_FILE, open_ledger
from search.promotion.candidate import NoCandidateError
from search.promotion.checks import NotJudgeableError, check_floors, check_model_name
from search.promotion.promote import promote
from search.refresh import measure, searches
from search.refresh.decision import Facts, Rung, next_rung, of_month, postponed
from search.refresh.look import Answer, answer_of, busy, limits, look_first, nothing_new, still_waits
from search.refresh.state import Standing, fingerprint_of
from search.refresh.warm_start import (
    Configuration,
    configurations,
    fixed_differently,
    mapped,
    warm_start,
)
from search.report.page import write_page
from search.run.search import run_search
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tracking.refreshes import show
from search.tracking.registry import CANDIDATE, CHAMPION, ModelVersion, Registry, store_errors_as_outages
from search.tracking.tracker import sync_ledger
from trainable.data.inventory import TICK_NS
from trainable.data.versions import Difference, read_version
from trainable.errors import OutageError

STUDY = "search.study"


class BrokenOffError(OutageError):
    """The refresh ended before its time; called again, it goes on. ``status`` is that of the search that ended, if one did."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Surroundings:
    """Where searches run, who follows them, who hears of the refresh's own steps, what time it is."""

    address: str | None
    listeners: Callable[[], list[Listener]]
    tell: Callable[[str], None]
    now: Callable[[], datetime]


def refresh(spec: SearchSpec, *, around: Surroundings) -> Answer:
    """Do what the images ask for now, once: the same space, data and code are never refreshed twice.

    Raises UserError for a mistake, and OutageError for what may be tried again: StoreFailsError for a store that fails,
    StoppedError and BrokenOffError where something ended before its time.
    """
    check_model_name(spec)
    records = records_of(spec)
    try:
        with lease(records.folder):
            answer = look_first(spec, records=records, now=around.now())
            if answer is not None:
                return answer
            with TemporaryDirectory() as place:
                registry = Registry(spec.tracking.uri, name=spec.model_name, lock_folder=Path(spec.search.folder))
                standing = Standing(spec, records=records, registry=registry, place=Path(place))
                return _Refresh(standing, around=around).answer()
    except HeldError as error:  # of this refresh, or of a search that it needs
        return busy(str(error))


class _Refresh:
    """A refresh at work. What each step found or did is in the record that it gives back, which is written."""

    def __init__(self, standing: Standing, *, around: Surroundings) -> None:
        self.standing = standing
        self.around = around
        self.spec, self.records, self.registry = standing.spec, standing.records, standing.registry
        self.folder = Path(self.spec.search.folder)
        self.quick = ""  # how the files looked when their content was read

    def answer(self) -> Answer:
        """Take the steps that are left."""
        state, self.quick = look(self.standing.data)
        has_settled = state.newest < self.around.now().timestamp() - TICK_NS / 1e9
        with store_errors_as_outages(self.registry.uri):
            check_floors(self.spec, classes=list(self.standing.now.counts))
            record = self.begun()
        if has_settled:
            self.records.saw(self.quick, fingerprint=record.fingerprint)
        if record.state == "done":
            return nothing_new(record)
        self.around.tell(f"refresh {record.number}: {record.said or 'nothing to compare these images with'}")
        for step in (self.climbed, self.carried_out):
            record, wait = step(record)
            if wait is not None:
                return wait
        with store_errors_as_outages(self.registry.uri):
            return answer_of(self.closed(record))

    def keep_splits(self, record: Record) -> Path:
        return self.records.version_file(record.fingerprint).absolute()

    def begun(self) -> Record:
        """The record of this space, data and code; a new one where there is none, or none that began with today's champion.

        Open ones of others are given up.
        """
        fingerprint = self.standing.inventory.fingerprint
        key = key_of(self.spec, fingerprint=fingerprint)
        known = self.records.find(key)
        version = self.registry.by_alias(CHAMPION)
        champion = None if version is None else _said(version)
        if known is not None and known.state != "superseded":
            is_there = known.champion is None or self.registry.has(known.champion["version"])
            is_current = known.champion == champion or (bool(known.searches) and is_there)
            if known.state == "done" or is_current:
                return known
        earlier = self.records.all()
        for one in earlier:
            if one.state == "open":
                self.records.save(one, state="superseded")
        record = Record(
            number=max((one.number for one in earlier), default=0) + 1,
            key=key,
            identity=space_identity(self.spec),
            fingerprint=fingerprint,
            code=code_version(),
            began=self.around.now().isoformat(),
            champion=champion,
            classes=self.standing.now.counts,
        )
        change = self.standing.change(record)
        if change is None:
            return self.records.save(record)
        found, bad = change
        return self.records.save(record, difference=found.as_dict(), said=found.said(), bad=bad)

    def climbed(self, record: Record) -> tuple[Record, Answer | None]:
        """The ladder up to its decision; what a rung measures is recorded before the next is chosen."""
        while record.decision is None:
            rung = next_rung(self.facts(record), rule=self.spec.refresh)
            for reason in rung.reasons:
                self.around.tell(f"{rung.kind}: {reason}")
            way = (*(one for one in record.rungs if one["kind"] != rung.kind), rung.as_dict())
            record = self.records.save(record, rungs=way, decision=rung.as_dict() if rung.is_last else None)
            if rung.is_last:
                with store_errors_as_outages(self.registry.uri):
                    show(record, spec=self.spec, uri=self.registry.uri, folder=self.records.folder)
                break
            record, wait = self.measured(record, rung)
            if wait is not None:
                return record, wait
        return record, None

    def facts(self, record: Record) -> Facts:
        measured, champion = record.measured, record.champion
        changes = self.standing.space_changes(record)
        found = record.difference or {}
        counted = Difference(**found) if found else None
        asked, refit, drift = (measured.get(name, {}) for name in ("champion", "refit", "drift"))
        tried = self.standing.tried(record)
        return Facts(
            has_champion=champion is not None,
            searched=self.standing.searched(record),
            tried=None if tried is None else tried.number,
            same_data=champion is not None and champion["fingerprint"] == record.fingerprint,
            is_new_space=changes is None,
            space_changes=tuple(changes or ()),
            changed=counted.num_changed if counted else 0,
            share_changed=counted.share_changed if counted else 0.0,
            only_removed=counted is not None and counted.only_removed,
            new_classes=tuple(found.get("new_classes", ())),
            vanished_classes=tuple(found.get("vanished_classes", ())),
            drift=tuple(drift["reasons"]) if drift else None,
            untold=drift.get("note", ""),
            champion=measure.loss_from(asked),
            unasked=asked.get("unasked", ""),
            refit=measure.loss_from(refit),
            unfit=refit.get("unasked", ""),
        )

    def measured(self, record: Record, rung: Rung) -> tuple[Record, Answer | None]:
        with store_errors_as_outages(self.registry.uri):
            champion = self.standing.champion(record)
        if rung.kind == "drift":
            found = measure.drift_of(champion, spec=self.spec)
        elif rung.kind == "champion":
            found = measure.champion_loss(champion, spec=self.spec)
        else:
            recipe, lines = mapped(champion.values, spec=self.spec)
            lines += fixed_differently(champion.values, spec=self.spec)
            if not lines:
                return self.refitted(record, recipe)
            found = {"unasked": "; ".join(lines)}
        return self.noted(record, rung.kind, found), None

    def refitted(self, record: Record, recipe: Mapping[str, Value]) -> tuple[Record, Answer | None]:
        """Train the champion's recipe again; that it came to nothing is a measurement too."""
        name, wait = searches.search_name(self.spec, record, is_refit=True), None
        try:
            spec = searches.refit_search(self.spec, recipe, name=name, keep_splits=self.keep_splits(record))
            record, wait = self.ran(record, spec)
        except BrokenOffError as error:
            if not self.is_hopeless(name):
                raise
            self.around.tell(f"refit: {error}")
        if wait is not None:
            return record, wait
        spec, ledger = open_ledger(self.folder / name)
        with store_errors_as_outages(self.registry.uri):
            champion = self.standing.champion(record)
        found = measure.refit_loss(champion, spec=self.spec, refit=spec, ledger=ledger, folder=self.folder / name)
        return self.noted(record, "refit", found), None

    def noted(self, record: Record, kind: str, found: Mapping[str, Any]) -> Record:
        return self.records.save(record, measured={**record.measured, kind: found})

    def carried_out(self, record: Record) -> tuple[Record, Answer | None]:
        assert record.decision is not None
        kind, wait = record.decision["kind"], None
        name = self.name(record)
        if kind == "warm search":
            start = self.warm_start(record)
            record = self.records.save(record, warm_start=start.as_dict())
            spec = searches.warm_search(self.spec, start, name=name, keep_splits=self.keep_splits(record))
            record, wait = self.ran(record, spec)
        elif kind == "full search":
            spec = searches.full_search(self.spec, name=name, keep_splits=self.keep_splits(record))
            record, wait = self.ran(record, spec)
        elif kind == "refit":
            name = searches.search_name(self.spec, record, is_refit=True)
        else:
            name = self.standing.searched(record) or ""
            is_promoted = record.champion is not None and record.champion["study"] == name
            name = "" if is_promoted else name
        if wait is None and name and self.spec.promote.auto:
            record = self.promoted(record, name)
        return record, wait

    def warm_start(self, record: Record) -> WarmStart:
        """The champion's configuration, then the best of the last searches, newest first; as it was said before, if it was."""
        if record.warm_start is not None:
            return WarmStart(**record.warm_start)
        names = [name for one in reversed(self.records.all()) for name in reversed(one.searches)]
        names.append(self.spec.search.name)
        first = []
        if record.champion is not None:
            names.append(record.champion["study"])
            said = f"the champion, version {record.champion['version']}"
            with store_errors_as_outages(self.registry.uri):
                first.append(Configuration(self.standing.champion(record).values, said))
        found = [self.standing.search(name) for name in dict.fromkeys(names) if name not in record.searches]
        last = [(spec, ledger.trials()) for spec, ledger in filter(None, found)]
        start = warm_start([*first, *configurations(last)], spec=self.spec)
        for line in start.notes:
            self.around.tell(f"warm start: {line}")
        return start

    def name(self, record: Record) -> str:
        """The name of a refresh's search: the file's own where no other search has it, or one of the same that was begun."""
        own = self.spec.search.name
        is_free = record.champion is None and record.number == 1 and self.standing.search(own) is None
        is_own = is_free or own in record.searches or self.standing.is_of(own, record)
        return own if is_own else searches.search_name(self.spec, record)

    def ran(self, record: Record, spec: SearchSpec) -> tuple[Record, Answer | None]:
        """Run a search or go on with it, unless a new one must wait."""
        name, now = spec.search.name, self.around.now()
        if name not in record.searches:
            earlier = [one for one in self.records.all() if one.number < record.number]
            last_ended = max((moment for moment, _ in self.work(earlier)), default=None)
            month = of_month(self.work([*earlier, record]), now=now)
            wait = postponed(now, last_ended=last_ended, gpu_hours=month, rule=self.spec.refresh)
            if wait is not None:
                told = {"until": wait.until.isoformat(), "reason": wait.reason, "limits": limits(self.spec.refresh)}
                record = self.records.save(record, wait=told)
                return record, still_waits(record, rule=self.spec.refresh, now=now)
            record = self.records.save(record, searches=(*record.searches, name), wait=None)
        if self.standing.finished(name) is not None:  # and then killed perhaps, before everything of it was shown
            sync_ledger(open_ledger(self.folder / name)[0], folder=self.folder / name)
        else:
            known = self.standing.search(name)
            listeners = [*self.around.listeners(), _Noting(record)]
            own = spec if known is None else _gone_on_with(known[0], spec)
            outcome = run_search(own, address=self.around.address, listeners=listeners)
            if outcome.status != "finished":
                raise BrokenOffError(outcome.status, outcome.reason)
        _, ledger = open_ledger(self.folder / name)
        if ledger.notes.data.fingerprint != record.fingerprint or self.have_changed():
            raise BrokenOffError("changed", "the images have changed meanwhile; the next refresh begins anew with them")
        write_page(self.folder / name)
        return record, None

    def have_changed(self) -> bool:
        """Whether the images are others now, by their content where the files look different."""
        is_same = self.quick == look(self.standing.data)[1]
        return not is_same and self.standing.inventory_now().fingerprint != self.standing.inventory.fingerprint

    def is_hopeless(self, name: str) -> bool:
        """Whether every trial of a search is decided, and none is any good."""
        found = self.standing.search(name)
        trials = found[1].trials() if found is not None else []
        return bool(trials) and all(trial.state == "FAILED" for trial in trials)

    def work(self, records: Sequence[Record]) -> list[tuple[datetime, float]]:
        """When the trials of these refreshes' searches last reported, and the hours they took, weighed as the budget does."""
        share = self.spec.resources.gpu
        weight = share if isinstance(share, float | int) and share else 1.0
        found = []
        for name in dict.fromkeys(name for one in records for name in one.searches):
            known = self.standing.search(name)
            if known is not None:
                refits = existing_refits(known[0], folder=self.folder / name)
                every = [*known[1].trials(), *(refits.trials() if refits is not None else ())]
                found += [(one.epochs[-1].recorded, one.seconds * weight / 3600) for one in every if one.epochs]
        return found

    def promoted(self, record: Record, name: str) -> Record:
        """Let the gate judge the best of a search. That it is champion already is what an interrupted promotion leaves."""
        spec, _ = open_ledger(self.folder / name)
        own = {"model": self.spec.model_name, "confirm": spec.promote.confirm}
        spec = spec.model_copy(update={"promote": self.spec.promote.model_copy(update=own)})
        folder, around = self.folder / name, self.around
        others = [one for one in record.promotions if one["search"] != name]
        try:
            found = promote(spec, folder=folder, address=around.address, dry_run=False, force=False, tell=around.tell)
        except (NoCandidateError, NotJudgeableError) as error:
            around.tell(str(error))
            note: dict[str, Any] = {"search": name, "version": None, "outcome": "refused", "reasons": str(error)}
            return self.records.save(record, promotions=(*others, note))
        with store_errors_as_outages(self.registry.uri):
            version = self.registry.version(found.version or 0)
        is_champion = found.outcome in ("promoted", "unchanged")
        note = {
            "search": name,
            "version": version.number,
            "outcome": "promoted" if is_champion else "refused",
            "reasons": version.tags.get("gate.reasons", ""),
        }
        self.around.tell(f"{name}: version {version.number} {note['outcome']}: {note['reasons']}")
        return self.records.save(record, promotions=(*others, note))

    def closed(self, record: Record) -> Record:
        """Ask the champion about every frozen test set, show the refresh in MLflow, and end it."""
        version = self.registry.by_alias(CHAMPION)
        if version is not None:
            record = self.records.save(record, after=_said(version), scores=self.scores(record, version))
        ended = record.ended or self.around.now().isoformat()
        record = self.records.save(record, ended=ended)
        done = replace(record, state="done")
        show(done, spec=self.spec, uri=self.registry.uri, folder=self.records.folder)
        done = self.records.save(done)
        own = self.folder / self.spec.search.name
        if (own / SPEC_FILE).is_file():
            write_page(own)  # its history has grown
        return done

    def scores(self, record: Record, version: ModelVersion) -> dict[str, Any]:
        earlier = [one for one in self.records.all() if one.after is not None and one.number < record.number]
        last = next((one.scores for one in reversed(earlier) if one.after == _said(version)), {})
        known = {name: score for name, score in last.items() if score["metric"] == self.spec.promote.metric}
        paths = {one.fingerprint: self.records.version_file(one.fingerprint) for one in self.records.all()}
        paths = {name: path for name, path in paths.items() if name not in known and path.is_file()}
        if not paths:
            return known
        champion = self.standing.opened(version, record=record)
        tests = {name: read_version(path).ids(champion.served.test_split) for name, path in paths.items()}
        return known | measure.frozen_scores(champion, tests=tests, spec=self.spec)


class _Noting(Listener):
    """Notes in a search's ledger that a refresh began it, and its warm start."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def begin(self, ledger: Ledger, **_: Any) -> None:
        notes = ledger.notes
        if notes.refresh is None:
            ledger.note(refresh=RefreshMark(number=self.record.number, key=self.record.key))
        if self.record.warm_start is not None and notes.warm_start is None:
            ledger.note(warm_start=self.record.warm_start)


def _said(version: ModelVersion) -> dict[str, Any]:
    return {
        "version": version.number,
        "study": version.tags.get(STUDY, ""),
        "candidate": version.tags.get(CANDIDATE, ""),
        "fingerprint": fingerprint_of(version),
    }


def _gone_on_with(begun: SearchSpec, now: SearchSpec) -> SearchSpec:
    """A search as it was begun, where the images and on what machines they are now."""
    places = {path: now.base[path] for path in ("data.path", "data.cache", "data.workers") if path in now.base}
    changed = {"resources": now.resources, "tracking": now.tracking, "base": begun.base | places}
    return SearchSpec.model_validate(begun.model_copy(update=changed).model_dump())
