"""When a search begins no more: what its budget allows, and what of it is kept for the end."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from search.engine.audit import Audited
from search.engine.clock import Clock
from search.engine.confirming import Confirming
from search.engine.history import History


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When no more is begun: trials in all, epochs in all, GPU-hours in all, and what does not fit into a ``clock``'s time.

    ``gpus`` is what an hour of a trial counts for; ``max_failures`` how often a trial survives an error of its own,
    ``max_losses`` the loss of its worker;
    ``constraints`` the most that a configuration's network may take, by names of ``metrics.MEASURES``; ``confirming`` what is
    kept of epochs and GPU-hours for training the last candidates once more; ``tolerance`` the improvement below which the rest
    of the budget is not spent.
    """

    trials: int | None = None
    epochs: int | None = None
    gpu_hours: float | None = None
    clock: Clock | None = None
    gpus: float = 1.0
    max_failures: int = 3
    max_losses: int = 20
    constraints: Mapping[str, float] = field(default_factory=dict)
    confirming: Confirming | None = None
    tolerance: float | None = None

    def trials_left(self, trials: History, *, at_once: int) -> int:
        """How many more trials the rest of the budget allows, of what those so far took on average."""
        begun = max(1, trials.num_searched)
        bounds = [] if self.trials is None else [float(self.trials - trials.num_searched)]
        each = trials.seconds() / begun
        if self.epochs is not None:
            left = self.epochs - self._epochs_kept(self.epochs) - trials.num_epochs
            bounds.append(left * begun / max(1, trials.num_epochs))
        if self.work_seconds is not None and each:
            spendable = self.work_seconds - self._seconds_kept(trials, budget=self.work_seconds)
            bounds.append(spendable * begun / trials.gpu_seconds() - begun)
        if self.clock is not None and each:
            bounds.append(self.clock.left(trials) * at_once / each)
        return max(0, math.ceil(min(bounds, default=0.0)))

    def is_compute_spent(self, trials: History, *, audited: Audited | None = None) -> bool:
        """Whether epochs or GPU-hours are spent, but for what is kept; with a rule that audits also but for its audits."""
        if self.epochs is not None:
            audits = 0.0 if audited is None else audited.epochs_kept(trials, budget=self.epochs)
            if trials.num_epochs + self._epochs_kept(self.epochs) + audits >= self.epochs:
                return True
        budget = self.work_seconds
        if budget is None:
            return False
        share = trials.mean_share()
        seconds = 0.0 if audited is None else share * audited.seconds_kept(trials, budget=budget / share)
        return trials.gpu_seconds() + self._seconds_kept(trials, budget=budget) + seconds >= budget

    @property
    def bounds_compute(self) -> bool:
        """Whether the budget is one of compute, which ends a search whatever is left to try."""
        return self.clock is not None or self.epochs is not None or self.gpu_hours is not None

    @property
    def work_seconds(self) -> float | None:
        """``gpu_hours`` as :meth:`History.gpu_seconds` of all trials; None without a bound."""
        return None if self.gpu_hours is None else self.gpu_hours * 3600 / self.gpus

    def _epochs_kept(self, budget: int) -> int:
        return 0 if self.confirming is None else self.confirming.epochs_kept(budget=budget)

    def _seconds_kept(self, trials: History, *, budget: float) -> float:
        """Of the GPU's seconds; what they are forecast from are seconds of work."""
        share = trials.mean_share()
        return (
            0.0 if self.confirming is None else share * self.confirming.work_seconds_kept(trials, budget=budget / share)
        )
