"""The Optuna study as the truth of a search: opened, written, read."""

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import StorageInternalError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import event
from sqlalchemy.engine import Engine, ExceptionContext
from sqlalchemy.exc import DBAPIError

from search.ledger.journal import Journal, no_collection
from search.ledger.notes import Confirmation, Identity, SearchNotes, key_of, plain, read_notes
from search.ledger.trials import EpochRecord, State, Trial
from search.space.space import Space
from trainable.atomic import make_private_folder
from trainable.config.renamed import new_name
from trainable.errors import OutageError, UserError
from trainable.json_text import restorable, restored
from trainable.masking import masked, masked_address
from trainable.metrics import DIRECTIONS

JOURNAL = "ledger.journal"
_EPOCH = "epoch:"
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETE: "COMPLETE",
    TrialState.PRUNED: "PRUNED",
    TrialState.FAIL: "FAILED",
}
_OPTUNA_STATES = {state: optuna_state for optuna_state, state in _STATES.items()}


class LedgerFailsError(OutageError):
    """The database that holds ledgers does not answer."""


class NoSearchError(UserError):
    """There is no search of this name."""


class Ledger:
    """Everything one search knows. Every call that writes has written when it returns.

    One process writes, the holder of the search's lease; any number may read.
    """

    def __init__(self, study: optuna.Study, storage: BaseStorage, *, metric: str, space: Space) -> None:
        self.study = study
        self.space = space
        self.metric = metric
        self._storage = storage
        self._ended: dict[int, Trial] = {}
        self._kept: list[Trial] | None = None  # all trials, once nobody else writes them
        self._ids: dict[int, int] = {}

    @property
    def notes(self) -> SearchNotes:
        """What is noted of the whole search: its space, data, baselines, test score."""
        return read_notes(self.stored_notes())

    def note(self, **notes: Any) -> None:
        """Note something of the whole search, by the names of :class:`SearchNotes`."""
        for name, value in notes.items():
            self.store_note(key_of(name), plain(value))

    def confirm(self, confirmation: Confirmation | None) -> None:
        """Note what other seeds made of the last candidates, whose records have it from now on; None takes it back."""
        self.note(confirmation=confirmation)
        if self._kept is not None:
            self._kept = self._with_confirmed(self._kept)

    def stored_notes(self) -> dict[str, Any]:
        """Give the notes as they are stored, by key."""
        attrs: dict[str, Any] = restored(self.study.user_attrs)
        return attrs

    def store_note(self, key: str, value: Any) -> None:
        """Store JSON values under a key, in one write."""
        self.study.set_user_attr(key, restorable(value))

    def write_alone(self) -> None:
        """Read the trials once more and no more after that: from now on they change by this ledger's own calls alone."""
        self._kept = self._read()

    def trials(self) -> list[Trial]:
        """All trials by number; of one that has not changed the object is the one given before."""
        return self._read() if self._kept is None else list(self._kept)

    def trial(self, number: int) -> Trial:
        """One trial."""
        if self._kept is not None:
            return self._kept[number]
        trial = self._record(self._frozen(number))
        return trial if trial.state == "RUNNING" else self._with_confirmed([trial])[0]

    def start(
        self,
        *,
        encoded: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        target: int,
        origin: str,
        overrides: Mapping[str, Any] | None = None,
    ) -> int:
        """Record a new trial, in one write, and give its number."""
        different = {"overrides": dict(overrides)} if overrides else {}
        trial = create_trial(
            state=TrialState.RUNNING,
            params=dict(encoded),
            distributions=dict(distributions),
            user_attrs={"target": target, "origin": origin, **different},
        )
        trial_id = self._storage.create_new_trial(self.study._study_id, template_trial=trial)
        frozen = self._storage.get_trial(trial_id)
        self._ids[frozen.number] = trial_id
        if self._kept is not None:
            assert frozen.number == len(self._kept), "another process has begun a trial"
            self._kept.append(self._record(frozen))
        return frozen.number

    def aim(self, number: int, *, target: int) -> None:
        """Record the epoch a trial is now to reach."""
        self._set(number, "target", target)

    def measure(self, number: int, *, values: Mapping[str, float]) -> None:
        """Record what a trial's network takes."""
        self._set(number, "measured", dict(values))

    def record(self, number: int, *, epoch: int, metrics: Mapping[str, float], ended: str | None = None) -> None:
        """Record a finished epoch, and why training is over where it is; one recorded before stays as it was.

        The point of Optuna's curve comes first: an epoch counts as recorded only when it has both.
        """
        if epoch <= self.trial(number).last_epoch:
            return
        if self.metric in metrics and epoch not in self._frozen(number).intermediate_values:
            self._storage.set_trial_intermediate_value(self._id(number), epoch, metrics[self.metric])
        content = {"metrics": dict(metrics), "recorded": datetime.now(UTC).isoformat(), "ended": ended}
        self._set(number, _epoch_key(epoch), content)

    def end(self, number: int, *, state: State, reason: str) -> None:
        """Close a trial: COMPLETE and PRUNED with the best value of its epochs, and why."""
        self._set(number, "reason", reason)
        value = self.trial(number).best(self.metric)
        values = None if state == "FAILED" or value is None else [value]
        self._storage.set_trial_state_values(self._id(number), state=_OPTUNA_STATES[state], values=values)
        self._read_again(number)

    def explain(self, number: int, *, reason: str | None) -> None:
        """Record why an open trial is not at work; None once it is."""
        self._set(number, "reason", reason)

    def hold(self, number: int) -> None:
        """Record that the search has stopped an open trial where it stands, which is kept for an audit."""
        self._set(number, "audited_at", self.trial(number).last_epoch)

    def count_failure(self, number: int, *, failure: Mapping[str, Any]) -> None:
        """Record that a worker failed with this trial, by its own error or ``of_machine``; the newest is kept in full."""
        trial = self.trial(number)
        self._set(number, "failure", {**failure, "epoch": trial.last_epoch + 1})
        if failure["of_machine"]:
            self._set(number, "losses", trial.losses + 1)
        else:
            self._set(number, "attempts", trial.attempts + 1)

    def _read(self) -> list[Trial]:
        with no_collection():
            return self._with_confirmed([self._record(frozen) for frozen in self.study.get_trials(deepcopy=False)])

    def _with_confirmed(self, trials: list[Trial]) -> list[Trial]:
        """The trials, of which those that other seeds have confirmed say so. Only a trial that has ended is."""
        stored = self.study.user_attrs.get(key_of("confirmation"))
        confirmation = None if stored is None else read_notes({"confirmation": restored(stored)}).confirmation
        confirmed = {} if confirmation is None else confirmation.by_trial()
        for index, trial in enumerate(trials):
            seeds = confirmed.get(trial.number, ())
            if trial.confirmed != seeds:
                trials[index] = self._ended[trial.number] = replace(trial, confirmed=seeds)
        return trials

    def _read_again(self, number: int) -> None:
        """Keep what this ledger has just written of a trial as it is stored."""
        if self._kept is not None:
            self._kept[number] = self._record(self._frozen(number))

    def _record(self, frozen: FrozenTrial) -> Trial:
        if frozen.number in self._ended:
            return self._ended[frozen.number]
        try:
            trial = _to_trial(frozen, space=self.space)
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(
                f"the ledger of {self.study.study_name}: trial {frozen.number} is not as a search wrote it"
            ) from error
        if frozen.state.is_finished():
            self._ended[frozen.number] = trial
        return trial

    def _frozen(self, number: int) -> FrozenTrial:
        return self._storage.get_trial(self._id(number))

    def _id(self, number: int) -> int:
        if number not in self._ids:
            study_id = self.study._study_id
            self._ids[number] = self._storage.get_trial_id_from_study_id_trial_number(study_id, number)
        return self._ids[number]

    def _set(self, number: int, key: str, value: Any) -> None:
        self._storage.set_trial_user_attr(self._id(number), key, restorable(value))
        self._read_again(number)


def create(
    folder: Path, *, name: str, storage: str | None, metric: str, space: Space, notes: Mapping[str, Any]
) -> Ledger:
    """Open a new ledger, or the one already there; ``notes``, by name, are noted where they are not yet."""
    make_private_folder(folder)
    backend = _open_storage(folder, storage=storage)
    study = optuna.create_study(
        study_name=name, storage=backend, direction=DIRECTIONS[metric], load_if_exists=True, sampler=_no_sampler()
    )
    ledger = Ledger(study, backend, metric=metric, space=space)
    for name, value in notes.items():
        if key_of(name) not in ledger.stored_notes():
            ledger.note(**{name: value})
    return ledger


def identify(ledger: Ledger) -> Identity:
    """Give the search's own id; it is noted before anything outside bears it."""
    identity = ledger.notes.identity
    if identity is None:
        identity = Identity(id=uuid4().hex, began=time.time_ns() // 1_000_000)
        ledger.note(identity=identity)
    return identity


def open_existing(folder: Path, *, name: str, storage: str | None, space: Space) -> Ledger:
    """The ledger of a search that exists; raises NoSearchError where there is none."""
    if storage is None and not (folder / JOURNAL).is_file():
        raise NoSearchError(f"{name}: no search of this name ({folder / JOURNAL} does not exist)")
    backend = _open_storage(folder, storage=storage)
    try:
        study = optuna.load_study(study_name=name, storage=backend, sampler=_no_sampler())
    except KeyError as error:
        raise NoSearchError(
            f"{name}: no search of this name in {masked_address(storage) if storage else folder / JOURNAL}"
        ) from error
    metric = study.user_attrs.get(key_of("metric"), SearchNotes().metric)
    return Ledger(study, backend, metric=metric, space=space)


def mend_journal(path: Path) -> None:
    """Undo what a killed writer left: a last line without its end, a lock without its holder.

    Nothing where the ledger is in a database. Only for the holder of the search's lease.
    """
    if path.is_file():
        content = path.read_bytes()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with path.open("r+b") as file:
                file.truncate(whole)
    lock = path.with_name(f"{path.name}.lock")
    if lock.is_symlink() or lock.exists():
        lock.unlink(missing_ok=True)


def _open_storage(folder: Path, *, storage: str | None) -> BaseStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if storage is None:
        return Journal(str(folder / JOURNAL))
    try:
        # A connection that was idle for the hours of an epoch may be gone while the database is not.
        opened = RDBStorage(storage, engine_kwargs={"pool_pre_ping": True})
    except Exception as error:
        does_not_answer = isinstance(error, DBAPIError | StorageInternalError)  # else no driver, or of another version
        raise (LedgerFailsError if does_not_answer else UserError)(
            f"search.storage: cannot open the database ({_reason(error)})"
        ) from error
    tell_of_outages(opened.engine)
    return opened


def tell_of_outages(engine: Engine) -> None:
    """Let a connection that breaks off at work, or cannot be made anew, raise LedgerFailsError.

    Other errors are for Optuna to handle, and Ctrl-C, which breaks a connection off too, stays what it is.
    """

    def tell(context: ExceptionContext) -> None:
        of_driver = context.sqlalchemy_exception is not None and not context.is_pre_ping
        if of_driver and (context.is_disconnect or context.connection is None):
            reason = _reason(context.original_exception)
            raise LedgerFailsError(f"search.storage: the database does not answer any more ({reason})")

    event.listen(engine, "handle_error", tell)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {masked(str(error).strip() or 'no reason given').splitlines()[0]}"


def _no_sampler() -> optuna.samplers.BaseSampler:
    """The study never samples: proposals are made in search.engine.sampling."""
    return optuna.samplers.RandomSampler(seed=0)


def _to_trial(frozen: FrozenTrial, *, space: Space) -> Trial:
    attrs = frozen.user_attrs
    return Trial(
        number=frozen.number,
        params=space.decoded({new_name(path): value for path, value in frozen.params.items()}),
        state=_STATES[frozen.state],
        epochs=tuple(_epoch(key, attrs[key]) for key in sorted(attrs) if key.startswith(_EPOCH)),
        target=attrs.get("target", 0),
        origin=attrs.get("origin", ""),
        overrides=attrs.get("overrides", {}),
        measured=attrs.get("measured", {}),
        attempts=attrs.get("attempts", 0),
        losses=attrs.get("losses", 0),
        failure=attrs.get("failure", {}),
        reason=attrs.get("reason"),
        started=frozen.datetime_start,
        ended=frozen.datetime_complete,
        audited_at=attrs.get("audited_at"),
    )


def _epoch(key: str, stored: Mapping[str, Any]) -> EpochRecord:
    metrics = stored["metrics"]
    return EpochRecord(
        number=int(key.removeprefix(_EPOCH)),
        metrics=restored(metrics) if str in map(type, metrics.values()) else metrics,
        recorded=datetime.fromisoformat(stored["recorded"]),
        ended=stored["ended"],
    )


def _epoch_key(epoch: int) -> str:
    return f"{_EPOCH}{epoch:05d}"
