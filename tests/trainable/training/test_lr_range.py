"""The learning-rate range test, on synthetic curves and on a real trial."""

import itertools
import math
import shutil

import numpy as np
import pytest
import torch

from trainable import TrialConfig, UserError, fit
from trainable.training.lr_range import LrRange, lr_range, lr_range_page, smooth, steepest

torch.set_num_threads(1)


@pytest.fixture
def make_config(cells, tmp_path):
    for index, path in enumerate(cells[:24]):
        folder = tmp_path / "cells" / ("a" if index % 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder)

    def make(**sections):
        base = {
            "data": {"path": str(tmp_path / "cells"), "image_size": 32, "cache": str(tmp_path / "cache")},
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 3, "batch_size": 4},
        }
        return TrialConfig.model_validate(base | sections)

    return make


def test_a_constant_loss_is_smoothed_to_itself_from_the_first_update_on():
    assert smooth([2.5] * 20) == pytest.approx([2.5] * 20)


def test_the_second_smoothed_loss_is_the_hand_worked_one():
    """(0.98·0.02·1 + 0.02·2) / (1 - 0.98²) = 0.0596 / 0.0396."""
    assert smooth([1.0, 2.0]) == pytest.approx([1.0, 0.0596 / 0.0396])


def test_the_steepest_rate_of_a_smooth_step_is_its_middle():
    """A logistic fall over log10(rate) is steepest at its centre, 1e-3; the rise after it does not count."""
    rates = np.geomspace(1e-7, 1.0, 141)
    fall = 1 / (1 + np.exp(4 * (np.log10(rates) + 3)))
    rise = np.where(rates > 0.1, 50 * np.log10(rates / 0.1), 0.0)
    assert steepest(rates.tolist(), (fall + rise).tolist()) == pytest.approx(1e-3)


@pytest.mark.parametrize("losses", [[], [1.0], [1.0, 1.5, 2.0]])
def test_a_loss_that_never_falls_suggests_nothing(losses):
    assert steepest([1e-3, 1e-2, 1e-1][: len(losses)], losses) is None


def test_rates_grow_by_one_factor_between_the_bounds_and_two_tests_are_equal(make_config):
    config = make_config(optimizer={"lr": 0.02, "layer_decay": 0.5})
    told = []
    result = lr_range(config, lowest=1e-5, highest=1e-3, updates=9, on_update=lambda *counts: told.append(counts))
    assert told == [(done, 9) for done in range(1, 10)]
    assert result.diverged_at is None
    assert result.rates == pytest.approx([1e-5 * 10 ** (k / 4) for k in range(9)])
    assert len(result.losses) == len(result.smoothed) == 9
    assert result == lr_range(config, lowest=1e-5, highest=1e-3, updates=9)


@pytest.mark.parametrize(
    "sections",
    [
        {"augment": {"strength": "medium", "mixup": 0.4}},
        {"freeze": {"depth": "stage2"}, "model": {"name": "test_resnet", "weights": "random", "dropout": 0.3}},
        {"finetune": {"strategy": "lp_ft", "probe_c": 1e-4}},  # solved so softly that its loss has nowhere to rise from
        {"finetune": {"strategy": "gradual"}},
        {"finetune": {"strategy": "linear_probe"}, "loss": {"class_weights": "inverse", "label_smoothing": 0.1}},
    ],
)
def test_it_is_the_trial_itself_that_is_tried(sections, make_config):
    """At one rate, or nearly, the mean losses of two passes are those of the trial's own first epochs at that rate."""
    rate = 1e-2
    config = make_config(optimizer={"lr": rate}, lr_schedule={"name": "constant"}, **sections)
    expected = [epoch.metrics["train/loss"] for epoch in itertools.islice(fit(config), 2)]
    result = lr_range(config, lowest=rate, highest=rate * (1 + 1e-9), updates=8)
    assert np.mean(np.reshape(result.losses, (2, 4)), axis=1).tolist() == pytest.approx(expected, rel=1e-5)


def test_the_trials_own_rate_and_schedule_make_no_difference(make_config):
    one = make_config(optimizer={"lr": 1e-3})
    other = make_config(optimizer={"lr": 0.5}, lr_schedule={"name": "cosine", "warmup_epochs": 2})
    results = [lr_range(config, lowest=1e-5, highest=1e-2, updates=6) for config in (one, other)]
    assert results[0].losses == pytest.approx(results[1].losses, rel=1e-5)


def test_a_rate_far_too_large_ends_the_test_and_is_named(make_config):
    config = make_config(optimizer={"name": "sgd", "momentum": 0.9})
    result = lr_range(config, lowest=1e-3, highest=1e6, updates=60)
    assert result.diverged_at is not None
    assert result.diverged_at > result.rates[-1]
    assert len(result.rates) == len(result.losses) < 60
    assert all(math.isfinite(loss) for loss in result.losses)
    assert result.suggested is None or result.suggested < result.diverged_at


def test_nothing_is_left_on_the_disk_but_the_decoded_images(make_config, tmp_path):
    lr_range(make_config(), updates=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "cells"]


@pytest.mark.parametrize("bounds", [{"lowest": 1.0, "highest": 0.1}, {"lowest": 0.0}, {"updates": 1}])
def test_bounds_that_leave_nothing_to_try_are_refused(bounds, make_config):
    with pytest.raises(UserError, match=r"^(highest|updates): "):
        lr_range(make_config(), **bounds)


def test_the_page_is_whole_and_marks_suggestion_and_divergence():
    page = lr_range_page(
        LrRange(
            rates=(1e-4, 1e-3, 1e-2), losses=(1.0, 0.5, 0.7), smoothed=(1.0, 0.7, 0.7), suggested=1e-3, diverged_at=0.1
        )
    )
    assert page.rstrip().endswith("</html>")
    assert '"type":"log"' in page
    assert '"name":"suggested 0.001"' in page
    assert '"name":"diverged at 0.1"' in page
