"""Learning-rate schedules as functions of the step."""

import pytest

from trainable.config.trial import ScheduleConfig
from trainable.training.lr_schedule import plateau_factor, rate_factor


def test_the_courses_have_their_known_values():
    def at(name, step, **values):
        return rate_factor(step, num_steps=100, warmup_steps=0, config=ScheduleConfig(name=name, **values))

    assert at("cosine", 50) == pytest.approx(0.5)
    assert at("one_cycle", 0, warmup_start=0.04) == pytest.approx(0.04)
    assert at("one_cycle", 30) == pytest.approx(1.0)
    assert at("one_cycle", 65) == pytest.approx(0.5)
    assert [at("wsd", step) for step in (79, 80, 90)] == pytest.approx([1.0, 1.0, 0.5])
    assert [at("step", step) for step in (29, 30, 60, 90)] == pytest.approx([1.0, 0.1, 0.01, 0.001])
    assert at("constant", 99) == 1.0


def test_a_plateau_lowers_the_rate_each_time_nothing_gets_better():
    config = ScheduleConfig(name="plateau", patience=2, factor=0.5, final=0.2)
    history = dict(enumerate([0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7], start=1))

    def after(epochs):
        known = {epoch: history[epoch] for epoch in range(1, epochs + 1)}
        return plateau_factor(known, metric="val/accuracy", min_delta=0.0, config=config)

    assert [after(epochs) for epochs in range(9)] == [1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25]
    falling = {1: 0.5, 2: 0.5, 3: 0.5, 4: 0.5, 5: 0.5, 6: 0.5, 7: 0.5}
    assert plateau_factor(falling, metric="val/loss", min_delta=0.0, config=config) == 0.2


def test_a_plateau_does_not_count_the_warm_up_and_asks_for_min_delta():
    config = ScheduleConfig(name="plateau", patience=2, factor=0.5, warmup_epochs=2)
    history = {1: 0.9, 2: 0.9, 3: 0.5, 4: 0.51, 5: 0.52}
    assert plateau_factor(history, metric="val/accuracy", min_delta=0.0, config=config) == 1
    assert plateau_factor(history, metric="val/accuracy", min_delta=0.1, config=config) == 0.5
