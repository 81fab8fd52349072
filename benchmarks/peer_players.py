"""Peers for search_quality.py that need packages of their own: DEHB and Syne Tune.

    pip install dehb 'syne-tune[basic]' dill      # in an environment of their own, which has this project too

A method whose package is not there is skipped, and said to be.
"""

import random
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
from search_players import Player, Work
from search_tables import Params, Task

from search.space.dimension import Choice
from trainable.metrics import DIRECTIONS

METRIC, EPOCH = "value", "epoch"


class OfDehb:
    """DEHB (Awad et al. 2021) by ask and tell: every evaluation is a training of its own, from its start to its fidelity."""

    def __init__(self, task: Task, *, seed: int) -> None:
        from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer
        from dehb import DEHB

        space = ConfigurationSpace(seed=seed)
        for path, dimension in task.space.dimensions.items():
            if isinstance(dimension, Choice):
                space.add(Categorical(path, [str(index) for index in range(len(dimension.members))]))
            else:
                kind = Integer if dimension.whole else Float
                space.add(kind(path, (dimension.low, dimension.high), log=dimension.log))
        self._task, self._sign = task, -1.0 if DIRECTIONS[task.metric] == "maximize" else 1.0
        self._folder = tempfile.TemporaryDirectory(prefix="dehb-")  # for its logs, gone with the player
        self._search = DEHB(
            cs=space,
            min_fidelity=1,
            max_fidelity=task.epochs,
            eta=3,
            seed=seed,
            n_workers=1,
            output_path=self._folder.name,
            save_freq=None,
            log_level="ERROR",
        )
        self._jobs: list[dict[str, Any]] = []

    def work(self, *, may_begin: bool) -> Work | None:
        """The next evaluation, as long as there may be one."""
        if not may_begin:
            return None
        self._jobs.append(self._search.ask())
        return Work(len(self._jobs) - 1, params_of(dict(self._jobs[-1]["config"]), task=self._task))

    def hear(self, number: int, *, epoch: int, value: float, seconds: float | None) -> bool:
        """Train to the fidelity that was asked for, and tell its value."""
        job = self._jobs[number]
        if epoch < max(1, round(float(job["fidelity"]))):
            return True
        self._search.tell(job, {"fitness": self._sign * value, "cost": seconds or 1.0})
        return False


class OfSyneTune:
    """Syne Tune's asynchronous successive halving with one of its searchers, called as its tuner does."""

    def __init__(self, task: Task, *, seed: int, scheduler: str) -> None:
        from syne_tune.optimizer import baselines

        random.seed(seed)
        np.random.seed(seed)
        self._task = task
        self._search = getattr(baselines, scheduler)(
            syne_space(task),
            metric=METRIC,
            time_attr=EPOCH,
            max_t=task.epochs,
            do_minimize=DIRECTIONS[task.metric] == "minimize",
            random_seed=seed,
        )
        self._trials: list[Any] = []

    def work(self, *, may_begin: bool) -> Work | None:
        """A new trial, as long as there may be one."""
        from datetime import datetime

        from syne_tune.backend.trial_status import Trial

        if not may_begin:
            return None
        config = self._search.suggest().config
        trial = Trial(trial_id=len(self._trials), config=config, creation_time=datetime.min)
        self._trials.append(trial)
        self._search.on_trial_add(trial)
        return Work(trial.trial_id, params_of(config, task=self._task))

    def hear(self, number: int, *, epoch: int, value: float, seconds: float | None) -> bool:
        """Go on until the scheduler says no."""
        trial, result = self._trials[number], {METRIC: value, EPOCH: epoch}
        if epoch == self._task.epochs:
            self._search.on_trial_complete(trial, result)
            return False
        if self._search.on_trial_result(trial, result) == "CONTINUE":
            return True
        self._search.on_trial_remove(trial)
        return False


def syne_space(task: Task) -> dict[str, Any]:
    """The task's space as Syne Tune writes one."""
    from syne_tune import config_space

    space: dict[str, Any] = {}
    for path, dimension in task.space.dimensions.items():
        if isinstance(dimension, Choice):
            space[path] = config_space.choice([str(index) for index in range(len(dimension.members))])
            continue
        low, high = (int(dimension.low), int(dimension.high)) if dimension.whole else (dimension.low, dimension.high)
        name = ("log" if dimension.log else "") + ("randint" if dimension.whole else "uniform")
        space[path] = getattr(config_space, name)(low, high)
    return space


def params_of(config: Mapping[str, Any], *, task: Task) -> Params:
    """Values of our space from those of a peer, which knows the members of a choice by their numbers."""
    params: dict[str, Any] = {}
    for path, dimension in task.space.dimensions.items():
        value = config[path]
        if isinstance(dimension, Choice):
            params[path] = dimension.members[int(value)]
        else:
            params[path] = int(value) if dimension.whole else float(value)
    return params


def _syne_tune(scheduler: str) -> Any:
    return lambda task, seed: OfSyneTune(task, seed=seed, scheduler=scheduler)


MAKERS: dict[str, tuple[str, Any]] = {
    "dehb": ("dehb", lambda task, seed: OfDehb(task, seed=seed)),
    "syne-tune:asha": ("syne_tune", _syne_tune("ASHA")),
    "syne-tune:asha-cqr": ("syne_tune", _syne_tune("ASHACQR")),
    "syne-tune:asha-bore": ("syne_tune", _syne_tune("ASHABORE")),
    "syne-tune:bohb": ("syne_tune", _syne_tune("BOHB")),
}


def is_there(method: str) -> bool:
    """Whether this is one of these methods, and its package is installed."""
    return method in MAKERS and find_spec(MAKERS[method][0]) is not None


def make_peer(method: str, task: Task, *, seed: int) -> Player:
    """Make the player of one of these methods."""
    return MAKERS[method][1](task, seed)  # type: ignore[no-any-return]
