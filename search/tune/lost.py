"""What Ray's error says of a worker that failed, in our words."""

from ray import exceptions

from search.engine.failure import Failure
from trainable.terminal import unstyled

# What takes a worker from outside. An error of the code it runs comes as the cause of a RayTaskError.
OF_MACHINE = (
    exceptions.RayActorError,
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.OutOfMemoryError,
    exceptions.OutOfDiskError,
    exceptions.ObjectLostError,
    exceptions.OwnerDiedError,
    exceptions.RaySystemError,
)


def failure_of(error: Exception | None) -> Failure:
    """The failure that an error of Ray's tells of; None is a worker of which nothing more is known."""
    if error is None:
        return Failure(reason="the worker was lost", of_machine=True)
    cause = getattr(error, "cause", None) or error
    of_machine = isinstance(cause, OF_MACHINE) and not getattr(cause, "actor_init_failed", False)
    lines = [line.strip() for line in unstyled(str(cause)).splitlines() if line.strip()]
    kind = "the host has no memory left" if isinstance(cause, exceptions.OutOfMemoryError) else type(cause).__name__
    return Failure(
        reason=f"{kind}: {lines[-1]}" if lines else kind,
        of_machine=of_machine,
        details=unstyled(getattr(error, "traceback_str", None) or str(error)),
    )
