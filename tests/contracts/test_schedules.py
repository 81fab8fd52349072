"""What every schedule of the learning rate keeps: it warms up, stays between nothing and the peak, ends where it says."""

import math

import pytest

from trainable.config.trial import ScheduleConfig
from trainable.training.lr_schedule import SCHEDULES, rate_factor

SHAPES = [(1, 0), (7, 0), (7, 3), (30, 1), (100, 99), (400, 37)]
FALLS_TO_FINAL = ("cosine", "one_cycle", "wsd")
RISES_AGAIN = ("one_cycle",)


def make(name, **values):
    return ScheduleConfig(name=name, **({"final": 0.05, "warmup_start": 0.1} | values))


def factors(config, *, steps, warmup):
    return [rate_factor(step, num_steps=steps, warmup_steps=warmup, config=config) for step in range(steps + 1)]


def end_of(config):
    """Where a schedule says that it ends."""
    if config.name in FALLS_TO_FINAL:
        return config.final
    return config.factor ** len(config.milestones) if config.name == "step" else 1.0


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), SHAPES)
def test_it_stays_between_nothing_and_the_peak(name, steps, warmup):
    found = factors(make(name), steps=steps, warmup=warmup)
    assert all(0 <= factor <= 1 and math.isfinite(factor) for factor in found)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), SHAPES)
def test_it_warms_up_in_a_straight_line(name, steps, warmup):
    found = factors(make(name), steps=steps, warmup=warmup)
    assert found[:warmup] == pytest.approx([0.1 + 0.9 * step / warmup for step in range(warmup)])


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), SHAPES)
def test_after_the_warm_up_it_begins_at_the_peak_and_never_rises_but_where_it_says_so(name, steps, warmup):
    after = factors(make(name), steps=steps, warmup=warmup)[warmup:]
    if name in RISES_AGAIN:
        highest = after.index(max(after))
        assert after[: highest + 1] == sorted(after[: highest + 1])
        after = after[highest:]
    else:
        assert after[0] == pytest.approx(1.0)
    assert after == sorted(after, reverse=True)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("steps", "warmup"), SHAPES)
def test_it_ends_exactly_where_it_says(name, steps, warmup):
    config = make(name)
    assert factors(config, steps=steps, warmup=warmup)[-1] == pytest.approx(end_of(config))


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_step_has_one_rate_whatever_was_asked_before(name):
    config = make(name)
    forward = factors(config, steps=50, warmup=5)
    backward = [rate_factor(step, num_steps=50, warmup_steps=5, config=config) for step in range(50, -1, -1)]
    assert backward[::-1] == forward


@pytest.mark.parametrize("name", SCHEDULES)
def test_longer_training_is_the_same_course_stretched(name):
    short, long = (factors(make(name), steps=steps, warmup=0) for steps in (40, 160))
    assert long[::4] == pytest.approx(short)
