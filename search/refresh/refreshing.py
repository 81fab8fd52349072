"""One refresh from beginning to end: looked at, measured, decided, carried out, each step recorded so that it is done once."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.evidence import PACKAGE
from search.lease import is_held, lease
from search.ledger import Ledger
from search.listeners import Listener
from search.overview import is_finished, open_ledger
from search.promoting import promote
from search.refresh import derived, measuring
from search.refresh.ladder import Facts, Rung, next_rung, of_month, postponed
from search.refresh.looking import Answer, answer_of, busy, limits, look_first, nothing_new, still_waits
from search.refresh.records import (
    Record,
    Records,
    code_version,
    data_of,
    key_of,
    look,
    records_of,
    space_hash,
    space_identity,
)
from search.refresh.shown import show
from search.refresh.warm_start import (
    Configuration,
    WarmStart,
    configurations,
    fixed_differently,
    mapped,
    warm_start,
)
from search.registry import CHAMPION, Registry, Version, said_of_store
from search.report import write_page
from search.running import run_search
from search.spec import SearchSpec, differing
from search.trials import Trial
from trainable.config import DataConfig, TrialConfig
from trainable.data.inventory import Inventory, take_inventory
from trainable.data.sources import read_source
from trainable.data.versions import Difference, difference, read_version, version_of
from trainable.data.versions import Version as DataVersion
from trainable.errors import UserError
from trainable.serving.package import IMAGES

STUDY = "search.study"
FINGERPRINT = "data.fingerprint"
TICK_SECONDS = 2.0  # a file written later may be written again in the same tick of its file system's clock


class BrokenOffError(Exception):
    """A search of the refresh ended before its time; refreshed again, it goes on. ``status`` is that of its outcome."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(frozen=True)
class Surroundings:
    """Where searches run, who follows them, who hears of the refresh's own steps, what time it is."""

    address: str | None
    listeners: Callable[[], list[Listener]]
    tell: Callable[[str], None]
    now: Callable[[], datetime]


def refresh(spec: SearchSpec, *, around: Surroundings) -> Answer:
    """Do what the images ask for now, once: the same space, data and code are never refreshed twice.

    Raises UserError for a mistake and StoreFailsError for a store that fails, StoppedError and BrokenOffError where something
    ended before its time.
    """
    records = records_of(spec)
    with ExitStack() as held:
        try:
            held.enter_context(lease(records.folder))
        except UserError as error:
            if is_held(records.folder):
                return busy(str(error))
            raise
        answer = look_first(spec, records=records, now=around.now())
        if answer is not None:
            return answer
        place = Path(held.enter_context(TemporaryDirectory()))
        registry = Registry(spec.tracking.uri, name=spec.model_name, lock_folder=Path(spec.search.folder))
        return _Refresh(spec, records, registry, around, place).answer()


class _Refresh:
    """A refresh at work; what is asked for more than once is found once."""

    def __init__(
        self, spec: SearchSpec, records: Records, registry: Registry, around: Surroundings, place: Path
    ) -> None:
        self.spec = spec
        self.records = records
        self.registry = registry
        self.around = around
        self.place = place
        self.folder = Path(spec.search.folder)

    def answer(self) -> Answer:
        state, quick = look(self.data)
        has_settled = state.newest < self.around.now().timestamp() - TICK_SECONDS
        with said_of_store(self.registry.uri):
            record = self.begun()
        if has_settled:
            self.records.saw(quick, fingerprint=record.fingerprint)
        if record.state == "done":
            return nothing_new(record)
        self.around.tell(f"refresh {record.number}: {record.said or 'nothing to compare these images with'}")
        for step in (self.climbed, self.carried_out):
            record, wait = step(record)
            if wait is not None:
                return wait
        with said_of_store(self.registry.uri):
            return answer_of(self.closed(record))

    # What there is.

    @cached_property
    def data(self) -> DataConfig:
        return data_of(self.spec)

    @cached_property
    def inventory(self) -> Inventory:
        return take_inventory(read_source(self.data), cache=self.records.inventory)

    @cached_property
    def now(self) -> DataVersion:
        """The version of the images as they are; its file is written when it is first seen."""
        path = self.records.version_file(self.inventory.fingerprint)
        if not path.is_file():
            keep = self.predecessor()
            config = self.data if keep is None else self.data.model_copy(update={"keep_splits": str(keep)})
            path.parent.mkdir(parents=True, exist_ok=True)
            version_of(self.inventory.source, digests=self.inventory.digests, config=config).write(path)
        return read_version(path)

    def predecessor(self) -> Path | None:
        """The splits that are to be kept: of the version before, else of the images that the champion knows."""
        for record in reversed(self.records.all()):
            path = self.records.version_file(record.fingerprint)
            if path.is_file():
                return path.absolute()
        version = self.registry.by_alias(CHAMPION)
        if version is None or version.tags[FINGERPRINT] == self.inventory.fingerprint:
            return None
        path = self.records.version_file(version.tags[FINGERPRINT])
        path.parent.mkdir(parents=True, exist_ok=True)
        files = self.registry.download(version, folder=self.place / "before")
        read_version(files / PACKAGE / IMAGES).write(path)
        return path.absolute()

    def keep_splits(self, record: Record) -> Path:
        return self.records.version_file(record.fingerprint).absolute()

    def begun(self) -> Record:
        """The record of this space, data and code; where there is none a new one, and open ones of others are given up."""
        key = key_of(self.spec, fingerprint=self.inventory.fingerprint)
        known = self.records.find(key)
        if known is not None and known.state != "superseded":
            return known
        earlier = self.records.all()
        for one in earlier:
            if one.state == "open":
                self.records.save(one, state="superseded")
        if known is not None:  # what was given up for others is asked for again
            return self.records.save(known, state="open")
        version = self.registry.by_alias(CHAMPION)
        record = Record(
            number=len(earlier) + 1,
            key=key,
            space=space_hash(self.spec),
            identity=space_identity(self.spec),
            fingerprint=self.inventory.fingerprint,
            code=code_version(),
            began=self.around.now().isoformat(),
            champion=None if version is None else _said(version),
            classes=self.now.counts,
        )
        return self.compared(record)

    def compared(self, record: Record) -> Record:
        """The record with what is new against the champion's images, else against those of the refresh before."""
        before = self.version_before(record)
        if before is None:
            return self.records.save(record)
        ids = {
            name: {one.sample_id for one in version.present}
            for name, version in (("before", before), ("now", self.now))
        }
        config = TrialConfig.model_validate(self.spec.trial_config({}))
        bad = measuring.bad_images(self.inventory, among=ids["now"] - ids["before"], config=config)
        if bad and self.data.on_bad_image == "error":
            first = ", ".join(map(repr, list(bad.values())[:3]))
            raise UserError(
                f"data.path: bad images ({len(bad)}): {first}{', …' if len(bad) > 3 else ''}; `data.on_bad_image: skip` leaves "
                "them out"
            )
        found = difference(before, self.now, bad=sorted(bad.values()))
        return self.records.save(record, difference=found.as_dict(), said=found.said(), bad=tuple(sorted(bad)))

    def version_before(self, record: Record) -> DataVersion | None:
        if record.champion is not None:
            path = self.records.version_file(record.champion["fingerprint"])
            return read_version(path) if path.is_file() else self.champion(record).before
        for one in reversed(self.records.all()):
            if one.number < record.number:
                return read_version(self.records.version_file(one.fingerprint))
        return None

    def champion(self, record: Record) -> measuring.Champion:
        """The champion that the refresh began with."""
        assert record.champion is not None
        return self.opened(self.registry.version(record.champion["version"]), record=record)

    def opened(self, version: Version, *, record: Record) -> measuring.Champion:
        folder = self.place / f"version_{version.number}"
        if version.number not in self._champions:
            self._champions[version.number] = measuring.open_champion(
                self.registry,
                version,
                folder=folder,
                images=measuring.good_images(self.inventory, bad=record.bad),
                before=self.records.version_file(version.tags[FINGERPRINT]),
                now=self.now,
            )
        return self._champions[version.number]

    @cached_property
    def _champions(self) -> dict[int, measuring.Champion]:
        return {}

    # What is decided.

    def climbed(self, record: Record) -> tuple[Record, Answer | None]:
        """The ladder up to its decision; what a rung measures is recorded before the next is chosen."""
        while record.decision is None:
            rung = next_rung(self.facts(record), rule=self.spec.refresh)
            for reason in rung.reasons:
                self.around.tell(f"{rung.kind}: {reason}")
            way = (*(one for one in record.rungs if one["kind"] != rung.kind), rung.as_dict())
            record = self.records.save(record, rungs=way, decision=rung.as_dict() if rung.is_last else None)
            if rung.is_last:
                break
            record, wait = self.measured(record, rung)
            if wait is not None:
                return record, wait
        return record, None

    def facts(self, record: Record) -> Facts:
        measured, champion = record.measured, record.champion
        changes = self.space_changes(record)
        found = record.difference or {}
        counted = Difference(**found) if found else None
        asked, refit = measured.get("champion"), measured.get("refit")
        return Facts(
            has_champion=champion is not None,
            searched=self.searched(record),
            same_data=champion is not None and champion["fingerprint"] == record.fingerprint,
            is_new_space=changes is None,
            space_changes=tuple(changes or ()),
            changed=counted.num_changed if counted else 0,
            share_changed=counted.share_changed if counted else 0.0,
            only_removed=counted is not None and not (counted.added or counted.relabelled or counted.target_added),
            new_classes=tuple(found.get("new_classes", ())),
            vanished_classes=tuple(found.get("vanished_classes", ())),
            drift=tuple(measured["drift"]["reasons"]) if "drift" in measured else None,
            champion=measuring.loss_from(asked),
            unasked=(asked or {}).get("unasked", ""),
            refit=measuring.loss_from(refit),
            unfit=(refit or {}).get("unasked", ""),
        )

    def space_changes(self, record: Record) -> list[str] | None:
        """How the space differs from what was searched last; None where nothing was."""
        done = [one.identity for one in self.records.all() if one.state == "done" and one.number < record.number]
        names = [self.spec.search.name, *([record.champion["study"]] if record.champion is not None else [])]
        stored = [space_identity(found[0]) for name in names if (found := self.search(name)) is not None]
        known = [*done[-1:], *stored]
        if any(not differing(one, record.identity) for one in known):
            return []
        return differing(known[0], record.identity) if known else None

    def search(self, name: str) -> tuple[SearchSpec, Ledger] | None:
        """A search of the folder; None where there is none."""
        try:
            return open_ledger(self.folder / name)
        except UserError:
            return None

    def searched(self, record: Record) -> str | None:
        """The file's own search, if that has been run on these very images, not by a refresh."""
        name = self.spec.search.name
        found = self.search(name)
        if found is None or name in record.searches:
            return None
        spec, ledger = found
        is_same = not differing(space_identity(spec), record.identity)
        is_done = is_finished(ledger, trials=ledger.trials())
        is_here = ledger.notes["data"]["fingerprint"] == record.fingerprint
        return name if is_same and is_done and is_here else None

    def measured(self, record: Record, rung: Rung) -> tuple[Record, Answer | None]:
        with said_of_store(self.registry.uri):
            champion = self.champion(record)
        if rung.kind == "drift":
            found = measuring.drift_of(champion, spec=self.spec)
        elif rung.kind == "champion":
            found = measuring.champion_loss(champion, spec=self.spec)
        else:
            recipe, lines = mapped(champion.values, spec=self.spec)
            lines += fixed_differently(champion.values, spec=self.spec)
            if lines:
                found = {"unasked": lines[0]}
            else:
                name = derived.search_name(self.spec, record, is_refit=True)
                refit = derived.refit(self.spec, recipe, name=name, keep_splits=self.keep_splits(record))
                record, wait = self.ran(record, refit)
                if wait is not None:
                    return record, wait
                refit, ledger = open_ledger(self.folder / name)
                found = measuring.refit_loss(
                    champion, spec=self.spec, refit=refit, ledger=ledger, folder=self.folder / name
                )
        return self.records.save(record, measured={**record.measured, rung.kind: found}), None

    # What is done.

    def carried_out(self, record: Record) -> tuple[Record, Answer | None]:
        assert record.decision is not None
        kind, wait = record.decision["kind"], None
        name = self.name(record)
        if kind == "warm search":
            start = self.warm_start(record)
            record = self.records.save(record, warm_start=start.as_dict())
            spec = derived.warm(self.spec, start, name=name, keep_splits=self.keep_splits(record))
            record, wait = self.ran(record, spec)
        elif kind == "full search":
            spec = derived.full(self.spec, name=name, keep_splits=self.keep_splits(record))
            record, wait = self.ran(record, spec)
        elif kind == "refit":
            name = derived.search_name(self.spec, record, is_refit=True)
        else:
            name = self.searched(record) or ""
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
            first.append(Configuration(self.champion(record).values, said))
        found = [self.search(name) for name in dict.fromkeys(names) if name not in record.searches]
        searches = [(spec, ledger.trials()) for spec, ledger in filter(None, found)]
        start = warm_start([*first, *configurations(searches)], spec=self.spec)
        for line in start.notes:
            self.around.tell(f"warm start: {line}")
        return start

    def name(self, record: Record) -> str:
        """The name of a refresh's search: the file's own where no other search has it."""
        own = self.spec.search.name
        is_free = record.champion is None and record.number == 1 and self.search(own) is None
        return own if is_free or own in record.searches else derived.search_name(self.spec, record)

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
        known = self.search(name)
        if known is not None and is_finished(known[1], trials=known[1].trials()):
            return record, None
        outcome = run_search(spec, address=self.around.address, listeners=[*self.around.listeners(), _Noting(record)])
        if outcome.status != "finished":
            raise BrokenOffError(outcome.status, outcome.reason)
        write_page(outcome.folder)
        return record, None

    def work(self, records: Sequence[Record]) -> list[tuple[datetime, float]]:
        """When the trials of these refreshes' searches last reported, and the hours they took, weighed as the budget does."""
        found = []
        for name in dict.fromkeys(name for one in records for name in one.searches):
            known = self.search(name)
            for trial in known[1].trials() if known is not None else ():
                share = self.spec.resources.gpu
                weight = share if isinstance(share, float | int) and share else 1.0
                if trial.epochs:
                    found.append((trial.epochs[-1].recorded, trial.seconds * weight / 3600))
        return found

    def promoted(self, record: Record, name: str) -> Record:
        """Let the gate judge the best of a search. That it is champion already is what an interrupted promotion leaves."""
        spec, _ = open_ledger(self.folder / name)
        spec = spec.model_copy(update={"promote": self.spec.promote.model_copy(update=_kept_of(spec))})
        with said_of_store(self.registry.uri):
            return self.judged(record, spec)

    def judged(self, record: Record, spec: SearchSpec) -> Record:
        name = spec.search.name
        found = promote(
            spec,
            folder=self.folder / name,
            address=self.around.address,
            dry_run=False,
            force=False,
            tell=self.around.tell,
        )
        version = self.registry.version(found.version or 0)
        is_champion = found.outcome in ("promoted", "unchanged")
        note = {
            "search": name,
            "version": version.number,
            "outcome": "promoted" if is_champion else "refused",
            "reasons": version.tags.get("gate.reasons", ""),
        }
        self.around.tell(f"{name}: version {version.number} {note['outcome']}: {note['reasons']}")
        others = [one for one in record.promotions if one["search"] != name]
        return self.records.save(record, promotions=(*others, note))

    def closed(self, record: Record) -> Record:
        """Ask the champion about every frozen test set, show the refresh in MLflow, and end it."""
        version = self.registry.by_alias(CHAMPION)
        if version is not None:
            record = self.records.save(record, after=_said(version), scores=self.scores(record, version))
        ended = record.ended or self.around.now().isoformat()
        record = self.records.save(record, ended=ended)
        show(record, spec=self.spec, uri=self.registry.uri, folder=self.records.folder)
        return self.records.save(record, state="done")

    def scores(self, record: Record, version: Version) -> dict[str, Any]:
        earlier = [one for one in self.records.all() if one.after is not None and one.number < record.number]
        known = next((dict(one.scores) for one in reversed(earlier) if _is_of(one, version)), {})
        versions = {}
        for one in self.records.all():
            path = self.records.version_file(one.fingerprint)
            if one.fingerprint not in known and path.is_file():
                versions[one.fingerprint] = read_version(path)
        if not versions:
            return known
        champion = self.opened(version, record=record)
        return measuring.frozen_scores(champion, versions=versions, known=known, spec=self.spec)


class _Noting:
    """Notes in a search's ledger that a refresh began it, and its warm start."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def begin(self, ledger: Ledger, **_: Any) -> None:
        if "refresh" not in ledger.notes:
            ledger.note("refresh", {"number": self.record.number, "key": self.record.key})
        if self.record.warm_start is not None and "warm_start" not in ledger.notes:
            ledger.note("warm_start", self.record.warm_start)

    def changed(self, trial: Trial) -> None:
        """Nothing."""

    def pulse(self) -> None:
        """Nothing."""

    def end(self, ledger: Ledger, **_: Any) -> None:
        """Nothing."""


def _said(version: Version) -> dict[str, Any]:
    return {
        "version": version.number,
        "study": version.tags.get(STUDY, ""),
        "fingerprint": version.tags[FINGERPRINT],
    }


def _is_of(record: Record, version: Version) -> bool:
    return record.after is not None and record.after["version"] == version.number


def _kept_of(spec: SearchSpec) -> Mapping[str, Any]:
    """What a search's own promotion section has of its own."""
    return {"model": spec.promote.model, "confirm": spec.promote.confirm}
