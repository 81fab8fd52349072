"""A search on Ray Tune: thin faces of Ray's over the conductor.

A Tune trial is one leg of ours, from one rung to the next. Pausing is the end of a leg, resuming another leg, so that
nothing of the search lives in Ray: its experiment folder can be thrown away at any moment.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.air._internal import usage
from ray.tune import CheckpointConfig, FailureConfig, RunConfig, TuneConfig
from ray.tune.execution.class_cache import _ActorClassCache
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.stopper import Stopper

from search.engine.conductor import Conductor, Leg
from search.engine.failure import Failure
from search.engine.reports import read_report
from search.ledger.files import checkpoint_folder
from search.tune.hanging import Hanging
from search.tune.lost import failure_of
from search.tune.place import Place
from search.tune.waiting import Waiting
from search.tune.worker import RESOURCES, TrialActor, leg_settings, occupied


def run_legs(
    conductor: Conductor,
    *,
    trial_config: Callable[[Leg], dict[str, Any]],
    place: Callable[[Leg], Place],
    concurrency: Callable[[], int],
    folder: Path,
    on_step: Callable[[], None],
    epoch_limit_seconds: float | None = None,
) -> None:
    """Give workers legs until the conductor has none left; returns early when it is stopping.

    ``trial_config`` gives the configuration of a leg's trial, ``place`` what it is given now; ``concurrency`` says how many
    may be at work now; ``folder`` is the search's, under which checkpoints lie; ``on_step`` is called at least every second
    or so. A worker that reports no epoch for ``epoch_limit_seconds`` is ended.
    """
    newest: deque[Place] = deque(maxlen=1)

    def settings(leg: Leg) -> dict[str, Any]:
        checkpoints = checkpoint_folder(folder.resolve(), leg.number)
        leg_place = place(leg)
        newest.append(leg_place)
        occupied = {RESOURCES: {"CPU": leg_place.cpu, "GPU": leg_place.gpu}}
        settings = leg_settings(
            trial=trial_config(leg), folder=checkpoints, start=leg.start, place=leg_place, measure=leg.measure
        )
        return settings | occupied

    searcher = LegSearcher(conductor, settings=settings, concurrency=concurrency)
    hanging = Hanging(epoch_limit_seconds)
    steps = _Steps(on_step, waiting=Waiting(lambda: newest[0]), hanging=hanging)
    tuner = tune.Tuner(
        tune.with_resources(TrialActor, occupied),
        tune_config=TuneConfig(
            search_alg=searcher,
            scheduler=LegScheduler(conductor, searcher=searcher),
            num_samples=-1,
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder.resolve()),
            verbose=0,
            failure_config=FailureConfig(max_failures=0),
            checkpoint_config=CheckpointConfig(checkpoint_at_end=False, checkpoint_frequency=0),
            callbacks=[steps],
            stop=_StopWaiting(conductor, steps=steps),
        ),
    )
    with _actors_in_any_worker(), _no_tags(), _errors_for(searcher, hanging=hanging):
        tuner.fit()


@contextmanager
def _actors_in_any_worker() -> Iterator[None]:
    """Inside, Tune asks for actors with the environment that every worker has, so that one which is warm is taken."""
    before = _ActorClassCache.get
    _ActorClassCache.get = lambda _, actor: ray.remote(actor)
    try:
        yield
    finally:
        _ActorClassCache.get = before


@contextmanager
def _no_tags() -> Iterator[None]:
    """Inside, Tune counts no callbacks for statistics of use that are not sent: it loads MLflow to know MLflow's."""
    before = usage.tag_callbacks
    usage.tag_callbacks = lambda _: None
    try:
        yield
    finally:
        usage.tag_callbacks = before


@contextmanager
def _errors_for(searcher: "LegSearcher", *, hanging: Hanging) -> Iterator[None]:
    """Inside, Tune hands the error of a leg to the searcher.

    Of itself it would write it as a pickle and read it back from the search's folder, before it is there.
    """

    def handle_error(trial: TuneTrial, exc: Exception | None = None) -> None:
        searcher.failures[trial.trial_id] = hanging.reason(trial.trial_id) or failure_of(exc)
        trial.run_metadata.num_failures += 1

    before, TuneTrial.handle_error = TuneTrial.handle_error, handle_error
    try:
        yield
    finally:
        TuneTrial.handle_error = before


class LegSearcher(Searcher):  # type: ignore[misc]
    """Asks the conductor for the next leg."""

    def __init__(
        self, conductor: Conductor, *, settings: Callable[[Leg], dict[str, Any]], concurrency: Callable[[], int]
    ) -> None:
        super().__init__(metric="epoch", mode="max")
        self._conductor = conductor
        self._settings = settings
        self._concurrency = concurrency
        self._numbers: dict[str, int] = {}
        self.failures: dict[str, Failure] = {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The settings of the next leg; None to ask again later; FINISHED when there will be none."""
        if len(self._conductor.running) >= self._concurrency():
            return None
        leg = self._conductor.next_leg()
        if leg is None:
            over = self._conductor.finished or (self._conductor.stopping and not self._conductor.running)
            return str(Searcher.FINISHED) if over else None
        self._numbers[trial_id] = leg.number
        return self._settings(leg)

    def number(self, trial_id: str) -> int:
        """The number of our trial that a Tune trial works on."""
        return self._numbers[trial_id]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """The leg is over, or its worker lost."""
        failure = self.failures.pop(trial_id, failure_of(None)) if error else None
        self._conductor.leg_over(self._numbers[trial_id], failure=failure)

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the ledger is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher for a restore that is never used."""
        return {}


class LegScheduler(FIFOScheduler):  # type: ignore[misc]
    """Hands every result to the conductor and its decision to Tune."""

    def __init__(self, conductor: Conductor, *, searcher: LegSearcher) -> None:
        super().__init__()
        self._conductor = conductor
        self._searcher = searcher

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: Mapping[str, Any]) -> str:
        """STOP at the end of the leg."""
        decision = self._conductor.report(self._searcher.number(trial.trial_id), report=read_report(result))
        return str(TrialScheduler.CONTINUE if decision == "go on" else TrialScheduler.STOP)

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its scheduler for a restore that is never used."""
        return {}


class _Steps(tune.Callback):  # type: ignore[misc]
    """Calls a function at every turn of Tune's loop, and looks whether all that was handed out waits for room."""

    def __init__(self, function: Callable[[], None], *, waiting: Waiting, hanging: Hanging) -> None:
        self._function = function
        self._waiting = waiting
        self._hanging = hanging
        self.all_wait = False

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._hanging.hear(trial.trial_id)

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, Any], **info: Any
    ) -> None:
        self._hanging.hear(trial.trial_id)

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        states = {trial.status for trial in trials}
        self.all_wait = TuneTrial.PENDING in states and TuneTrial.RUNNING not in states
        self._waiting.look(self.all_wait)
        self._hanging.look(trials)
        self._function()

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _StopWaiting(Stopper):  # type: ignore[misc]
    """Ends the loop of a search that is stopping while nothing of it is at work: what waits for room may wait for ever."""

    def __init__(self, conductor: Conductor, *, steps: _Steps) -> None:
        self._conductor = conductor
        self._steps = steps

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._conductor.stopping is not None and self._steps.all_wait

    def __getstate__(self) -> dict[str, Any]:
        return {}
