"""The comparison with the stock parts compares like with like."""

import importlib.util
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "compare.py"
WORDS = ["--trials", "2", "--max-epochs", "2", "--image-size", "32", "--images", "60"]


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def sides(compare):
    (round_,) = compare.compare(compare.read_options(WORDS))
    return round_


@pytest.mark.long
def test_both_sides_trained_the_trials_asked_for(sides):
    assert {side: sides[side]["trials"] for side in sides} == {"ours": 2, "stock": 2}
    # Every trial is trained to the first rung, one at least to the end.
    assert all(3 <= sides[side]["epochs"] <= 4 for side in sides)


@pytest.mark.long
def test_both_sides_read_the_same_images(sides):
    assert sides["ours"]["images"] == sides["stock"]["images"]
    assert len(sides["ours"]["images"]) == pytest.approx(60, abs=3)  # rounded for each split and class
    splits_and_classes = {name.rsplit("/", 1)[0] for name in sides["ours"]["images"]}
    assert len(splits_and_classes) == 6


@pytest.mark.long
def test_both_sides_trained_the_same_configurations(sides):
    assert sides["ours"]["configurations"] == sides["stock"]["configurations"]
    assert len(sides["ours"]["configurations"]) == 2


@pytest.mark.long
def test_the_processor_time_of_the_workers_is_counted(sides):
    for side in sides.values():
        assert side["cpu_by_process"]["driver"] > 1
        assert side["cpu_by_process"]["Ray worker"] > 1


def test_recipes_hold_every_frozen_share_in_turn(compare):
    shares = [recipe["freeze.depth"] for recipe in compare.draw_recipes(6)]
    assert shares == [0.5, 0.75, 0.9, 1.0, 0.5, 0.75]
    assert compare.draw_recipes(3) == compare.draw_recipes(6)[:3]
