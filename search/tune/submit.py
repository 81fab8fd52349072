"""Sends a piece of work to a worker and waits for what it says."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import ray
from ray.exceptions import RayTaskError

from search.tune.lost import OF_MACHINE, failure_of
from search.tune.place import Place
from search.tune.waiting import SECONDS_BETWEEN, never_fits, waiting_text
from trainable.data.image_guard import Fingerprints, held_to
from trainable.errors import OutageError, UserError

# The functions of tune/tasks that are sent; the module itself is loaded on workers alone, since it loads what computes.
TaskName = Literal[
    "averageable",
    "backbone_outlooks",
    "backbone_score",
    "baseline_score",
    "domain_picture",
    "examined",
    "finish_of",
    "prepared",
    "probe_scores",
    "run_step",
    "solved_trial",
    "soup_of",
    "test_score",
]
logger = logging.getLogger(__name__)


def submit(task: TaskName, *args: Any, place: Place, **kwargs: Any) -> Callable[[], Any]:
    """Call the function of :mod:`search.tune.tasks` that is called ``task`` on a worker; gives a call that waits for its result.

    That call raises the UserError or OutageError that the function raised, and OutageError where its worker or Ray is lost.
    """
    remote = ray.remote(num_cpus=place.cpu, num_gpus=place.gpu, max_retries=2)(run_task)
    reference = remote.remote(
        task, *args, threads=place.threads, fingerprints=place.fingerprints, directory=place.directory, **kwargs
    )

    def result() -> Any:
        try:
            while not ray.wait([reference], timeout=SECONDS_BETWEEN)[0]:
                if never_fits(place):
                    logger.warning(waiting_text(place))
            return ray.get(reference)
        except RayTaskError as error:  # whose message is a traceback
            if isinstance(error.cause, UserError | OutageError):
                raise error.cause from None
            raise
        except OF_MACHINE as error:
            raise OutageError(
                f"{failure_of(error).reason}; every finished epoch is kept, the same command goes on"
            ) from error

    return result


def run_task(
    task: TaskName, *args: Any, threads: int, fingerprints: Fingerprints, directory: str, **kwargs: Any
) -> Any:
    """Call a function of tune/tasks here, in a directory, with so many CPU threads, on no other images than these."""
    import torch

    from search.tune import leg, tasks

    leg.enter(directory)
    torch.set_num_threads(threads)
    with held_to(fingerprints):
        return getattr(tasks, task)(*args, **kwargs)
