"""How far the trials of a search go: the scheduler's rule played out with invented values."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from functools import lru_cache

from search.engine.history import History
from search.engine.rule import Budget, Close, Continue, Finish, Rule, Start
from search.ledger.trials import EpochRecord, State, Trial

TRIALS_PLAYED = 1000  # in all plays together, so that they take a tenth of a second


@lru_cache(maxsize=8)
def expected_trials(rule: Rule, *, num_trials: int) -> dict[int, int]:
    """How many of ``num_trials`` reach each rung when none fails or ends early: the rounded mean of some plays.

    Trials beyond ``TRIALS_PLAYED`` are not played: of them the rule's shares go on. Of those that are more do in halving: a
    trial is judged among those that came before it, and later ones can be better.
    """
    rule = rule.outline
    played = min(num_trials, TRIALS_PLAYED)
    num_plays = TRIALS_PLAYED // played
    plays = [_play(rule, num_trials=played, seed=seed) for seed in range(num_plays)]
    owed = min(rule.finalists, num_trials)
    reached = {}
    for rung, share in zip(rule.rungs, rule.shares, strict=True):
        mean = sum(last >= rung for play in plays for last in play) / num_plays
        judged = mean if played == num_trials or mean > rule.finalists else played * share
        reached[rung] = max(owed, round(judged + (num_trials - played) * share))
    return reached


def expected_epochs(rule: Rule, *, num_trials: int) -> int:
    """Epochs that a search of ``num_trials`` takes when none fails or ends early."""
    reaching, before, epochs = expected_trials(rule, num_trials=num_trials), 0, 0
    for rung, count in reaching.items():
        epochs += (rung - before) * count
        before = rung
    return epochs


def trials_within(rule: Rule, *, epochs: int) -> int:
    """The most trials that take no more than so many epochs, at least one."""
    least, most = 1, 2
    while expected_epochs(rule, num_trials=most) <= epochs:
        least, most = most, 2 * most
    while most - least > 1:
        middle = (least + most) // 2
        fits = expected_epochs(rule, num_trials=middle) <= epochs
        least, most = (middle, most) if fits else (least, middle)
    return least


def _play(rule: Rule, *, num_trials: int, seed: int) -> list[int]:
    """The last epoch of every trial of one search with one worker, in which a trial has one value all along."""
    chance, trials = random.Random(seed), History()
    while True:
        budget: Budget = "open" if len(trials) < num_trials else "trials spent"
        match rule.next_action(trials, running=frozenset(), budget=budget):
            case Start(until):
                trials.change(_reaching(rule, number=len(trials), value=chance.random(), until=until))
            case Continue(number, until):
                value = next(iter(trials[number].epochs[0].metrics.values()))
                trials.change(_reaching(rule, number=number, value=value, until=until))
            case Close(number, _):
                trials.change(replace(trials[number], state="PRUNED"))
            case Finish() | _:
                return [trial.last_epoch for trial in trials]


def _reaching(rule: Rule, *, number: int, value: float, until: int) -> Trial:
    """A trial that has come to an epoch, with a record at each rung on its way."""
    epochs = tuple(
        EpochRecord(number=rung, metrics={rule.metric: value}, recorded=datetime.min.replace(tzinfo=UTC))
        for rung in rule.rungs
        if rung <= until
    )
    state: State = "COMPLETE" if until == rule.rungs[-1] else "RUNNING"
    return Trial(number=number, params={}, state=state, epochs=epochs, target=until, origin="")
