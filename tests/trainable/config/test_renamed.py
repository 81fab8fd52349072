import pytest

from search.space.spec import SearchSpec
from trainable import TrialConfig
from trainable.config.renamed import (
    RENAMED,
    first_name,
    identity_with_new_names,
    new_name,
    space_with_new_names,
    with_new_names,
)
from trainable.config.validation import leaf_fields

PATHS = sorted(leaf_fields(TrialConfig))


@pytest.mark.parametrize("path", PATHS)
def test_a_name_of_today_stays_and_comes_back_from_its_first(path):
    assert new_name(path) == path
    assert new_name(first_name(path)) == path


@pytest.mark.parametrize("new", RENAMED.values())
def test_every_renamed_setting_is_there(new):
    assert any(path == new or path.startswith(f"{new}.") for path in PATHS)


def test_a_stored_configuration_is_read_with_its_names_of_today():
    stored = {
        "seed": 3,
        "data": {"path": "x", "sampler": "sqrt"},
        "schedule": {"name": "wsd"},
        "adapt": {"schedule": "ganin"},
    }
    found = TrialConfig.model_validate({"data": {"target": "y"}} | with_new_names(stored) | {"adapt": {}})
    assert found.data.class_sampling == "sqrt"
    assert found.lr_schedule.name == "wsd"
    assert with_new_names(stored)["adapt"] == {"schedule": "ganin"}


def space(data_sampler, schedule):
    """A space in which both names are fixed, searched, asked for by a condition and part of a recipe."""
    return {
        "search": {"name": "cells", "trials": 3},
        "scheduler": {"max_epochs": 9},
        "base": {f"{schedule}.warmup_epochs": 1},
        "vary": {
            data_sampler: {"choice": ["shuffle", "balanced"]},
            f"{schedule}.name": {"choice": ["cosine", "step"]},
            f"{schedule}.factor": {"uniform": [0.1, 0.5], "when": {f"{schedule}.name": "step"}},
        },
        "try_first": [{data_sampler: "balanced", f"{schedule}.name": "step", f"{schedule}.factor": 0.2}],
    }


def test_a_stored_space_and_its_identity_are_those_of_the_names_of_today():
    new = SearchSpec.model_validate(space("data.class_sampling", "lr_schedule"))
    old = SearchSpec.model_validate(space_with_new_names(space("data.sampler", "schedule")))
    assert old == new
    identity = new.identity()
    as_first = {first_of(path): rename_when(value) for path, value in identity.items()}
    as_first["try_first"] = [
        {first_name(path): value for path, value in recipe.items()} for recipe in identity["try_first"]
    ]
    assert as_first != identity
    assert identity_with_new_names(as_first) == identity


def first_of(path):
    part, _, rest = path.partition(".")
    return f"{part}.{first_name(rest)}" if part in ("base", "vary") else path


def rename_when(value):
    if not isinstance(value, dict) or "when" not in value:
        return value
    return value | {"when": {first_name(path): wanted for path, wanted in value["when"].items()}}
