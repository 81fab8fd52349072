"""Workers that report nothing for too long, by a clock that the test sets."""

from search.tune.hanging import Hanging


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_leg_that_is_silent_for_too_long_is_overdue_once():
    clock = Clock()
    hanging = Hanging(60, now=clock)
    hanging.hear("a")
    hanging.hear("b")
    clock.now = 50
    hanging.hear("b")
    assert hanging.overdue(["a", "b"]) == []
    clock.now = 61
    assert hanging.overdue(["a", "b", "first seen"]) == ["a"]
    failure = hanging.reason("a")
    assert (failure.reason, failure.of_machine) == ("no epoch within 1 minutes (search.epoch_limit_minutes)", False)
    assert hanging.reason("a") is None
    assert hanging.overdue(["a"]) == []
    clock.now = 122
    assert hanging.overdue(["b", "first seen"]) == ["b", "first seen"]


def test_without_a_limit_nothing_is_ever_overdue():
    clock = Clock()
    hanging = Hanging(None, now=clock)
    hanging.hear("a")
    clock.now = 1e9
    assert hanging.overdue(["a"]) == []
