"""What is kept of frozen layers changes nothing but the time: the same search with it, without it, with parts of it, killed."""

import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TRIALS = 12


def written(make_place):
    place = make_place()
    place.write_space(
        search={"trials": TRIALS}, base={"augment": {"strength": "light", "views": 2}}, baselines=[], soup=0
    )
    return place


def decided(place):
    """Every trial: values, end, and each epoch with all that was measured but what it cost."""
    return [
        (t.number, dict(t.params), t.state, t.target, t.origin, t.reason, measured(t)) for t in place.ledger().trials()
    ]


def measured(trial):
    return [
        {name: value for name, value in epoch.metrics.items() if not name.startswith("usage/")}
        for epoch in trial.epochs
    ]


def blocks(place):
    return sorted(Path(place.folder, "cache/trainable/prefix").glob("*.block"))


def saved(place):
    return sum(e.metrics["usage/prefix_saved_seconds"] for t in place.ledger().trials() for e in t.epochs)


@pytest.fixture(scope="module")
def without(make_place):
    place = written(make_place)
    place.told("run", "space.yaml", "--set", "data.prefix_gb=0")
    assert not blocks(place)
    assert saved(place) == 0
    trials = decided(place)
    assert len(trials) == TRIALS
    assert any(trial[1]["freeze.depth"] == 1 for trial in trials)
    return trials


@pytest.mark.long
def test_a_search_decides_and_measures_the_same_with_the_store(without, make_place):
    place = written(make_place)
    place.told("run", "space.yaml")
    assert decided(place) == without
    assert blocks(place)
    assert saved(place) > 0
    assert "frozen layers saved" in place.told("status", "cells")


@pytest.mark.long
def test_a_search_that_finds_parts_of_it_and_is_killed_ends_the_same(without, make_place):
    place = written(make_place)
    place.kill_when(lambda: len(blocks(place)) >= 3, "run", "space.yaml")
    time.sleep(0.5)  # until its workers are gone
    for path in blocks(place)[::2]:
        path.write_bytes(path.read_bytes()[:-1])
    place.kill_when(lambda: place.lines() > 30, "resume", "cells")
    place.told("resume", "cells")
    assert decided(place) == without
