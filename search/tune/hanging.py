"""Ends workers that have reported nothing for too long."""

import logging
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray._private import state
from ray.tune.experiment import Trial as TuneTrial
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.engine.failure import Failure

logger = logging.getLogger(__name__)

AT_WORK = (TuneTrial.RUNNING, TuneTrial.PENDING)  # which is also one whose worker is being made ready for it


class Hanging:
    """Knows by Tune's names when each leg was heard of last, and kills the worker of one that stays silent.

    Without ``limit_seconds`` it does nothing.
    """

    def __init__(self, limit_seconds: float | None, *, now: Callable[[], float] = time.monotonic) -> None:
        self._limit, self._now = limit_seconds, now
        self._heard: dict[str, float] = {}
        self._failures: dict[str, Failure] = {}

    def hear(self, trial_id: str) -> None:
        """The leg has begun, or reported."""
        self._heard[trial_id] = self._now()

    def reason(self, trial_id: str) -> Failure | None:
        """Why this ended the leg's worker, told once; None where it did not."""
        return self._failures.pop(trial_id, None)

    def overdue(self, trial_ids: Iterable[str]) -> list[str]:
        """Which legs are silent for longer than is allowed, each told once."""
        if self._limit is None:
            return []
        now = self._now()
        late = [one for one in trial_ids if now - self._heard.setdefault(one, now) > self._limit]
        for one in late:
            self._heard.pop(one)
            reason = f"no epoch within {self._limit / 60:g} minutes (search.epoch_limit_minutes)"
            self._failures[one] = Failure(reason=reason, of_machine=False)
        return late

    def look(self, trials: Iterable[TuneTrial]) -> None:
        """End the workers that are overdue; Tune hears of their end as of any other's."""
        at_work = {trial.trial_id: trial.temporary_state.ray_actor for trial in trials if trial.status in AT_WORK}
        for trial_id in self.overdue(one for one, actor in at_work.items() if actor is not None):
            logger.warning("a worker is ended: %s", self._failures[trial_id].reason)
            end_process(at_work[trial_id])


def end_process(actor: Any) -> None:
    """Kill the process of an actor by a task on its node: one that hangs does not answer when Ray asks it to end."""
    facts = state.actors(actor._ray_actor_id.hex())
    on_its_node = NodeAffinitySchedulingStrategy(node_id=facts["Address"]["NodeID"], soft=False)
    ray.remote(num_cpus=0)(_kill).options(scheduling_strategy=on_its_node).remote(facts["Pid"])


def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
