"""Trains a search's last candidates a second time, with another seed, before the winner is named."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from search.engine.clock import Clock, epoch_seconds, start_seconds, typical_epoch_seconds
from search.engine.confirming import Confirming, Left, shortage
from search.engine.limits import Limits
from search.ledger.ledger import Ledger
from search.ledger.notes import Confirmation, ConfirmedTrial
from search.ledger.refits import SEED, FinishedSearch, existing_refits, fresh_seed, open_refits
from search.ledger.trials import Trial, leaders, mean_share
from search.run.refitting import RefitPoint, points_of, train_refits
from search.space.spec import SearchSpec
from search.tune.place import Place
from trainable.metrics import DIRECTIONS

TellOfRefit = Callable[[Trial, int], None]


@dataclass(frozen=True, kw_only=True)
class Workshop:
    """With what a search trains: places of workers and how many at once, what it may spend, who hears of refits.

    ``refit_changed`` is given a refit and the number of the trial that it is of.
    """

    place: Callable[[], Place]
    is_joined: bool
    at_once: int
    limits: Limits
    refit_changed: TellOfRefit
    on_step: Callable[[], None]


def confirming(spec: SearchSpec, *, folder: Path, at_once: int) -> Confirming | None:
    """What a search keeps of its budget for :func:`confirm_candidates`; None where it is to confirm nothing."""
    if not spec.search.confirm:
        return None
    refits = existing_refits(spec, folder=folder)
    begun = [] if refits is None else _confirming(refits.trials(), spec=spec)
    return Confirming(
        count=spec.search.confirm,
        until=spec.scheduler.max_epochs,
        at_once=at_once,
        spent_epochs=sum(trial.last_epoch for trial in begun),
        spent_seconds=sum(trial.seconds for trial in begun),
    )


def confirm_candidates(spec: SearchSpec, ledger: Ledger, *, folder: Path, workshop: Workshop) -> None:
    """Train the candidates again, those that are not yet, and note what came of it: the winner goes by it from then on.

    Where the budget does not allow it that is noted instead. Raises what :func:`train_refits` raises.
    """
    if not spec.search.confirm or ledger.notes.confirmation is not None:
        return
    chosen = candidates(spec, ledger.trials())
    if not chosen:
        ledger.confirm(Confirmation(why_not="no trial was trained to the end"))
        return
    search = FinishedSearch(spec=spec, ledger=ledger, refits=open_refits(spec, folder=folder), folder=folder)
    points = points_of(search, numbers=chosen, seeds=[_seed(spec)])
    remaining = _remaining(search, points=points)
    why_not = _shortage(search, remaining=remaining, workshop=workshop)
    if any(epochs for epochs, _ in remaining) and not why_not:
        _train(search, points=points, workshop=workshop)
    ledger.confirm(_confirmation(search, chosen=chosen, why_not=why_not))


def candidates(spec: SearchSpec, trials: Sequence[Trial]) -> list[int]:
    """The numbers of the trials that are trained again: the best that were trained to the end."""
    ended = [trial for trial in trials if trial.state == "COMPLETE"]
    best = leaders(ended, metric=spec.search.metric, choose_by=spec.search.choose_by)
    return [trial.number for trial in best[: spec.search.confirm]]


def _remaining(search: FinishedSearch, *, points: Sequence[RefitPoint]) -> list[tuple[int, float]]:
    """How many epochs each refit has to go, and what one takes."""
    trials, begun, last = search.ledger.trials(), search.refits.trials(), search.spec.scheduler.max_epochs
    typical = typical_epoch_seconds(trials) or 0.0
    remaining = [
        (0 if trial.state != "RUNNING" else last - trial.last_epoch, epoch_seconds(trial) or typical) for trial in begun
    ]
    for point in points[len(begun) :]:
        of = next(trial for trial in trials if _is_of(trial, point=point))
        remaining.append((last, epoch_seconds(of) or typical))
    return remaining


def _shortage(search: FinishedSearch, *, remaining: Sequence[tuple[int, float]], workshop: Workshop) -> str:
    """Why what the search and its refits have left of the budget is not enough; empty where it is, or nothing is to be done."""
    if not any(epochs for epochs, _ in remaining):
        return ""
    trials, limits = search.ledger.trials(), workshop.limits
    spending = [*trials, *_confirming(search.refits.trials(), spec=search.spec)]
    clock, seconds = _without_reserve(limits.clock), limits.work_seconds
    left = Left(
        epochs=None if limits.epochs is None else limits.epochs - sum(trial.last_epoch for trial in spending),
        work_seconds=None
        if seconds is None
        else (seconds - sum(trial.gpu_seconds for trial in spending)) / mean_share(spending),
        clock_seconds=None if clock is None else clock.left(trials),
    )
    return shortage(remaining, at_once=workshop.at_once, start=start_seconds(trials), left=left)


def _train(search: FinishedSearch, *, points: Sequence[RefitPoint], workshop: Workshop) -> None:
    trials = search.ledger.trials()

    def tell(refit: Trial) -> None:
        point = RefitPoint(refit.params, refit.overrides)
        workshop.refit_changed(refit, next(trial.number for trial in trials if _is_of(trial, point=point)))

    train_refits(
        search,
        points=points,
        place=workshop.place,
        is_joined=workshop.is_joined,
        on_change=tell,
        on_step=workshop.on_step,
        clock=_without_reserve(workshop.limits.clock),
    )


def _confirmation(search: FinishedSearch, *, chosen: Sequence[int], why_not: str) -> Confirmation:
    """What came of the refits of the chosen trials."""
    if why_not:
        return Confirmation(why_not=why_not)
    refits = {number: search.find_refit(number, seed=_seed(search.spec)) for number in chosen}
    if any(refit.state == "RUNNING" for refit in refits.values()):
        return Confirmation(why_not="the time was up before every candidate was trained again")
    confirmed = tuple(_confirmed(number, refit=refit, metric=search.metric) for number, refit in refits.items())
    return Confirmation(
        trials=confirmed,
        why_not="every refit failed" if all(trial.why_not for trial in confirmed) else "",
    )


def _confirmed(number: int, *, refit: Trial, metric: str) -> ConfirmedTrial:
    if refit.state == "FAILED" or refit.best(metric) is None:
        return ConfirmedTrial(number=number, why_not=f"refit {refit.number} failed: {refit.reason}")
    names = sorted({name for epoch in refit.epochs for name in epoch.metrics if name in DIRECTIONS})
    metrics = {name: refit.at_best(name, metric=metric) for name in names}
    return ConfirmedTrial(number=number, seeds={str(refit.params[SEED]): metrics})


def _is_of(trial: Trial, *, point: RefitPoint) -> bool:
    params = {path: value for path, value in point.params.items() if path != SEED}
    return (trial.params, trial.overrides) == (params, point.overrides)


def _without_reserve(clock: Clock | None) -> Clock | None:
    return None if clock is None else replace(clock, kept=lambda trials: 0.0)


def _confirming(refits: Sequence[Trial], *, spec: SearchSpec) -> list[Trial]:
    """The refits with the seed that confirms; those with others are a promotion's, which no budget counts."""
    return [trial for trial in refits if trial.params[SEED] == _seed(spec)]


def _seed(spec: SearchSpec) -> int:
    """The seed of the refits: the first that a promotion asks for too, so that it finds them."""
    return fresh_seed(spec, index=0)
