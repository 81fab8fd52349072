"""What is told of a worker that failed, from Ray's own errors."""

import os
import re
import signal

import pytest
import ray
from ray import exceptions

from search.engine.failure import Failure
from search.tune.lost import failure_of


@ray.remote
class Fragile:
    def break_down(self):
        raise KeyError("weights")

    def die(self):
        os.kill(os.getpid(), signal.SIGKILL)


@ray.remote
class Unborn:
    def __init__(self):
        raise ValueError("no such setting")

    def work(self):
        return 1


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def error_of(reference):
    with pytest.raises(exceptions.RayError) as raised:
        ray.get(reference)
    return raised.value


@pytest.mark.slow
def test_an_error_of_the_trials_own_code_is_told_from_a_worker_that_was_lost(cluster):
    own = failure_of(error_of(Fragile.remote().break_down.remote()))
    assert (own.reason, own.of_machine) == ("KeyError: 'weights'", False)
    assert 'raise KeyError("weights")' in own.details
    assert "\x1b" not in own.details
    lost = failure_of(error_of(Fragile.remote().die.remote()))
    assert lost.of_machine
    assert re.fullmatch(r"its process on node \S+ died", lost.reason)
    unborn = failure_of(error_of(Unborn.remote().work.remote()))
    assert not unborn.of_machine
    assert "ValueError: no such setting" in unborn.reason


def test_the_reason_is_never_lost():
    assert failure_of(None) == Failure(reason="the worker was lost", of_machine=True)
    assert failure_of(ValueError()).reason == "ValueError"
    memory = failure_of(exceptions.OutOfMemoryError("the node ran low\nkilled 1 worker"))
    assert (memory.reason, memory.of_machine) == ("the host has no memory left", True)
    assert failure_of(exceptions.LocalRayletDiedError()) == Failure(
        reason="Ray on this machine died", of_machine=True, details=str(exceptions.LocalRayletDiedError())
    )


@pytest.mark.parametrize(
    "text",
    [
        "The actor died unexpectedly before finishing this task.\n\tip: 10.0.0.7\nThe actor's node has died: timed out.",
        "The actor is dead because its node has died. Node Id: ab\n\tip: 10.0.0.7",
    ],
)
def test_a_lost_node_is_named(text):
    failure = failure_of(exceptions.RayActorError(error_msg=text))
    assert (failure.reason, failure.of_machine) == ("node 10.0.0.7 was lost", True)
