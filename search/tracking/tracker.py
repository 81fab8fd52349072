"""MLflow as a projection of the ledger, written by one thread beside the search."""

import os
import shlex
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from search.engine.listeners import Listener, Outcome
from search.engine.rule import Rule
from search.ledger import ledger as ledgers
from search.ledger.lease import lease
from search.ledger.ledger import Ledger, identify
from search.ledger.refits import SEED, existing_refits
from search.ledger.stored import is_finished, open_ledger_of
from search.ledger.trials import Trial
from search.space.spec import SearchSpec, resume_command
from search.tracking.projection import SearchPlace, SearchState, data_used
from search.tracking.uri import check_uri, first_line, is_server, store_failure
from trainable.masking import masked_address

if TYPE_CHECKING:
    from search.tracking.runs import Runs

DEADLINE_SECONDS = 60.0
GATHERING_SECONDS = 2.0  # least time between two rounds of writing: one search's many reports become few requests
LONGEST_PAUSE_SECONDS = 30.0
CLOSING_ATTEMPTS = 3
STARTING_SECONDS = 15.0  # an epoch may take hours, in which its trial is to be seen
# No retries inside a request: create_run is not repeatable, this thread looks for what is there before it tries again.
ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}


class Tracker(Listener):
    """Follows a search and keeps MLflow up to date with it; never stops or slows it.

    The ledger is the spool: what a failing store did not take is written at the next try, the next ``resume``, or by
    :func:`sync_ledger`.
    """

    def __init__(self, *, deadline_seconds: float = DEADLINE_SECONDS) -> None:
        self._deadline_seconds = deadline_seconds
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._latest: dict[int, Trial] = {}
        self._dirty: dict[int, Trial] = {}
        self._state: SearchState = "running"
        self._abandoned = False
        self._complete = False
        self._problem: str | None = None
        self._links: dict[str, str] = {}

    def begin(self, ledger: Ledger, *, spec: SearchSpec, rule: Rule) -> None:
        """Start writing. Raises UserError for an address that MLflow cannot write to by its form alone."""
        self._spec, self._ledger = spec, ledger
        self._uri = check_uri(spec.tracking.uri)
        self._place = _place(spec, folder=Path(spec.search.folder, spec.search.name), ledger=ledger)
        set_environment()
        self._latest = {trial.number: trial for trial in ledger.trials()}
        self._dirty = dict(self._latest)
        self._thread = threading.Thread(target=self._follow, name="mlflow", daemon=True)
        self._thread.start()

    def changed(self, trial: Trial) -> None:
        """Take note of a trial's newest record; costs microseconds."""
        with self._wake:
            self._latest[trial.number] = self._dirty[trial.number] = trial
            self._wake.notify()

    def end(self, ledger: Ledger, *, outcome: Outcome) -> None:
        """Write the rest, for as long as the deadline allows; leaves no run RUNNING that could be reached."""
        assert self._thread is not None
        with self._wake:
            self._state = outcome.status
            self._dirty |= {number: trial for number, trial in self._latest.items() if trial.state == "RUNNING"}
            self._wake.notify()
        self._thread.join(self._deadline_seconds)
        self._abandoned = True

    def closing_lines(self) -> list[str]:
        """Where to look at the search, or what is missing and how to write it."""
        if self._thread is None:
            return []
        where = masked_address(self._uri)
        if not self._complete:
            missing = f"{len(self._dirty)} of {len(self._latest)} trials are" if self._dirty else "the summary is"
            reason = self._problem or f"not done within {self._deadline_seconds:g} s"
            sync = resume_command(self._spec, command="sync")
            return [f"MLflow: {missing} not written to {where} ({reason}); to write: {sync}"]
        lines = [f"MLflow: {where}"]
        if not is_server(self._uri):
            lines.append(f"  to look at it: python -m search ui --uri {shlex.quote(where)}")
        return lines + [f"  {name}: {link}" for name, link in self._links.items()]

    def _follow(self) -> None:
        """The thread: write what changed, wait for more; after a failure wait, look what is there, go on."""
        self._let_it_start()
        failures = 0
        runs: Runs | None = None
        while not self._abandoned:
            closing = self._state != "running"
            try:
                runs = runs or self._connect()
                self._write(runs)
                failures, self._problem = 0, None
            except Exception as error:  # whatever a store does, the search goes on
                runs, failures = None, failures + 1
                self._problem = first_line(error)
            if closing and (failures == 0 or failures >= CLOSING_ATTEMPTS):
                self._complete = failures == 0
                return
            self._wait(failures, closing=closing)

    def _let_it_start(self) -> None:
        """Wait for the first epoch, a while at most: MLflow takes seconds to load, in which no trial would begin."""

        def has_begun() -> bool:
            return self._state != "running" or any(trial.epochs for trial in self._dirty.values())

        with self._wake:
            self._wake.wait_for(has_begun, timeout=STARTING_SECONDS)

    def _connect(self) -> "Runs":
        from search.tracking.runs import Runs  # MLflow takes seconds to import: here it does so beside the search

        runs = Runs(self._place, ledger=self._ledger, uri=self._uri)
        runs.find()
        self._links = runs.links
        return runs

    def _write(self, runs: "Runs") -> None:
        """Write every changed trial, then the search's own run; what was refused stays to be written."""
        refused: list[Exception] = []
        with self._wake:
            waiting, state, latest = list(self._dirty), self._state, list(self._latest.values())
        for number in waiting:
            with self._wake:
                trial = self._dirty[number]
            if self._abandoned:
                return
            try:
                runs.write_trial(trial, is_open=state == "running")
            except Exception as error:
                if not runs.is_refusal(error):
                    raise
                refused.append(error)
                continue
            with self._wake:
                # A trial written as open while the search came to its end is to be written once more, as closed.
                if self._dirty[number] is trial and self._state == state:
                    del self._dirty[number]
        runs.write_search(sorted(latest, key=lambda trial: trial.number), state=state)
        if state != "running" and self._spec.search.confirm:
            refits = existing_refits(self._spec, folder=Path(self._spec.search.folder, self._spec.search.name))
            if refits is not None:
                write_refits(runs, ledger=self._ledger, refits=refits)
        if refused:
            raise refused[0]

    def _wait(self, failures: int, *, closing: bool) -> None:
        def is_closing() -> bool:
            return self._state != "running" and not closing

        with self._wake:
            if failures:
                self._wake.wait_for(is_closing, timeout=min(2.0 ** (failures - 1), LONGEST_PAUSE_SECONDS))
                return
            self._wake.wait_for(lambda: self._dirty or is_closing())
            self._wake.wait_for(is_closing, timeout=GATHERING_SECONDS)


def sync_ledger(spec: SearchSpec, *, folder: Path) -> str:
    """Write everything of a search that is not at work to MLflow; says in one line what was done.

    Raises HeldError while the search is at work, and what :func:`store_failure` gives where MLflow cannot be written to.
    """
    uri = check_uri(spec.tracking.uri)
    set_environment()
    from search.tracking.runs import STORE_ERRORS

    with lease(folder):
        ledgers.mend_journal(folder / ledgers.JOURNAL)
        ledger = open_ledger_of(spec, folder=folder)
        try:
            runs = runs_of(spec, ledger, folder=folder)
        except STORE_ERRORS as error:
            raise store_failure(uri, error) from error
    return f"{spec.search.name}: {len(ledger.trials())} trials are in {masked_address(uri)}, {next(iter(runs.links.values()))}"


def runs_of(spec: SearchSpec, ledger: Ledger, *, folder: Path) -> "Runs":
    """The runs of a search that is not at work and of its refits, brought up to date. Raises what the store raises."""
    set_environment()
    from search.tracking.runs import Runs

    trials = ledger.trials()
    runs = Runs(_place(spec, folder=folder, ledger=ledger), ledger=ledger, uri=check_uri(spec.tracking.uri))
    runs.find()
    for trial in trials:
        runs.write_trial(trial, is_open=False)
    runs.write_search(trials, state=_state_at_rest(ledger, trials=trials))
    refits = existing_refits(spec, folder=folder)
    if refits is not None:
        write_refits(runs, ledger=ledger, refits=refits)
    return runs


def _place(spec: SearchSpec, *, folder: Path, ledger: Ledger) -> SearchPlace:
    """The search as MLflow will know it. Its id is noted before any run bears it, so that each is found again."""
    identity = identify(ledger)
    data = data_used(spec, facts=ledger.notes.data)
    return SearchPlace(spec=spec, folder=folder.absolute(), search_id=identity.id, began=identity.began, data=data)


def _state_at_rest(ledger: Ledger, *, trials: list[Trial]) -> SearchState:
    return "finished" if is_finished(ledger, trials=trials) else "interrupted"


def set_environment() -> None:
    """How MLflow behaves in this process; to be called before it is imported."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def _is_recipe(trial: Trial, *, refit: Trial) -> bool:
    return (trial.params, trial.overrides) == (refit.params, refit.overrides)


def write_refits(runs: "Runs", *, ledger: Ledger, refits: Ledger) -> None:
    """Bring every refit's run up to date, beside those of the search's trials."""
    trials = ledger.trials()
    for refit in refits.trials():
        refit_trial = replace(refit, params={path: value for path, value in refit.params.items() if path != SEED})
        of = next(trial.number for trial in trials if _is_recipe(trial, refit=refit_trial))
        runs.write_refit(refit_trial, seed=int(str(refit.params[SEED])), of=of)
