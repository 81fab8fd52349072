"""Sends a piece of work to a worker and waits for what it says."""

import logging
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayTaskError

from search.tune.place import Place
from search.tune.tasks import run_task
from search.tune.waiting import SECONDS_BETWEEN, never_fits, waiting_text
from trainable.errors import OutageError, UserError

logger = logging.getLogger(__name__)


def submit(function: Callable[..., Any], *args: Any, place: Place, **kwargs: Any) -> Callable[[], Any]:
    """Call a function of :mod:`search.tune.tasks` on a worker; gives a call that waits for its result.

    That call raises the UserError or OutageError that the function raised.
    """
    remote = ray.remote(num_cpus=place.cpu, num_gpus=place.gpu, max_retries=2)(run_task)
    reference = remote.remote(
        function, *args, threads=place.threads, fingerprints=place.fingerprints, directory=place.directory, **kwargs
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

    return result
