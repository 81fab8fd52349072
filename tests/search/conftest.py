"""Searches and trials as plain records, for what maps the configurations of one search to another."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from search.ledger.trials import EpochRecord, Trial
from search.space.spec import SearchSpec

VARY = {
    "optimizer.lr": {"log": [1e-4, 1e-1]},
    "freeze.depth": {"choice": [0, 0.5, 1.0]},
    "model.head": {"choice": ["linear", "mlp"]},
    "model.head_hidden": {"int": [16, 64], "when": {"model.head": "mlp"}},
}


def _made_spec(name="new", *, vary=VARY, trials=20, **sections):
    return SearchSpec.model_validate(
        {
            "search": {"name": name, "trials": trials, "budget": {"epochs": 101}},
            "scheduler": {"min_epochs": 1, "max_epochs": 4},
            "base": {"data.path": "images"},
            "vary": vary,
            **sections,
        }
    )


def _made_trial(number, value, **params):
    epoch = EpochRecord(number=1, metrics={"val/balanced_accuracy": value}, recorded=datetime(2026, 1, 1, tzinfo=UTC))
    params = {"optimizer.lr": 0.01, "freeze.depth": 0.5, "model.head": "linear"} | params
    return Trial(number=number, params=params, state="COMPLETE", epochs=(epoch,), target=1, origin="random")


@pytest.fixture(scope="session")
def made_spec() -> Callable[..., SearchSpec]:
    """Makes a search by its name, what it varies, its trials and other sections."""
    return _made_spec


@pytest.fixture(scope="session")
def made_trial() -> Callable[..., Trial]:
    """Makes a trial by its number, its only value and searched values."""
    return _made_trial
