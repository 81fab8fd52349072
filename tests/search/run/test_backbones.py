"""Which backbones are scored within a time, by a clock of the test's own."""

import pytest

from search.run.backbones import _trial, backbone_points, not_scored_line, reference_trial, score_in_time
from search.space.spec import SearchSpec

COSTS = {"large": 8.0, "small": 1.0, "middle": 2.0, "huge": 40.0}


class Bench:
    """Scores backbones in ten seconds for each unit of cost, one beside the other; gives up as a worker does."""

    def __init__(self):
        self.time, self.asked = 0.0, []

    def now(self):
        return self.time

    def score_all(self, wave):
        self.asked.append(dict(wave))
        fits = {name: left is None or 10 * COSTS[name] <= left for name, left in wave.items()}
        self.time += max(10 * COSTS[name] for name in wave if fits[name]) if any(fits.values()) else 1
        return [{"probe": COSTS[name]} if fits[name] else None for name in wave]


def scored(seconds, *, at_once=1, costs=COSTS, **options):
    bench = Bench()
    scores = score_in_time(costs, seconds=seconds, at_once=at_once, score_all=bench.score_all, now=bench.now, **options)
    return list(scores), bench


def test_without_an_end_all_are_scored_cheapest_first():
    names, bench = scored(None)
    assert names == ["small", "middle", "large", "huge"]
    assert [set(wave.values()) for wave in bench.asked] == [{None}] * 4


@pytest.mark.parametrize(
    ("seconds", "names"),
    [
        (520, ["small", "middle", "large", "huge"]),
        (115, ["small", "middle", "large"]),  # 10 + 20 + 80 are spent, and the next is forecast to take 400
        (100, ["small", "middle"]),
        (1, ["small"]),
    ],
)
def test_what_would_take_longer_than_there_is_time_is_not_begun(seconds, names):
    found, bench = scored(seconds)
    assert found == names
    assert len(bench.asked) == len(names)
    assert bench.time <= max(seconds, 10)


def test_several_at_once_have_the_same_time_and_one_that_gives_up_ends_it():
    names, bench = scored(40, at_once=3)
    assert names == ["small", "middle"]
    assert bench.asked == [{"small": None, "middle": 40, "large": 40}]
    assert scored(None, at_once=3)[0] == ["small", "middle", "large", "huge"]
    assert scored(5, costs={})[0] == []


def test_where_others_are_known_the_cheapest_must_fit_too():
    names, bench = scored(5, one_at_least=False)
    assert names == []
    assert bench.asked == [{"small": 5}]


def spec_of(base_data=None, vary=None, **selection):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "select_backbones": selection,
            "base": {"data": {"path": "images"} | (base_data or {}), "model": {"weights": "pretrained"}},
            "vary": {"model.name": {"choice": ["resnet10t", "resnet18"]}} | (vary or {}),
        }
    )


SIZES = {"data.image_size": {"choice": [32, 64]}}


@pytest.mark.parametrize(
    ("base_data", "vary", "image_size", "size"),
    [
        ({}, {}, "own", None),
        ({}, SIZES, "own", None),
        ({}, SIZES, "space", 64),
        ({"image_size": 48}, {}, "own", 48),
        ({"image_size": 48, "early_size": 32, "early_epochs": 2}, {}, "own", 48),
    ],
)
def test_a_backbone_is_scored_at_its_own_size_unless_the_space_fixes_one(base_data, vary, image_size, size):
    spec = spec_of(base_data, vary, image_size=image_size)
    points = backbone_points(spec, params={"model.name": "resnet18"} | ({"data.image_size": 64} if vary else {}))
    assert list(points) == ["resnet10t", "resnet18"]
    for name, point in points.items():
        trial = _trial(spec, point)
        assert (trial["model"]["name"], trial["data"].get("image_size")) == (name, size)
        assert trial["data"].get("early_size") is None


def test_the_trial_that_images_are_drawn_by_asks_for_no_weights():
    trial = reference_trial(spec_of(), params={"model.name": "resnet18"})
    assert trial["model"] == {"name": "resnet18", "weights": "random"}


def test_those_that_were_not_scored_are_counted_and_named():
    assert not_scored_line(list("abcdefg"), of=9) == (
        "select_backbones.minutes: 7 of 9 backbones not scored for want of time and left out: a, b, c, d, e and 2 more"
    )
