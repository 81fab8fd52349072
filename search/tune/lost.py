"""What Ray's error says of a worker that failed, in our words."""

import re

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
ADDRESS = re.compile(r"^\s*ip: (\S+)", re.MULTILINE)  # in what Ray says of an actor that died
NODE_DIED = re.compile(r"\bnode\b[^.\n]*\b(?:has )?died\b|\bnode\b[^.\n]*\bdead\b", re.IGNORECASE)


def failure_of(error: Exception | None) -> Failure:
    """The failure that an error of Ray's tells of; None is a worker of which nothing more is known."""
    if error is None:
        return Failure(reason="the worker was lost", of_machine=True)
    cause = getattr(error, "cause", None) or error
    text = unstyled(str(cause))
    return Failure(
        reason=_reason(cause, text=text),
        of_machine=isinstance(cause, OF_MACHINE) and not getattr(cause, "actor_init_failed", False),
        details=unstyled(getattr(error, "traceback_str", None) or str(error)),
    )


def _reason(cause: Exception, *, text: str) -> str:
    """One line: in words of ours where a machine failed, else as the error has it."""
    where = next((f" {ip}" for ip in ADDRESS.findall(text)), "")
    if isinstance(cause, exceptions.OutOfMemoryError):
        return "the host has no memory left"
    if isinstance(cause, exceptions.NodeDiedError) or NODE_DIED.search(text):
        return f"node{where} was lost"
    if isinstance(cause, exceptions.WorkerCrashedError):
        return "its process died"
    if isinstance(cause, exceptions.LocalRayletDiedError):
        return "Ray on this machine died"
    if isinstance(cause, exceptions.ActorUnavailableError):
        return "its process does not answer"
    if isinstance(cause, exceptions.RayActorError) and not cause.actor_init_failed:
        return f"its process on node{where} died" if where else "its process died"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(cause).__name__}: {lines[-1]}" if lines else type(cause).__name__
