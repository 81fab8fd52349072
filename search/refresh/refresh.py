"""One refresh from beginning to end: looked at, measured, decided, carried out, each step recorded so that it is done once."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from search.engine.listeners import Listener
from search.engine.recipes import Configuration, fixed_differently, recipe_of
from search.ledger.lease import HeldError, lease
from search.ledger.ledger import Ledger
from search.ledger.notes import RefreshMark, WarmStart
from search.ledger.refreshes import Record, records_of
from search.ledger.stored import SPEC_FILE
from search.promotion.candidate import NoCandidateError
from search.promotion.checks import NotJudgeableError, check_model_name
from search.promotion.page import publish_promotion_page
from search.promotion.promote import Promotion, promote
from search.refresh import searches
from search.refresh.begin import begin
from search.refresh.decision import hours_of_month, next_rung, wait_before_search
from search.refresh.look import Answer, MustWaitError, answer_of, busy, limits, look_first, nothing_new, still_waits
from search.refresh.measure import measure_champion, measure_drift, measure_refit, score_frozen_tests
from search.refresh.state import Situation, mark_of
from search.refresh.warm_start import configurations, warm_start
from search.report.page import write_page
from search.run.search import run_search
from search.run.session import Page
from search.space.spec import SearchSpec
from search.space.values import Value
from search.tracking.refreshes import write_refresh_run
from search.tracking.registry import CHAMPION, ModelVersion, Registry, store_errors_as_outages
from search.tracking.tracker import sync_ledger
from trainable.data.versions import read_version
from trainable.errors import OutageError


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
            registry = Registry(spec.tracking.uri, name=spec.model_name, lock_folder=Path(spec.search.folder))
            with TemporaryDirectory() as place, store_errors_as_outages(registry.uri):
                return _refresh(Situation(spec, records=records, registry=registry, place=Path(place)), around=around)
    except MustWaitError as wait:
        return wait.answer
    except HeldError as error:  # of this refresh, or of a search that it needs
        return busy(str(error))


def _refresh(situation: Situation, *, around: Surroundings) -> Answer:
    record = begin(situation, now=around.now)
    if record.state == "done":
        return nothing_new(record)
    around.tell(f"refresh {record.number}: {record.difference_text or 'nothing to compare these images with'}")
    work = RefreshAtWork(record, situation=situation, around=around)
    work.decide()
    work.carry_out()
    work.close()
    return answer_of(work.record)


class RefreshAtWork:
    """A refresh that was begun; ``record`` has what each step found or did, and is written when the step ends.

    A step that is in the record is not taken again. Steps raise MustWaitError where a search may not begin yet.
    """

    def __init__(self, record: Record, *, situation: Situation, around: Surroundings) -> None:
        self.record = record
        self.situation = situation
        self.around = around
        self.spec, self.records = situation.spec, situation.records
        self.registry, self.searches = situation.registry, situation.searches
        self.folder = Path(self.spec.search.folder)

    def decide(self) -> None:
        """Climb the ladder up to its decision; what a rung measures is recorded before the next is chosen."""
        while self.record.decision is None:
            rung = next_rung(self.situation.facts(self.record), rule=self.spec.refresh)
            for reason in rung.reasons:
                self.around.tell(f"{rung.kind}: {reason}")
            rungs = (*(earlier for earlier in self.record.rungs if earlier["kind"] != rung.kind), rung.as_dict())
            self._save(rungs=rungs, decision=rung.as_dict() if rung.is_last else None)
            if rung.is_last:
                write_refresh_run(self.record, spec=self.spec, uri=self.registry.uri, folder=self.records.folder)
            else:
                measured = self._measure(rung.kind)
                self._save(measured={**self.record.measured, rung.kind: measured})

    def carry_out(self) -> None:
        """Run the search that was decided on, if one was, and let the gate judge what there is to promote."""
        assert self.record.decision is not None
        name: str | None
        match self.record.decision["kind"]:
            case "warm search":
                name = self._search_warm()
            case "full search":
                name = self._search_in_full()
            case "refit":
                name = searches.search_name(self.spec, self.record, is_refit=True)
            case _:
                name = self._find_unpromoted_search()
        if name and self.spec.promote.auto:
            self._promote(name)

    def close(self) -> None:
        """Ask the champion about every frozen test set, show the refresh in MLflow, and end it."""
        version = self.registry.by_alias(CHAMPION)
        if version is not None:
            self._save(after=mark_of(version), scores=self._score(version))
        self._save(ended=self.record.ended or self.around.now().isoformat())
        done = replace(self.record, state="done")
        write_refresh_run(done, spec=self.spec, uri=self.registry.uri, folder=self.records.folder)
        self._save(state="done")
        search_folder = self.folder / self.spec.search.name
        if (search_folder / SPEC_FILE).is_file():
            write_page(search_folder)  # its history has grown

    def _save(self, **changes: Any) -> None:
        self.record = self.records.save(self.record, **changes)

    def _measure(self, kind: str) -> dict[str, Any]:
        """Measure what a rung asks for."""
        champion_images = self.situation.champion_images(self.record)
        if kind == "drift":
            return measure_drift(champion_images, spec=self.spec)
        if kind == "champion":
            return measure_champion(champion_images, spec=self.spec)
        recipe, lines = recipe_of(champion_images.configuration, spec=self.spec)
        lines += fixed_differently(champion_images.configuration, spec=self.spec)
        return {"unasked": "; ".join(lines)} if lines else self._refit(recipe)

    def _refit(self, recipe: Mapping[str, Value]) -> dict[str, Any]:
        """Train the champion's recipe again, and measure it; that it came to nothing is a measurement too."""
        name = searches.search_name(self.spec, self.record, is_refit=True)
        try:
            self._search(searches.refit_search(self.spec, recipe, name=name, keep_splits=self._keep_splits()))
        except BrokenOffError as error:
            if not self.searches.has_only_failures(name):
                raise
            self.around.tell(f"refit: {error}")
        refit, ledger = self.searches.open_anew(name)
        champion_images = self.situation.champion_images(self.record)
        return measure_refit(champion_images, spec=self.spec, refit=refit, ledger=ledger, folder=self.folder / name)

    def _search_warm(self) -> str:
        """Search from the best of the last searches, and give the search's name."""
        name, start = self._search_name(), self._choose_start()
        self._save(warm_start=start.as_dict())
        self._search(searches.warm_search(self.spec, start, name=name, keep_splits=self._keep_splits()))
        return name

    def _search_in_full(self) -> str:
        """Search from the beginning, and give the search's name."""
        name = self._search_name()
        self._search(searches.full_search(self.spec, name=name, keep_splits=self._keep_splits()))
        return name

    def _find_unpromoted_search(self) -> str | None:
        """Find the search of this space on these images that the champion did not come from; None where there is none."""
        name, champion = self.situation.finished_search(self.record), self.record.champion
        return None if champion is not None and champion.study == name else name

    def _search_name(self) -> str:
        """Choose the name of a search: the file's own where no other search has it, or one of the same that was begun."""
        name = self.spec.search.name
        is_free = self.record.champion is None and self.record.number == 1 and self.searches.find(name) is None
        is_own = is_free or name in self.record.searches or self.searches.is_of(name, self.record)
        return name if is_own else searches.search_name(self.spec, self.record)

    def _choose_start(self) -> WarmStart:
        """Choose the champion's configuration, then the best of the last searches, newest first; what was chosen stays so."""
        record = self.record
        if record.warm_start is not None:
            return WarmStart(**record.warm_start)
        names = [name for earlier in reversed(self.situation.before(record)) for name in reversed(earlier.searches)]
        names.append(self.spec.search.name)
        first = []
        if record.champion is not None:
            names.append(record.champion.study)
            values = self.situation.champion_images(record).configuration
            first.append(Configuration(values, f"the champion, version {record.champion.version}"))
        candidates = [self.searches.find(name) for name in dict.fromkeys(names) if name not in record.searches]
        last = [(spec, ledger.trials()) for spec, ledger in filter(None, candidates)]
        start = warm_start([*first, *configurations(last)], spec=self.spec)
        for line in start.notes:
            self.around.tell(f"warm start: {line}")
        return start

    def _search(self, spec: SearchSpec) -> None:
        """Run a search or go on with it, unless a new one must wait."""
        name = spec.search.name
        if name not in self.record.searches:
            self._wait_if_needed()
            self._save(searches=(*self.record.searches, name), wait=None)
        if self.searches.find_finished(name) is not None:  # and then killed perhaps, before everything of it was shown
            write_page(self.folder / name)
            sync_ledger(self.searches.open_anew(name)[0], folder=self.folder / name)
        else:
            self._run(spec)
        _, ledger = self.searches.open_anew(name)
        if ledger.notes.data.fingerprint != self.record.fingerprint or self.situation.have_changed():
            raise BrokenOffError("changed", "the images have changed meanwhile; the next refresh begins anew with them")

    def _wait_if_needed(self) -> None:
        """Raise MustWaitError where no search may begin now; until when is recorded."""
        now, rule = self.around.now(), self.spec.refresh
        earlier = [name for record in self.situation.before(self.record) for name in record.searches]
        last_ended = max((moment for moment, _ in self._work(earlier)), default=None)
        gpu_hours = hours_of_month(self._work([*earlier, *self.record.searches]), now=now)
        wait = wait_before_search(now, last_ended=last_ended, gpu_hours=gpu_hours, rule=rule)
        if wait is not None:
            self._save(wait={"until": wait.until.isoformat(), "reason": wait.reason, "limits": limits(rule)})
            answer = still_waits(self.record, rule=rule, now=now)
            assert answer is not None, "it ends after now"
            raise MustWaitError(answer)

    def _work(self, names: list[str]) -> list[tuple[datetime, float]]:
        """When the trials of these searches last reported, and the hours they took, weighed as the budget does."""
        share = self.spec.resources.gpu
        return self.searches.work(names, weight=share if isinstance(share, float | int) and share else 1.0)

    def _run(self, spec: SearchSpec) -> None:
        """Run a search to its end. Raises BrokenOffError where it ends before."""
        begun = self.searches.find(spec.search.name)
        now = spec if begun is None else searches.continue_search(begun[0], now=spec)
        listeners = [Page(), *self.around.listeners(), _NoteRefresh(self.record)]
        outcome = run_search(now, address=self.around.address, listeners=listeners)
        if outcome.status != "finished":
            raise BrokenOffError(outcome.status, outcome.reason)

    def _keep_splits(self) -> Path:
        return self.situation.version_file.absolute()

    def _promote(self, name: str) -> None:
        """Let the gate judge the best of a search. That it is champion already is what an interrupted promotion leaves."""
        others = [earlier for earlier in self.record.promotions if earlier["search"] != name]
        spec = searches.with_promotion_of(self.spec, begun=self.searches.open_anew(name)[0])
        address, tell = self.around.address, self.around.tell
        promotion: Promotion | None
        try:
            promotion = promote(spec, folder=self.folder / name, address=address, dry_run=False, force=False, tell=tell)
        except (NoCandidateError, NotJudgeableError) as error:
            promotion = None
            tell(str(error))
            note: dict[str, Any] = {"search": name, "version": None, "outcome": "refused", "reasons": str(error)}
        else:
            version = self.registry.version(promotion.version or 0)
            is_champion = promotion.outcome in ("promoted", "unchanged")
            note = {
                "search": name,
                "version": version.number,
                "outcome": "promoted" if is_champion else "refused",
                "reasons": version.tags.get("gate.reasons", ""),
            }
            tell(f"{name}: version {version.number} {note['outcome']}: {note['reasons']}")
        self._save(promotions=(*others, note))
        if promotion is not None:
            publish_promotion_page(promotion, folder=self.folder / name, tell=tell)

    def _score(self, version: ModelVersion) -> dict[str, Any]:
        """Score a champion on the frozen test set of each data version that it has not been asked about."""
        earlier = self.situation.before(self.record)
        same = [record.scores for record in earlier if record.after == mark_of(version)]
        scores = {
            name: score
            for name, score in (same[-1] if same else {}).items()
            if score["metric"] == self.spec.promote.metric
        }
        paths = {
            record.fingerprint: self.records.version_file(record.fingerprint) for record in (*earlier, self.record)
        }
        paths = {name: path for name, path in paths.items() if name not in scores and path.is_file()}
        if not paths:
            return scores
        champion_images = self.situation.images_of(version, record=self.record)
        tests = {name: read_version(path).ids(champion_images.model.test_split) for name, path in paths.items()}
        return scores | score_frozen_tests(champion_images, tests=tests, spec=self.spec)


class _NoteRefresh(Listener):
    """Notes in a search's ledger that a refresh began it, and its warm start."""

    def __init__(self, record: Record) -> None:
        self.record = record

    def begin(self, ledger: Ledger, **_: Any) -> None:
        notes = ledger.notes
        if notes.refresh is None:
            ledger.note(refresh=RefreshMark(number=self.record.number, key=self.record.key))
        if self.record.warm_start is not None and notes.warm_start is None:
            ledger.note(warm_start=self.record.warm_start)
