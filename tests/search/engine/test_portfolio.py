import math
from datetime import UTC, datetime

import pytest

from search.engine.portfolio import EarlierSearch, likeness, portfolio
from search.ledger.notes import DataFacts
from search.ledger.trials import EpochRecord, Trial
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"
VARY = {"optimizer.lr": {"log": [1e-4, 1e-1]}, "freeze.depth": {"choice": [0, 0.5, 1.0]}}


def spec(name="new", *, vary=VARY, base=None, num_warm=4, **sections):
    return SearchSpec.model_validate(
        {
            "search": {"name": name, "trials": 20, "warm_start": "auto", "num_warm": num_warm},
            "scheduler": {"min_epochs": 1, "max_epochs": 4},
            "base": {"data.path": "images", "model.name": "resnet18", **(base or {})},
            "vary": vary,
            **sections,
        }
    )


def data(*counts):
    return DataFacts(counts={"train": {f"class {index}": count for index, count in enumerate(counts)}})


DATA = data(100, 100)


def trial(number, value, state="COMPLETE", **params):
    epochs = (EpochRecord(number=1, metrics={METRIC: value}, recorded=datetime(2026, 1, 1, tzinfo=UTC)),)
    return Trial(
        number=number, params=params, state=state, epochs=() if value is None else epochs, target=1, origin="random"
    )


def point(number, value, lr, depth=0.5, **changes):
    return trial(number, value, **{"optimizer.lr": lr, "freeze.depth": depth}, **changes)


def earlier(name, *trials, images=DATA, **changes):
    return EarlierSearch(spec=spec(name, **changes), trials=trials, data=images)


def taken(searches, **changes):
    return portfolio(searches, spec=spec(**changes), data=DATA)


@pytest.mark.parametrize(
    ("images", "base", "expected"),
    [
        (DATA, {}, 0),
        (data(1000, 1000), {}, 1),  # ten times the images
        (data(*[10] * 20), {}, 1),  # ten times the classes
        (data(180, 18), {}, 1 + math.log10(200 / 198)),  # a largest class ten times the smallest
        (DATA, {"model.name": "resnet50"}, 1),
        (data(1000, 1000), {"model.name": "resnet50"}, 2),
        (DATA, {"data.image_size": 128}, 1),
        (DataFacts(), {}, 0),  # nothing is known, so nothing differs
    ],
)
def test_likeness_falls_by_what_images_and_backbone_differ_in(images, base, expected):
    here = spec(base={"data.image_size": 64})
    there = earlier("old", images=images, base={"data.image_size": 64} | base)
    assert likeness(there, spec=here, data=DATA) == pytest.approx(math.exp(-expected))


def test_a_single_search_gives_its_best_configurations_that_are_apart():
    worse = [point(3 + index, 0.5, lr) for index, lr in enumerate((1e-1, 1e-4, 3e-4))]
    old = earlier("old", point(0, 0.89, 1.1e-2), point(1, 0.9, 1e-2), point(2, 0.8, 1e-3), *worse)
    start = taken([old], num_warm=2)
    assert start.recipes == (
        {"optimizer.lr": 1e-2, "freeze.depth": 0.5},
        {"optimizer.lr": 1e-3, "freeze.depth": 0.5},
    )
    assert start.whose == ("trial 1 of old", "trial 2 of old")
    assert (start.by, start.notes) == ("auto", ())
    assert start.looked_at == ("old: likeness 1.00, 2 classes, 200 training images, 'resnet18', 6 trials",)


def test_the_second_is_good_where_the_first_is_bad():
    """Of b the best is bad in a and the other way round; a second best of a would add less than the best of b."""
    a = earlier("a", point(0, 0.9, 1e-4, 0), point(1, 0.8, 3e-4, 0), point(2, 0.2, 1e-1, 1.0), point(3, 0.1, 3e-2, 1.0))
    b = earlier("b", point(0, 0.9, 1e-1, 1.0), point(1, 0.8, 3e-2, 1.0), point(2, 0.2, 1e-4, 0), point(3, 0.1, 3e-4, 0))
    assert taken([a, b], num_warm=2).whose == ("trial 0 of a", "trial 0 of b")


def test_one_that_is_good_in_all_is_taken_before_those_that_are_best_in_one():
    good = {"lr": 1e-2, "depth": 0.5}
    searches = [
        earlier(
            name,
            point(0, 0.9, best, 0),
            point(1, 0.85, **good),
            *(point(2 + index, 0.2 - index / 100, lr, 0) for index, lr in enumerate((1e-4, 1e-3, 1e-1)) if lr != best),
        )
        for name, best in (("a", 1e-4), ("b", 1e-3), ("c", 1e-1))
    ]
    (first,) = taken(searches, num_warm=1).recipes
    assert first == {"optimizer.lr": 1e-2, "freeze.depth": 0.5}


def test_searches_on_images_like_these_count_more():
    like = earlier("like", point(0, 0.9, 1e-4), point(1, 0.1, 1e-1))
    unlike = [
        earlier(f"unlike-{index}", point(0, 0.9, 1e-1), point(1, 0.1, 1e-4), images=data(*[10_000] * 200))
        for index in range(2)
    ]
    assert taken([*unlike, like], num_warm=1).whose == ("trial 0 of like",)


def test_the_order_in_which_searches_are_given_changes_nothing_that_is_taken():
    a = earlier("a", point(0, 0.9, 1e-4), point(1, 0.3, 1e-2), point(2, 0.2, 1e-1))
    b = earlier("b", point(0, 0.9, 1e-1), point(1, 0.3, 1e-3), point(2, 0.2, 1e-4))
    assert taken([a, b]).recipes == taken([b, a]).recipes


def test_what_the_space_does_not_have_is_left_out_and_said_and_what_the_search_lacks_is_left_open():
    vary = {
        "optimizer.lr": {"log": [1e-4, 1e-3]},
        "freeze.depth": {"choice": [0.5]},
        "model.dropout": {"choice": [0.0, 0.2]},
    }
    worse = [point(2 + index, 0.5, 1e-4) for index in range(2)]
    start = taken([earlier("old", point(0, 0.9, 1e-2), point(1, 0.8, 5e-4, 0), *worse)], vary=vary)
    assert start.recipes == ({"freeze.depth": 0.5}, {"optimizer.lr": 5e-4})
    assert start.notes == (
        "trial 0 of old: optimizer.lr: 0.01 is outside 0.0001 to 0.001, drawn anew",
        "trial 1 of old: freeze.depth: 0 is outside 0.5, drawn anew",
    )


def test_a_value_that_was_fixed_is_carried_over_to_where_it_is_searched():
    start = taken([earlier("old", trial(0, 0.9), vary={}, base={"optimizer.lr": 3e-3})])
    assert start.recipes == ({"optimizer.lr": 3e-3},)


def test_a_search_of_other_values_altogether_is_said():
    vary = {"augment.strength": {"choice": ["none", "light"]}}
    start = taken([earlier("old", trial(0, 0.9, **{"augment.strength": "light"}), vary=vary)])
    assert (start.recipes, start.notes) == ((), ("old: has no configuration of this space",))


def test_no_configuration_of_the_worse_half_of_a_search_is_taken():
    rates = (1e-4, 4e-4, 2e-3, 1e-2, 5e-2)
    old = earlier("old", *(point(index, 0.9 - index / 100, lr) for index, lr in enumerate(rates)))
    assert taken([old], num_warm=5).whose == ("trial 0 of old", "trial 1 of old", "trial 2 of old")


def test_a_failed_configuration_is_never_taken_and_counts_as_the_worst():
    a = earlier("a", point(0, 0.9, 1e-4), point(1, None, 1e-1, state="FAILED"))
    b = earlier("b", point(0, 0.9, 1e-1), point(1, 0.8, 1e-4), point(2, 0.1, 1e-2))
    start = taken([a, b])
    assert start.whose[0] == "trial 0 of a"  # best in one, second in the other
    assert "trial 1 of a" not in start.whose


def test_what_is_tried_first_anyway_is_not_taken_twice():
    old = earlier("old", point(0, 0.9, 1e-2), point(1, 0.8, 1e-3), point(2, 0.5, 1e-4))
    start = taken([old], try_first=[{"optimizer.lr": 1e-2, "freeze.depth": 0.5}])
    assert start.whose == ("trial 1 of old",)


def test_no_search_gives_nothing():
    assert taken([]).recipes == ()
