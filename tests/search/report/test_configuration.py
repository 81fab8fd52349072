"""The best configuration as what differs from the defaults."""

import json
import re

from search.ledger.trials import Trial
from search.report.configuration import configuration_html, differences
from search.space.paths import FIELDS
from search.space.spec import SearchSpec

SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 9},
        "scheduler": {"max_epochs": 9},
        "base": {"data.path": "images", "train.batch_size": 32, "augment.strength": "none"},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}, "freeze.depth": {"choice": [0, 0.5]}},
    }
)


def trial(**fields):
    known = {"params": {"optimizer.lr": 0.002, "freeze.depth": 0}, "state": "COMPLETE", "epochs": (), "target": 9}
    return Trial(number=3, origin="tpe", **known | fields)


def row_of(path, **fields):
    return {row["path"]: row for row in differences(trial(**fields), spec=SPEC)}.get(path)


def test_searched_values_come_first_with_their_range_even_at_their_default():
    rows = differences(trial(), spec=SPEC)
    assert [row["path"] for row in rows if row["searched"]] == ["freeze.depth", "optimizer.lr"]
    assert rows[1] == {
        "path": "optimizer.lr", "value": 0.002, "default": 0.001, "searched": "0.0001 to 0.1", "by": "the space file"
    }  # fmt: skip


def test_what_was_given_is_told_only_where_it_is_no_default():
    assert row_of("augment.strength") == {
        "path": "augment.strength", "value": "none", "default": "light", "searched": None, "by": "the space file"
    }  # fmt: skip
    assert row_of("train.epochs")["by"] == "the search"
    assert (row_of("train.batch_size"), row_of("optimizer.name")) == (None, None)


def test_what_a_trial_has_in_place_of_the_search_is_said_to_be_its_own():
    assert row_of("train.batch_size", overrides={"train.batch_size": 8})["by"] == "the search, for this trial alone"
    probe = {"params": {}, "origin": "probe"}
    assert Trial(
        number=0, state="COMPLETE", epochs=(), target=1, overrides={"finetune.strategy": "linear_probe"}, **probe
    )
    rows = differences(
        Trial(
            number=0, state="COMPLETE", epochs=(), target=1, overrides={"finetune.strategy": "linear_probe"}, **probe
        ),
        spec=SPEC,
    )
    assert [(row["path"], row["by"]) for row in rows if row["by"] == "the probe"] == [
        ("finetune.strategy", "the probe")
    ]


def test_the_rows_and_the_other_settings_are_all_there_are():
    text = configuration_html(trial(), spec=SPEC)
    rest = int(re.search(r"The other (\d+) settings", text)[1])
    assert rest + len(differences(trial(), spec=SPEC)) == len(FIELDS)
    assert json.dumps("none")[1:-1] in text
