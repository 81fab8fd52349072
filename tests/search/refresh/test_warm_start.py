from datetime import UTC, datetime

from search.engine.sampling import propose, sampling_rule
from search.ledger.trials import EpochRecord, Trial
from search.refresh.warm_start import configurations, fixed_differently, recipe_of, warm_spec, warm_start
from search.space.paths import defaults
from search.space.spec import SearchSpec

VARY = {
    "optimizer.lr": {"log": [1e-4, 1e-1]},
    "freeze.depth": {"choice": [0, 0.5, 1.0]},
    "model.head": {"choice": ["linear", "mlp"]},
    "model.head_hidden": {"int": [16, 64], "when": {"model.head": "mlp"}},
}


def spec(name="new", *, vary=VARY, trials=20, **sections):
    return SearchSpec.model_validate(
        {
            "search": {"name": name, "trials": trials, "budget": {"epochs": 101}},
            "scheduler": {"min_epochs": 1, "max_epochs": 4},
            "base": {"data.path": "images"},
            "vary": vary,
            **sections,
        }
    )


def trial(number, value, **params):
    epoch = EpochRecord(number=1, metrics={"val/balanced_accuracy": value}, recorded=datetime(2026, 1, 1, tzinfo=UTC))
    params = {"optimizer.lr": 0.01, "freeze.depth": 0.5, "model.head": "linear"} | params
    return Trial(number=number, params=params, state="COMPLETE", epochs=(epoch,), target=1, origin="random")


def test_the_best_of_every_search_come_first_the_newest_before_the_older():
    newest = (spec("b"), [trial(0, 0.5), trial(1, 0.7)])
    older = (spec("a"), [trial(0, 0.9), trial(1, 0.8), trial(2, 0.1)])
    whose = [one.whose for one in configurations([newest, older])]
    assert whose == ["trial 1 of b", "trial 0 of a", "trial 0 of b", "trial 1 of a", "trial 2 of a"]


def test_only_distinct_configurations_are_taken_and_only_so_many():
    lrs = (0.01, 0.0105, 0.0001, 0.1, 0.0011, 0.0003, 0.03)
    trials = [trial(number, 0.9 - number / 100, **{"optimizer.lr": lr}) for number, lr in enumerate(lrs)]
    found = warm_start(configurations([(spec(), trials)]), spec=spec(refresh={"warm": 4}))
    assert [recipe["optimizer.lr"] for recipe in found.recipes] == [0.01, 0.0001, 0.1, 0.0011]
    assert found.notes == ()


def test_a_space_that_changed_maps_by_name_what_it_can_and_says_so():
    narrow = {
        "optimizer.lr": {"log": [1e-4, 1e-3]},
        "freeze.depth": {"choice": [0, 1.0]},
        "loss.label_smoothing": {"choice": [0.0, 0.1]},
    }
    new = spec(vary=narrow)
    values = defaults() | {"optimizer.lr": 0.01, "freeze.depth": 0.5, "model.head": "mlp"}
    recipe, lines = recipe_of(values, spec=new)
    assert recipe == {"optimizer.lr": 1e-3, "loss.label_smoothing": 0.0}
    assert lines == [
        "freeze.depth: 0.5 is none of 0, 1.0, drawn anew",
        "optimizer.lr: 0.01 is outside 0.0001 to 0.001, taken as 0.001",
    ]
    assert "model.head: 'mlp' before, fixed to 'linear' now" in fixed_differently(values, spec=new)
    elsewhere = defaults() | {"data.path": "elsewhere", "data.image_size": 224}
    told = [line for line in fixed_differently(elsewhere, spec=new) if line.startswith("data.")]
    assert told == [f"data.image_size: 224 before, fixed to {new.base.get('data.image_size', 'null')} now"]
    assert new.space.problems(recipe) == []


def test_numbers_outside_go_to_the_nearest_of_the_grid():
    new = spec(vary={"freeze.depth": {"uniform": [0.0, 0.6], "step": 0.2}, "model.head_hidden": {"int": [16, 64]}})
    recipe, _ = recipe_of(defaults() | {"freeze.depth": 0.9, "model.head_hidden": 8}, spec=new)
    assert recipe == {"freeze.depth": 0.6, "model.head_hidden": 16}
    assert new.space.problems(recipe) == []


def test_what_is_searched_under_a_condition_goes_with_it():
    values = defaults() | {"model.head": "linear", "model.head_hidden": 32, "optimizer.lr": 0.01}
    assert "model.head_hidden" not in recipe_of(values, spec=spec())[0]
    assert recipe_of(values | {"model.head": "mlp"}, spec=spec())[0]["model.head_hidden"] == 32


def test_weights_that_a_step_trained_are_named_by_the_step():
    new = spec(
        vary={"model.weights": {"choice": ["random", "ssl"]}},
        ssl={"method": "simclr"},
        base={"data.path": "images", "model.name": "test_resnet"},
    )
    values = defaults() | {"model.weights": "searches/old/ssl/backbone.safetensors"}
    assert recipe_of(values, spec=new)[0] == {"model.weights": "ssl"}


def test_a_warm_search_has_a_reduced_budget_and_eight_fresh_random_ones():
    lrs = (0.01, 0.0001, 0.1, 0.001, 0.03)
    trials = [trial(number, 0.9 - number / 100, **{"optimizer.lr": lr}) for number, lr in enumerate(lrs)]
    old = spec(trials=64)
    start = warm_start(configurations([(old, trials)]), spec=old)
    warm = warm_spec(old, start)
    assert warm.search.trials == 32
    assert warm.search.budget.epochs == 51
    assert warm_spec(spec(trials=10), start).search.trials == 13  # five warm, eight fresh
    asked = {"search": {"name": "timed", "budget": {"minutes": 30.0}}}
    timed = warm_spec(spec(**asked), start).search
    assert (timed.trials, timed.budget.minutes) == (None, 15)
    told = []
    for number in range(warm.search.trials):
        proposal = propose(told, space=warm.space, rule=sampling_rule(warm))
        told.append(
            Trial(
                number=number,
                params=proposal.encoded,
                state="COMPLETE",
                epochs=trial(0, 0.5 + number / 100).epochs,
                target=1,
                origin=proposal.origin,
            )
        )
    origins = [one.origin for one in told]
    assert origins[:13] == ["try_first"] * 5 + ["random"] * 8
    assert "tpe" in origins[13:]


def test_no_earlier_search_is_a_search_from_the_beginning():
    assert warm_start([], spec=spec()).recipes == ()
