"""From images to an answer by one command, which is killed and typed again."""

import pytest

pytestmark = pytest.mark.slow

SMALL = ("--model", "test_resnet", "--weights", "random", "--set", "data.image_size=32")
SHORT = ("--set", "search.trials=3", "--set", "scheduler.max_epochs=2", "--set", "soup=0")


def test_the_command_goes_on_where_it_was_killed(make_place):
    place = make_place()
    words = ("auto", "images", "--name", "cells", "--minutes", "30", *SMALL, *SHORT)
    place.kill_when(lambda: place.lines() > 12, *words)
    space = place.folder / "cells.yaml"
    written = space.read_bytes()

    told = place.told(*words)
    assert told.startswith("space: cells.yaml, written by this command before\n")
    assert "going on: " in told
    assert "best configuration, trial" in told
    assert told.endswith("to register the best as a model: python -m search promote cells\n")
    assert space.read_bytes() == written
    trials, stretches = place.ledger().trials(), place.ledger().notes.stretches
    assert {trial.state for trial in trials} <= {"COMPLETE", "PRUNED"}
    assert len(stretches) == 2
    assert stretches[0].began < space.stat().st_mtime  # so that the look counts

    other = place.call("auto", "images", "--name", "cells", "--model", "resnet18")
    assert other.returncode == 2
    assert other.stderr.startswith("error: cells.yaml: is there already and not of this command")
