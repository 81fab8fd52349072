from search.engine.recipes import best_first, fixed_differently, is_near, recipe_of
from search.ledger.trials import Trial
from search.space.paths import defaults


def test_a_space_that_changed_maps_by_name_what_it_can_and_says_so(made_spec):
    narrow = {
        "optimizer.lr": {"log": [1e-4, 1e-3]},
        "freeze.depth": {"choice": [0, 1.0]},
        "loss.label_smoothing": {"choice": [0.0, 0.1]},
    }
    new = made_spec(vary=narrow)
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


def test_numbers_outside_go_to_the_nearest_of_the_grid(made_spec):
    new = made_spec(vary={"freeze.depth": {"uniform": [0.0, 0.6], "step": 0.2}, "model.head_hidden": {"int": [16, 64]}})
    recipe, _ = recipe_of(defaults() | {"freeze.depth": 0.9, "model.head_hidden": 8}, spec=new)
    assert recipe == {"freeze.depth": 0.6, "model.head_hidden": 16}
    assert new.space.problems(recipe) == []


def test_what_is_searched_under_a_condition_goes_with_it(made_spec):
    values = defaults() | {"model.head": "linear", "model.head_hidden": 32, "optimizer.lr": 0.01}
    assert "model.head_hidden" not in recipe_of(values, spec=made_spec())[0]
    assert recipe_of(values | {"model.head": "mlp"}, spec=made_spec())[0]["model.head_hidden"] == 32


def test_weights_that_a_step_trained_are_named_by_the_step(made_spec):
    new = made_spec(
        vary={"model.weights": {"choice": ["random", "ssl"]}},
        ssl={"method": "simclr"},
        base={"data.path": "images", "model.name": "test_resnet"},
    )
    values = defaults() | {"model.weights": "searches/old/ssl/backbone.safetensors"}
    assert recipe_of(values, spec=new)[0] == {"model.weights": "ssl"}


def test_the_best_of_a_search_come_first_and_whole_but_for_its_probe(made_spec, made_trial):
    probe = Trial(number=2, params={}, state="COMPLETE", epochs=made_trial(2, 0.99).epochs, target=1, origin="probe")
    found = list(best_first((made_spec("a"), [made_trial(0, 0.5), made_trial(1, 0.7, **{"freeze.depth": 1.0}), probe])))
    assert [one.whose for one in found] == ["trial 1 of a", "trial 0 of a"]
    assert found[0].values["freeze.depth"] == 1.0
    assert set(found[0].values) >= set(defaults())


def test_recipes_count_as_one_where_they_are_hardly_apart_in_every_path(made_spec):
    space = made_spec().space
    recipe = {"optimizer.lr": 0.01, "freeze.depth": 0.5}
    assert is_near(recipe, recipe | {"optimizer.lr": 0.012}, space=space)
    assert not is_near(recipe, recipe | {"optimizer.lr": 0.03}, space=space)
    assert not is_near(recipe, recipe | {"freeze.depth": 1.0}, space=space)
    assert not is_near(recipe, recipe | {"model.head": "mlp"}, space=space)
