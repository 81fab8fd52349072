"""What still fits into a time by the clock: pure arithmetic, for which the time is handed in."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from search.engine.history import History
from search.engine.rule import Continue, Rule, Start
from search.ledger.notes import Stretch
from search.ledger.trials import EpochRecord, Trial, leaders
from search.space.values import Value

# What decides what frozen layers make of the images, by how paths begin.
DECIDE_OUTPUTS = (
    "data.",
    "model.",
    "augment.",
    "freeze.",
    "finetune.strategy",
    "finetune.trainable",
    "finetune.schedule",
)
FEW = 4  # trials whose epochs do not tell yet what an epoch takes
RECENT = 50  # trials that a forecast looks at, so that a decision costs no more in a large search
STRETCHES = 20  # stretches of work that a ledger tells apart
FINISHING_SECONDS = 8.0  # to begin the last pieces of work, to draw the page, to end the workers: measured on two cores
FINALISTS_SHARE = 0.5  # of the time asked for, which is kept at most for training the best to the end
SECONDS_BETWEEN_NOTES = 10.0
SHARE_BETWEEN_NOTES = 0.01  # of a stretch: the number of its notes grows with the logarithm of its length


@dataclass(frozen=True, kw_only=True)
class Clock:
    """A time by the clock in which a search is to end, with what comes after its trials.

    ``spent_seconds`` says how much of ``asked_seconds`` is over now, ``num_evaluations`` how many networks are measured
    when every trial is decided: those of the soup, its finish, the test, the winner again, its baselines. ``pass_share`` is how
    many images pass the whole network then, as a share of those that trials see: of them nothing is kept. ``kept`` gives the
    seconds, by the trials so far, that other training takes then.
    """

    asked_seconds: float
    spent_seconds: Callable[[], float]
    num_evaluations: int
    pass_share: float = 0.0
    kept: Callable[[Sequence[Trial]], float] = field(default=lambda trials: 0.0)

    def left(self, trials: Sequence[Trial]) -> float:
        """Seconds left for training."""
        finishing = finishing_seconds(trials, evaluations=self.num_evaluations, pass_share=self.pass_share)
        return self.asked_seconds - self.spent_seconds() - finishing - self.kept(trials)

    def has_epoch(self, trials: History, *, number: int, besides: float = 0.0) -> bool:
        """Whether the next epoch of a trial ends in time; of the first of a search nothing is known but that time is left.

        ``besides`` are seconds that are kept for others.
        """
        return self.left(trials) - besides >= (epoch_seconds(trials[number]) or typical_epoch_seconds(trials) or 0.0)

    def has_leg(
        self,
        action: Start | Continue,
        *,
        trials: History,
        rule: Rule,
        running: frozenset[int],
        besides: float = 0.0,
    ) -> bool:
        """Whether a leg ends in time, and a worker is free early enough for what is owed to the finalists."""
        typical = typical_epoch_seconds(trials) or 0.0
        leg = leg_seconds(action, trials=trials, typical=typical)
        at_work = [_seconds_to(trials[number], until=trials[number].target, typical=typical) for number in running]
        owed = min(
            finalists_seconds(trials, rule=rule, running=running, beginning=action),
            FINALISTS_SHARE * self.asked_seconds,
        )
        return self.left(trials) - besides >= max(leg, min([leg, *at_work]) + owed)


def spent(stretches: Iterable[Stretch]) -> float:
    """Seconds in which a search was at work."""
    return sum(stretch.seconds for stretch in stretches)


def stretches_before(stretches: Sequence[Stretch], *, trials: Iterable[Trial]) -> tuple[Stretch, ...]:
    """The stretches of work of processes that are over, the oldest of many as one.

    A process that was killed was at work at least until its last record of an epoch.
    """
    if not stretches:
        return ()
    *earlier, last = stretches
    recorded = [trial.epochs[-1].recorded.timestamp() for trial in trials if trial.epochs]
    seconds = max([last.seconds, *(moment - last.began for moment in recorded)])
    closed = [*earlier, replace(last, seconds=seconds)]
    while len(closed) > STRETCHES:
        first, second, *others = closed
        closed = [replace(first, seconds=first.seconds + second.seconds), *others]
    return tuple(closed)


def seconds_to_next_note(stretch_seconds: float) -> float:
    """How long a stretch of work may last on before its length is noted again."""
    return max(SECONDS_BETWEEN_NOTES, SHARE_BETWEEN_NOTES * stretch_seconds)


def epoch_seconds(trial: Trial) -> float | None:
    """What the next epoch of a trial takes: the longer of its last two, the first left out, which also begins things.

    Once it has seen every view of its images, of which what frozen layers make is kept, these have nothing more to compute.
    """
    last = trial.epochs[-2:] if len(trial.epochs) > 2 else trial.epochs[-1:]
    taken = _own_seconds if _are_outputs_kept(trial) else _seconds
    checkpoints = [epoch.metrics.get("usage/checkpoint_seconds", 0.0) for epoch in last]
    return max((taken(epoch) + extra for epoch, extra in zip(last, checkpoints, strict=True)), default=None)


def _are_outputs_kept(trial: Trial) -> bool:
    """Whether the outputs of frozen layers for all views of a trial have been made, in a store from which some were read."""
    if not trial.epochs:
        return False
    metrics = trial.epochs[-1].metrics
    return (
        trial.last_epoch >= metrics.get("usage/views", math.inf) and metrics.get("usage/prefix_saved_seconds", 0.0) > 0
    )


def _seconds(epoch: EpochRecord) -> float:
    return epoch.metrics.get("usage/seconds", 0.0)


def _own_seconds(epoch: EpochRecord) -> float:
    """Seconds of an epoch without those in which frozen layers were computed, or waited for."""
    shared = epoch.metrics.get("usage/prefix_seconds", 0.0) + epoch.metrics.get("usage/waiting_seconds", 0.0)
    return max(0.0, _seconds(epoch) - shared)


def typical_epoch_seconds(trials: Sequence[Trial]) -> float | None:
    """The median of the last trials' epochs; None before the first of all.

    While few are measured, an epoch is taken to be no quicker than a probe, which passes every image through the whole network,
    as the first epoch behind other layers or of other views has to.
    """
    recent = [(trial, seconds) for trial in trials[-RECENT:] if (seconds := epoch_seconds(trial)) is not None]
    searched = [seconds for trial, seconds in recent if trial.is_searched]
    if len(searched) >= FEW:
        return median(searched)
    probes = [seconds for trial, seconds in recent if not trial.is_searched]
    return max([*probes, *([median(searched)] if searched else [])], default=None)


def leg_seconds(action: Start | Continue, *, trials: History, typical: float) -> float:
    """How long a leg takes that begins now; ``typical`` is what an epoch takes of a trial that has none.

    A new trial's first epoch is taken for what an epoch took, beside frozen layers, of trials that begin behind the same ones,
    whose outputs are kept; where there are none for as long as any first epoch, since every image may have to pass them.
    """
    start = start_seconds(trials)
    if isinstance(action, Start):
        alike = _trials_behind_the_same(action.params, trials=trials)
        first = (
            median(_own_seconds(trial.epochs[-1]) for trial in alike)
            if alike
            else max(typical, _longest_first_epoch(trials))
        )
        return start + first + (action.until - 1) * typical
    return start + _seconds_to(trials[action.number], until=action.until, typical=typical)


def start_seconds(trials: Sequence[Trial]) -> float:
    """What it takes to start a leg."""
    return _median_of(trials, "usage/start_seconds")


def _trials_behind_the_same(params: Mapping[str, Value] | None, *, trials: Sequence[Trial]) -> list[Trial]:
    """The last trials with an epoch that share all values that decide what frozen layers make of the images."""
    return [
        trial
        for trial in trials[-RECENT:]
        if params is not None and trial.is_searched and trial.epochs and _deciding(trial.params) == _deciding(params)
    ]


def _deciding(params: Mapping[str, Value]) -> dict[str, Value]:
    return {path: value for path, value in params.items() if path.startswith(DECIDE_OUTPUTS)}


def _longest_first_epoch(trials: Sequence[Trial]) -> float:
    """Seconds of the longest first epoch of the last trials; 0 before the first."""
    return max((_seconds(trial.epochs[0]) for trial in trials[-RECENT:] if trial.epochs), default=0.0)


def finalists_seconds(
    trials: History, *, rule: Rule, running: frozenset[int], beginning: Start | Continue | None = None
) -> float:
    """What it takes to train as many as are owed to the end, once all that is at work has reached its target.

    The trials that have come furthest are taken, the best of them first, as the scheduler does. ``beginning`` is the leg of which
    it is asked whether it may begin.
    """
    end = rule.rungs[-1]
    targets = {number: trials[number].target for number in running}
    if isinstance(beginning, Continue):
        targets[beginning.number] = beginning.until
    owed = rule.finalists - trials.num_complete - sum(target == end for target in targets.values())
    if owed <= 0:
        return 0.0
    reached = {number: max(targets.get(number, 0), trials[number].last_epoch) for number in trials.unfinished}
    measured = [trials[number] for number, epoch in reached.items() if trials[number].epochs and epoch < end]
    best_first = leaders(measured, metric=rule.metric)
    nearest = sorted(best_first, key=lambda trial: -reached[trial.number])[:owed]
    seconds = [(end - reached[trial.number]) * (epoch_seconds(trial) or 0.0) for trial in nearest]
    return max(max(seconds, default=0.0), sum(seconds) / (len(running) + 1))


def finishing_seconds(trials: Sequence[Trial], *, evaluations: int, pass_share: float) -> float:
    """What is kept for the soup, its finish, the test score and the page of a search."""
    evaluating = evaluations * _median_of(trials, "usage/evaluation_seconds")
    return FINISHING_SECONDS + evaluating + pass_share * _pass_seconds(trials)


def _pass_seconds(trials: Sequence[Trial]) -> float:
    """What frozen layers take for all images of a trial: computed in its last epoch, or saved by what is kept of them."""
    last = [trial.epochs[-1].metrics for trial in trials[-RECENT:] if trial.epochs]
    names = ("usage/prefix_seconds", "usage/prefix_saved_seconds")  # one that fills what is kept counts as both
    return max((metrics.get(name, 0.0) for metrics in last for name in names), default=0.0)


def _seconds_to(trial: Trial, *, until: int, typical: float) -> float:
    return max(0, until - trial.last_epoch) * (epoch_seconds(trial) or typical)


def _median_of(trials: Sequence[Trial], name: str) -> float:
    """The median of a metric of the last trials' last epochs; 0 where none has it."""
    last = [trial.epochs[-1].metrics for trial in trials[-RECENT:] if trial.epochs]
    values = [metrics[name] for metrics in last if name in metrics]
    return median(values) if values else 0.0
