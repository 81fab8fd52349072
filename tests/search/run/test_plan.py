"""How many trials a budget allows; that a plan is made and shown is held by tests/integration/test_search.py."""

import pytest

from search.engine.no_halving import NoHalving
from search.run.plan import (
    AROUND_SECONDS,
    epochs_within,
    expected_audit_epochs,
    foreseen_work,
    frozen_seconds_once,
    most_trials,
)
from search.space.sections import BudgetSection
from search.space.spec import SearchSpec

RULE = NoHalving("val/accuracy", 9)


@pytest.mark.parametrize(
    ("budget", "epochs"),
    [
        ({}, None),
        ({"epochs": 40}, 40),
        ({"gpu_hours": 1.0}, 720),  # halves of a GPU, ten seconds an epoch
        ({"minutes": (400 + AROUND_SECONDS) / 60}, 80),  # two at once
        ({"hours": 1.0, "epochs": 12}, 12),
    ],
)
def test_a_budget_allows_the_epochs_of_its_narrowest_bound(budget, epochs):
    assert epochs_within(BudgetSection(**budget), epoch_seconds=10.0, at_once=2, gpu=0.5) == epochs


def test_a_budget_by_the_clock_holds_what_baselines_take():
    budget = BudgetSection(minutes=(400 + AROUND_SECONDS) / 60)
    assert epochs_within(budget, epoch_seconds=10.0, at_once=2, gpu=0.5, beside_seconds=100.0) == 60
    assert epochs_within(budget, epoch_seconds=10.0, at_once=2, gpu=0.5, beside_seconds=1000.0) == 0


def test_a_search_comes_to_as_many_trials_as_are_asked_for_or_allowed_whichever_are_fewer():
    assert most_trials(RULE, asked=None, epochs=40) == 4
    assert most_trials(RULE, asked=3, epochs=40) == 3
    assert most_trials(RULE, asked=64, epochs=40) == 4
    assert most_trials(RULE, asked=64, epochs=None) == 64


@pytest.mark.parametrize(("confirm", "audit"), [(0, 0.0), (2, 0.0), (0, 0.5), (2, 0.5)])
def test_what_confirms_and_audits_is_inside_the_budget(confirm, audit):
    space = {
        "search": {"name": "x", "confirm": confirm, "budget": {"epochs": 100}},
        "scheduler": {"min_epochs": 1, "max_epochs": 9, "audit": audit},
        "base": {"data": {"path": "images"}},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}},
    }
    work = foreseen_work(SearchSpec.model_validate(space), fitting=100)
    assert 60 < work["epochs"] <= 100
    assert work["confirm_epochs"] == 9 * confirm
    assert (work["audit_epochs"] > 0) == (audit > 0)


def test_no_more_is_confirmed_than_is_trained_to_the_end():
    space = {
        "search": {"name": "x", "confirm": 2, "trials": 1},
        "scheduler": {"min_epochs": 1, "max_epochs": 9},
        "base": {"data": {"path": "images"}},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}},
    }
    assert foreseen_work(SearchSpec.model_validate(space), fitting=None)["confirm_epochs"] == 9


def test_frozen_layers_are_passed_once_by_the_deepest_cut_of_each_backbone():
    points = [{"model.name": name, "freeze.depth": depth} for name in ("a", "b") for depth in (0.5, 1.0)]
    measured = [{"frozen_seconds": seconds, "views": 4} for seconds in (10.0, 20.0, 1.0, 3.0)]
    assert frozen_seconds_once(points, measured=measured, epochs=9) == 4 * (20 + 3)
    assert frozen_seconds_once(points, measured=measured, epochs=1) == 20 + 3


def test_audits_take_a_share_of_the_epochs_that_stopped_trials_are_spared():
    assert expected_audit_epochs({1: 16, 4: 6, 9: 2}, share=0.25) == 25  # of 10×8 + 4×5
    assert expected_audit_epochs({1: 16, 4: 6, 9: 2}, share=0.0) == 0
    assert expected_audit_epochs({9: 16}, share=0.25) == 0
