"""What one has of a given time is measured alike for every way to spend it."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def headline():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        spec = importlib.util.spec_from_file_location("headline", BENCHMARKS / "headline.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.mark.slow
def test_what_needs_no_search_hands_over_a_model_that_is_measured_on_the_test_images(headline, tmp_path, monkeypatch):
    headline.compare.export_images(tmp_path / "images", count=60)
    monkeypatch.setattr(headline, "PROBE_SIZE", 32)
    monkeypatch.setattr(headline, "RECIPE_SIZE", 32)
    options = headline.read_options(["--sides", "probe", "recipe"])
    found = headline.measure(tmp_path / "images", options=options, minutes=0.1, seed=0, folder=tmp_path)
    assert set(found) == {"probe", "recipe"}
    assert all(0 <= side["test"] <= 1 and 0 <= side["val"] <= 1 for side in found.values())
    assert found["recipe"]["epochs"] > 1
    assert found["recipe"]["wall_seconds"] >= 6
    headline.print_table([{"minutes": 0.1, "seed": 0, "sides": found}])


def test_passing_stock_is_the_first_time_that_its_last_score_is_reached(headline):
    ours = {"curve": [(10.0, 0.5), (20.0, 0.7), (30.0, 0.6), (40.0, 0.8)]}
    assert headline.passed_after(ours, stock={"val": 0.7}) == 20.0
    assert headline.passed_after(ours, stock={"val": 0.75}) == 40.0
    assert headline.passed_after(ours, stock={"val": 0.9}) is None
