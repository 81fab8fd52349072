"""Who goes on: the trial, or the new configuration, whose curve promises most improvement for its seconds.

A freeze-thaw policy (Swersky et al. 2014): trials rest at closely spaced rungs, and a model of their curves says at every
decision which one to train on or what to begin. The horizon at which improvement is expected is drawn anew for each decision (as
ifBO does, Rakotoarison et al. 2024), and every fourth decision is successive halving's own, in case the model is wrong. What is
known beforehand weighs new points by its density, the less the more results there are (πBO, Hvarfner et al. 2022).
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import NormalDist, median
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from search.engine.coordinates import Coordinates
from search.engine.cost import epoch_seconds, forecast_seconds
from search.engine.curves import CurveModel, Rows, fit_curves
from search.engine.halving import Halving
from search.engine.history import History
from search.engine.priors import Priors
from search.engine.prospect import LEAST_TRIALS, STEPS, integral_of_best, searched_costs
from search.engine.rule import Action, Budget, Continue, Start, Wait, interrupted, wind_down
from search.ledger.trials import Trial
from search.space.sections import thirds_of_rungs
from search.space.space import Space
from trainable.metrics import DIRECTIONS
from trainable.seeds import derive

Floats = NDArray[np.float64]

HALVINGS_SHARE = 0.25  # of the decisions
MOST_ROWS = 160  # epochs that the model is fitted to
NUM_DRAWN, NUM_NEAR, NUM_BEST = 256, 64, 8  # new points looked at: drawn, near to the best trials; how many those are
PRIORS_DRAWN = 0.5  # of the drawn points, those drawn by the priors, where there are any
PRIORS_RESULTS = 10.0  # with so many results the density counts as it is; with n by the power of this over n
LEAST_DISTANCE = 0.02  # of a new point to those tried, times the root of the number of paths
UPPER = 0.75  # from which quantile of the records up a score's worth is measured
REACH = 6.0  # deviations that are looked at beyond a forecast
LEG_SECONDS = 0.5  # what beginning a leg takes, where seconds are measured


@dataclass(frozen=True, kw_only=True)
class FreezeThaw:
    """Rungs at a third of the distances of ``outline``, whose promotions are among the decisions.

    The model decides once there are ``startup`` results.
    """

    outline: Halving
    startup: int
    cost: Literal["seconds", "epochs"]
    seed: int
    space: Space = field(hash=False)

    @property
    def metric(self) -> str:
        """What trials are compared by."""
        return self.outline.metric

    @property
    def finalists(self) -> int:
        """How many trials are trained to the end whatever their values."""
        return self.outline.finalists

    @property
    def rungs(self) -> tuple[int, ...]:
        """Epochs at which a trial rests until it is chosen again, the last being the end of training."""
        halving = self.outline
        return thirds_of_rungs(halving.min_epochs, max_epochs=halving.max_epochs, reduction=halving.reduction)

    @property
    def shares(self) -> tuple[float, ...]:
        """As in halving, in which a trial at some epoch is one in so many; what the model asks for depends on the values."""
        return tuple(min(1.0, self.outline.min_epochs / rung) for rung in self.rungs)

    def next_action(self, trials: Sequence[Trial], *, running: frozenset[int], budget: Budget) -> Action:
        """Decide what a free worker does next; ``running`` are the trials at work now.

        While there is compute, but no new trial can begin, the most promising known ones go on. Without budget for trials those
        do that halving promotes, without compute the best until ``finalists`` are trained in full.
        """
        history = History.of(trials)
        unfinished = interrupted(history, running=running)
        if unfinished is not None:
            return unfinished
        if budget == "open":
            return self._chosen(history, running=running)
        if budget == "known trials" and (continued := self._continued(history, running=running)) is not None:
            return continued
        promoted = None if budget == "compute spent" else self._promoted(history, running=running)
        if promoted is not None:
            return promoted
        return wind_down(
            history, rule=self, running=running, spare=budget != "compute spent", reason="not the most promising"
        )

    def expected_gain(self, trials: Sequence[Trial], *, running: frozenset[int], num_trials: int) -> float | None:
        """What the model promises of training so many of its best candidates, known ones or new, to the end.

        Candidates are taken for independent, which promises no less than what they are (Slepian 1962).
        """
        history = History.of(trials)
        costs = searched_costs(history, metric=self.metric)
        is_known = sum(map(math.isfinite, costs)) >= LEAST_TRIALS and history.num_complete > 0
        if not self.space.dimensions or not is_known:
            return None
        event = derive(self.seed, "gain", len(history), sum(trial.target for trial in history))
        return _Decision(self, history=history, running=running, event=event).gain(num_trials)

    def verdict(self, trials: Sequence[Trial], *, number: int) -> Wait:
        """Let the trial rest at its rung until it is chosen again."""
        return Wait()

    def _chosen(self, history: History, *, running: frozenset[int]) -> Action:
        """The decision while there is budget for more trials: halving's turn, or the model's where it has enough results."""
        first = self.rungs[0]
        if not self._is_modelled(history):
            return Start(first)
        event = self._event(history)
        if random.Random(event).random() < HALVINGS_SHARE:
            return self._promoted(history, running=running) or Start(first)
        return _Decision(self, history=history, running=running, event=event).action() or Start(first)

    def _continued(self, history: History, *, running: frozenset[int]) -> Action | None:
        """The decision while known trials alone can be trained; None where none is open or little is known."""
        if not self._is_modelled(history):
            return None
        decision = _Decision(self, history=history, running=running, event=self._event(history))
        return decision.action(may_begin=False)

    def _is_modelled(self, history: History) -> bool:
        """Whether there are results enough for the model, and something that it could tell apart."""
        num_placed = history.ranking(self.metric, rung=self.rungs[0]).num_placed
        return bool(self.space.dimensions) and num_placed >= self.startup

    def _event(self, history: History) -> int:
        """The seed of a decision, which every record of the trials changes."""
        return derive(self.seed, "freeze_thaw", len(history), sum(trial.target for trial in history))

    def _promoted(self, history: History, *, running: frozenset[int]) -> Continue | None:
        """The best resting trial that is among the best 1/reduction of the highest rung of halving's; to the next of these."""
        for rung, following in reversed(list(pairwise(self.outline.rungs))):
            ranking = history.ranking(self.metric, rung=rung)
            for place, number in enumerate(ranking.placed()):
                if place >= ranking.num_placed // self.outline.reduction:
                    break
                trial = history[number]
                if number not in running and trial.state == "RUNNING" and trial.last_epoch < following:
                    return Continue(number, following)
        return None


class _Decision:
    """What the model says at one moment; ``event`` is the seed of whatever is drawn for it."""

    def __init__(self, rule: FreezeThaw, *, history: History, running: frozenset[int], event: int) -> None:
        self.rule = rule
        self.trials = [trial for trial in history if trial.is_searched]
        self.probes = [trial for trial in history if not trial.is_searched]
        self.running = running
        self.chance = np.random.default_rng(event)
        self.coordinates = Coordinates(rule.space)
        self.priors = Priors(rule.space) if rule.space.has_priors else None
        self.points = self.coordinates.rows([trial.params for trial in self.trials])

    def action(self, *, may_begin: bool = True) -> Action | None:
        """Train on what promises most improvement a second at the horizon, or begin it; None where there is nothing to choose."""
        resting = self._resting()
        fresh = self._new_points() if may_begin else self.points[:0]
        if not resting and not len(fresh):
            return None
        model, best = self._model()
        reached = np.array([self.trials[index].last_epoch for index in resting] + [0] * len(fresh))
        horizons = self._horizons(reached)
        means, deviations = model.predict(self._candidates(resting, fresh, epochs=horizons))
        rates = _expected_improvement(means - best, deviations) / self._seconds(resting, fresh, horizons - reached)
        rates[len(resting) :] *= self._likelihoods(fresh)
        chosen = int(np.argmax(rates))
        if chosen < len(resting):
            trial = self.trials[resting[chosen]]
            return Continue(trial.number, self._next(trial.last_epoch))
        return Start(self.rule.rungs[0], params=self.coordinates.params(fresh[chosen - len(resting)]))

    def gain(self, count: int) -> float:
        """The mean improvement by the best of the ``count`` most promising candidates, in units of the metric.

        The model's values are normal scores. Up to the best they stand for the recorded values of their ranks; beyond it nothing
        is recorded, so a score is worth there what it is worth on average from the upper quarter of the records to the best.
        """
        model, best = self._model()
        resting = self._resting()
        fresh = self._new_points()
        if count <= 0 or not (resting or len(fresh)):
            return 0.0
        ends = np.full(len(resting) + len(fresh), self.rule.rungs[-1])
        means, deviations = model.predict(self._candidates(resting, fresh, epochs=ends))
        chosen = np.argsort(-_expected_improvement(means - best, deviations), kind="stable")[:count]
        return self._worth(best) * _mean_of_best(means[chosen] - best, deviations[chosen])

    def _worth(self, best: float) -> float:
        """What one normal score is worth near the best, in units of the metric."""
        costs = self._costs(self._observations())
        scores = _normal_scores(costs)
        upper = float(np.quantile(scores, UPPER, method="inverted_cdf"))
        return float(costs[scores >= upper].max() - costs.min()) / (best - upper) if best > upper else 0.0

    def _resting(self) -> list[int]:
        """Positions of the open trials that are not at work."""
        return [
            index
            for index, trial in enumerate(self.trials)
            if trial.state == "RUNNING"
            and trial.audited_at is None
            and trial.number not in self.running
            and trial.last_epoch >= trial.target
        ]

    def _model(self) -> tuple[CurveModel, float]:
        """The model given all that is recorded and its own forecasts of what is at work; the best value recorded.

        The best is a probe's where one beats the trials, so that an improvement is one over the probe too.
        """
        seen = self._observations()
        scores = _normal_scores(self._costs(seen))
        values = scores[: len(seen)]
        indices = np.array([index for index, _, _ in seen], dtype=np.int64)
        epochs = np.array([epoch for _, epoch, _ in seen])
        model = fit_curves(self._rows(self.points[indices], epochs=epochs, trials=indices), values)
        at_work = [index for index, trial in enumerate(self.trials) if _is_at_work(trial)]
        targets = np.array([self.trials[index].target for index in at_work])
        believed = self._rows(self.points[at_work], epochs=targets, trials=np.array(at_work, dtype=np.int64))
        return model.believing(believed), float(scores.max())

    def _costs(self, seen: list[tuple[int, int, float]]) -> Floats:
        """The costs of what was seen, then those of the probes."""
        probed = [cost for cost in map(self._cost, self.probes) if not math.isnan(cost)]
        return np.array([cost for _, _, cost in seen] + probed)

    def _observations(self) -> list[tuple[int, int, float]]:
        """Trial, epoch and the best value up to it as a cost; of each trial at its rungs, the latest ones first to stay.

        A trial that failed, or whose value is no number, has the worst there is at the epoch that it came to.
        """
        ranked: list[tuple[int, int, int, float]] = []
        for index, trial in enumerate(self.trials):
            if not trial.epochs and trial.state != "FAILED":
                continue
            last = max(1, trial.last_epoch)
            epochs = sorted({last} | {rung for rung in self.rule.rungs if rung < last}, reverse=True)
            for age, epoch in enumerate(epochs):
                ranked.append((age, index, epoch, self._cost(trial, until=epoch)))
        worst = max((cost for *_, cost in ranked if not math.isnan(cost)), default=0.0)
        kept = self._most_telling(ranked)
        return [(index, epoch, worst if math.isnan(cost) else cost) for _, index, epoch, cost in kept]

    def _most_telling(self, ranked: list[tuple[int, int, int, float]]) -> list[tuple[int, int, int, float]]:
        """No more than the model can take: of each trial the latest first, of these the best half and others evenly."""
        if len(ranked) <= MOST_ROWS:
            return ranked
        latest = [row for row in ranked if row[0] == 0]
        if len(latest) <= MOST_ROWS:
            older = sorted((row for row in ranked if row[0] > 0), key=lambda row: (row[0], -row[2], row[1]))
            return latest + older[: MOST_ROWS - len(latest)]
        latest.sort(key=lambda row: (math.isnan(row[3]), row[3], row[1]))
        best, rest = latest[: MOST_ROWS // 2], latest[MOST_ROWS // 2 :]
        room = MOST_ROWS - len(best)
        return best + [rest[(place + 1) * len(rest) // room - 1] for place in range(room)]

    def _new_points(self) -> Floats:
        """Points to begin: drawn at random and near to the best trials, none too near to one that was tried."""
        costs = [(self._cost(trial), index) for index, trial in enumerate(self.trials)]
        best = [index for _, index in sorted(pair for pair in costs if not math.isnan(pair[0]))[:NUM_BEST]]
        drawn = self._drawn()
        if best:
            parents = np.resize(np.array(best), NUM_NEAR)
            drawn = np.concatenate([drawn, self.coordinates.near(self.points[parents], chance=self.chance)])
        new, tried = self.coordinates.features(drawn), self.coordinates.features(self.points)
        squares = sum(((a[:, None] - b[None]) ** 2).sum(-1) for a, b in zip(new, tried, strict=True))
        nearest = np.sqrt(np.asarray(squares)).min(axis=1, initial=math.inf)
        new_ones: Floats = drawn[nearest > LEAST_DISTANCE * math.sqrt(len(new))]
        return new_ones

    def _drawn(self) -> Floats:
        if self.priors is None:
            return self.coordinates.draw(self.chance, count=NUM_DRAWN)
        by_priors = self.priors.draw(self.chance, count=round(PRIORS_DRAWN * NUM_DRAWN))
        return np.concatenate([by_priors, self.coordinates.draw(self.chance, count=NUM_DRAWN - len(by_priors))])

    def _likelihoods(self, fresh: Floats) -> Floats:
        """What the promise of new points is multiplied by: the likeliest by 1, as that of what rests is."""
        if self.priors is None or not len(fresh):
            return np.ones(len(fresh))
        logs = self.priors.log_density(fresh)
        num_results = sum(bool(trial.epochs) for trial in self.trials)
        return np.asarray(np.exp((logs - logs.max()) * PRIORS_RESULTS / num_results))

    def _cost(self, trial: Trial, *, until: int | None = None) -> float:
        """The best value of a trial, up to an epoch, as a cost; not a number where it has none or failed."""
        value = None if trial.state == "FAILED" else trial.best(self.rule.metric, until=until)
        if value is None:
            return math.nan
        return -value if DIRECTIONS[self.rule.metric] == "maximize" else value

    def _horizons(self, reached: NDArray[np.int64]) -> NDArray[np.int64]:
        """At which epoch each candidate is judged: between its next rung and the end, evenly in logarithms."""
        share = self.chance.random()
        following = np.array([self._next(int(epoch)) for epoch in reached])
        logs = np.log(following) + share * (math.log(self.rule.rungs[-1]) - np.log(following))
        horizons: NDArray[np.int64] = np.clip(np.rint(np.exp(logs)), following, self.rule.rungs[-1]).astype(np.int64)
        return horizons

    def _next(self, epoch: int) -> int:
        return next(rung for rung in self.rule.rungs if rung > epoch)

    def _seconds(self, resting: list[int], fresh: Floats, epochs: NDArray[np.int64]) -> Floats:
        """What it takes to come to the horizons: as measured, else as forecast; or epochs, where nothing was measured."""
        measured = [epoch_seconds(trial) for trial in self.trials]
        usual = [seconds for seconds in measured if seconds is not None]
        if not usual or self.rule.cost == "epochs":
            return np.array(epochs, dtype=np.float64)
        forecast = forecast_seconds(self.trials, coordinates=self.coordinates, rows=fresh)
        each = np.array([*(measured[index] or median(usual) for index in resting), *forecast.tolist()])
        return np.asarray(each * epochs + LEG_SECONDS, dtype=np.float64)

    def _candidates(self, resting: list[int], fresh: Floats, *, epochs: NDArray[np.int64]) -> Rows:
        """Resting trials, then new points, each at an epoch."""
        numbers = np.array(resting + [len(self.trials) + index for index in range(len(fresh))], dtype=np.int64)
        return self._rows(np.concatenate([self.points[resting], fresh]), epochs=epochs, trials=numbers)

    def _rows(self, points: Floats, *, epochs: NDArray[np.int64], trials: NDArray[np.int64]) -> Rows:
        last = math.log(max(2, self.rule.rungs[-1]))
        progress = np.array([math.log(epoch) / last for epoch in epochs])
        return Rows(features=self.coordinates.features(points), progress=progress, trials=trials)


def _is_at_work(trial: Trial) -> bool:
    return trial.state == "RUNNING" and trial.audited_at is None and trial.last_epoch < trial.target


def _normal_scores(costs: Floats) -> Floats:
    """The ranks of costs as values of a normal distribution, the lowest cost the highest; equals have one value."""
    _, place, counts = np.unique(costs, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - counts / 2
    normal = NormalDist()
    scores = np.array([-normal.inv_cdf(share / len(costs)) for share in middle])
    return scores[place]


def _mean_of_best(gains: Floats, deviations: Floats) -> float:
    """The mean of what the largest of independent normal variables exceeds 0 by."""
    from scipy.special import ndtr

    points = np.linspace(0.0, max(0.0, float((gains + REACH * deviations).max())), STEPS)
    below: Floats = ndtr((points[:, None] - gains) / deviations).prod(axis=1)
    return integral_of_best((1 - below).tolist(), step=float(points[1]))


def _expected_improvement(gain: Floats, deviations: Floats) -> Floats:
    """The mean of what exceeds 0 of a normal variable (Jones et al. 1998, eq. 15)."""
    from scipy.special import ndtr

    z = gain / deviations
    improvement: Floats = gain * ndtr(z) + deviations * np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return improvement
