"""Trains trials of a search again, with other seeds, in the study of its refits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from search.engine.clock import Clock
from search.engine.conductor import Conductor
from search.engine.failure import was_lost
from search.engine.limits import Limits
from search.engine.sampling import Sampling
from search.engine.schedulers import SCHEDULERS
from search.ledger.files import tidy
from search.ledger.refits import SEED, FinishedSearch, refit_config, refit_space
from search.ledger.trials import Trial
from search.space.values import Value
from search.tune.place import INTERRUPTED, Packing, Place, interruptible
from trainable.errors import OutageError


class StoppedError(OutageError):
    """Refits, or what follows them, ended before their time; run again, they go on. The message says why."""


@dataclass(frozen=True)
class RefitPoint:
    """The values of a refit, its seed among them, and what it has in place of them and of what is fixed."""

    params: Mapping[str, Value]
    overrides: Mapping[str, Value]


def points_of(search: FinishedSearch, *, numbers: Sequence[int], seeds: Sequence[int]) -> list[RefitPoint]:
    """Every refit in the order of their numbers: those that were begun, then what is missing of these trials and seeds.

    A refit that only lost its workers is begun anew, by the next call.
    """
    trials, begun = search.ledger.trials(), search.refits.trials()
    points = [RefitPoint(trial.params, trial.overrides) for trial in begun]
    done = [point for point, trial in zip(points, begun, strict=True) if not was_lost(trial)]
    wanted = [
        RefitPoint({**trials[number].params, SEED: seed}, trials[number].overrides)
        for number in numbers
        for seed in seeds
    ]
    return points + [point for point in wanted if point not in done]


def train_refits(
    search: FinishedSearch,
    *,
    points: Sequence[RefitPoint],
    place: Callable[[], Place],
    is_joined: bool,
    on_change: Callable[[Trial], None],
    on_step: Callable[[], None] = lambda: None,
    clock: Clock | None = None,
) -> None:
    """Run the refits that are left, each to its last epoch, or as far as the ``clock``'s time allows.

    Raises KeyboardInterrupt where the user stopped them, StoppedError where they ended otherwise before their time.
    """
    from search.tune.tuner import run_legs

    spec = search.spec
    conductor = refit_conductor(search, points=points, on_change=on_change, clock=clock)
    packing = Packing(spec, place=place, trials=lambda: [*search.ledger.trials(), *search.refits.trials()])
    with interruptible(conductor):
        run_legs(
            conductor,
            trial_config=lambda leg: refit_config(spec, leg.params, overrides=leg.overrides),
            place=packing.of,
            concurrency=lambda: packing.at_once(can_grow=is_joined),
            folder=search.refit_folder,
            on_step=on_step,
            epoch_limit_seconds=spec.search.epoch_limit_seconds,
        )
    if not conductor.finished:
        if conductor.stopping == INTERRUPTED:
            raise KeyboardInterrupt
        raise StoppedError(conductor.stopping or "no worker")


def refit_conductor(
    search: FinishedSearch, *, points: Sequence[RefitPoint], on_change: Callable[[Trial], None], clock: Clock | None
) -> Conductor:
    """The conductor of the refits: each is trained to its end, one after the other."""
    spec = search.spec

    def tidy_and_tell(trial: Trial) -> None:
        if trial.state != "RUNNING":
            tidy(search.refit_folder, trial, metric=search.metric)
        on_change(trial)

    return Conductor(
        search.refits,
        space=refit_space(spec),
        rule=SCHEDULERS["none"](spec),
        sampling=Sampling(
            sampler="random",
            seed=spec.search.seed,
            random_share=1.0,
            metric=search.metric,
            rungs=(spec.scheduler.max_epochs,),
            try_first=tuple(point.params for point in points),
            overrides=tuple(point.overrides for point in points),
        ),
        limits=Limits(
            trials=len(points), clock=clock, max_failures=spec.search.max_failures, max_losses=spec.search.max_losses
        ),
        on_change=tidy_and_tell,
    )
