"""Which trials keep their checkpoints while a search goes on: those that can still be continued, averaged or chosen."""

import math
import shutil
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from search.engine.audit import is_drawn
from search.ledger.files import KEPT_TRIALS, checkpoint_folder, tidy
from search.ledger.trials import Trial, leaders
from search.space.spec import SearchSpec


class Keeper:
    """Deletes checkpoints that nothing can ask for any more, so that their number has a bound whatever the trials'.

    Of trials that have ended the best ``KEPT_TRIALS`` keep theirs; of those that wait at a rung as many as can pass it in a
    search of this size, of twice the trials so far where nothing bounds them. One that is asked for all the same,
    since the search was enlarged, begins anew and comes to the same epochs. Those that an audit may train on keep theirs, and
    probes.
    """

    def __init__(self, folder: Path, *, spec: SearchSpec, trials: Iterable[Trial]) -> None:
        self._folder, self._metric = folder, spec.search.metric
        self._chosen_by_several = bool(spec.search.choose_by)
        self._trials, self._reduction = spec.search.trials, spec.scheduler.reduction
        self._is_drawn = partial(is_drawn, share=spec.scheduler.audit, seed=spec.search.seed)
        begun = list(trials)
        self._num_begun = len(begun)
        self._held = {trial.number: trial for trial in begun if checkpoint_folder(folder, trial.number).is_dir()}

    def changed(self, trial: Trial) -> None:
        """Hear of a trial whose record changed."""
        self._num_begun = max(self._num_begun, trial.number + 1)
        self._held[trial.number] = trial
        if trial.state != "RUNNING":
            tidy(self._folder, trial, metric=self._metric)
            self._let_go(self._ended(), most=KEPT_TRIALS)
        elif trial.last_epoch >= trial.target:
            for waiting in self._waiting().values():
                self._let_go(waiting, most=self._most_waiting())

    def _most_waiting(self) -> int:
        """How many can pass a rung; without a bound of trials, of twice as many as there are now."""
        trials = 2 * self._num_begun if self._trials is None else self._trials
        return max(KEPT_TRIALS, math.ceil(trials / self._reduction))

    def _ended(self) -> list[Trial]:
        """Trials that have ended but probes, which the final candidate is compared with; finalists are left out, too, where
        several metrics choose among them at the end.
        """
        ended = [trial for trial in self._held.values() if trial.state != "RUNNING" and trial.is_searched]
        return [trial for trial in ended if not (self._chosen_by_several and trial.state == "COMPLETE")]

    def _waiting(self) -> dict[int, list[Trial]]:
        waiting: dict[int, list[Trial]] = defaultdict(list)
        for trial in self._held.values():
            if trial.state == "RUNNING" and trial.last_epoch >= trial.target and not self._is_drawn(trial.number):
                waiting[trial.last_epoch].append(trial)
        return waiting

    def _let_go(self, trials: list[Trial], *, most: int) -> None:
        """Keep the best of some trials."""
        if len(trials) <= most:
            return
        kept = {trial.number for trial in leaders(trials, metric=self._metric)[:most]}
        for trial in trials:
            if trial.number not in kept:
                shutil.rmtree(checkpoint_folder(self._folder, trial.number), ignore_errors=True)
                del self._held[trial.number]
