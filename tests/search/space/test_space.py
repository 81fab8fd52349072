import json

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.samplers import RandomSampler
from optuna.trial import FixedTrial

from search.space.dimension import Choice, Number, Prior, parse_dimension
from search.space.space import make_space, possible_values
from trainable.errors import UserError

optuna.logging.set_verbosity(optuna.logging.WARNING)

STRENGTH = Choice(("none", "light", "strong"))
FLIP = Choice(("horizontal", "both"), {"augment.strength": ("light", "strong")})
ROTATE = Choice(("none", "quarter"), {"augment.flip": ("both",)})


def nested_space():
    return make_space({"augment.rotate": ROTATE, "augment.flip": FLIP, "augment.strength": STRENGTH})


def samples(space, count=50, seed=0):
    study = optuna.create_study(sampler=RandomSampler(seed=seed))
    return [space.suggest(study.ask()) for _ in range(count)]


def parsed(mapping):
    return make_space({path: parse_dimension(raw, where=f"vary.{path}") for path, raw in mapping.items()})


def mistake(raw):
    with pytest.raises(UserError) as caught:
        parse_dimension(raw, where="vary.optimizer.lr")
    return str(caught.value)


def test_conditions_come_before_what_they_govern():
    assert list(nested_space().dimensions) == ["augment.strength", "augment.flip", "augment.rotate"]


def test_only_active_values_are_suggested():
    found = {tuple(params.items()) for params in samples(nested_space())}
    assert found == {
        (("augment.strength", "none"),),
        *(
            (("augment.strength", strength), ("augment.flip", "horizontal"))
            for strength in ("light", "strong")
        ),
        *(
            (("augment.strength", strength), ("augment.flip", "both"), ("augment.rotate", rotate))
            for strength in ("light", "strong")
            for rotate in ("none", "quarter")
        ),
    }  # fmt: skip


def test_a_value_of_an_inactive_path_activates_nothing():
    params = {"augment.strength": "none", "augment.flip": "both"}
    assert nested_space().active(params) == ("augment.strength",)
    assert not nested_space().contains(params)


def test_a_whole_point_has_every_active_value():
    space = nested_space()
    assert space.contains({"augment.strength": "light", "augment.flip": "horizontal"})
    assert not space.contains({"augment.strength": "light"})


def test_a_recipe_may_leave_values_to_the_sampler():
    assert nested_space().problems({"augment.strength": "light"}) == []
    assert nested_space().problems({}) == []


@pytest.mark.parametrize(
    ("recipe", "line"),
    [
        ({"augment.strenght": "light"}, "augment.strenght: is not varied; did you mean 'augment.strength'?"),
        ({"augment.strength": "medium"}, "augment.strength: 'medium' is outside 'none', 'light', 'strong'"),
        (
            {"augment.strength": "none", "augment.flip": "both"},
            "augment.flip: is only searched when augment.strength is 'light' or 'strong'; give that too",
        ),
    ],
)
def test_a_wrong_recipe_is_one_line(recipe, line):
    assert nested_space().problems(recipe) == [line]


def test_lists_are_json_text_in_optuna_and_lists_outside():
    space = make_space({"freeze.depth": Choice((0.5, "stage2", ["stage3", "stage4"]))})
    trial = FixedTrial({"freeze.depth": '["stage3", "stage4"]'})
    assert space.suggest(trial) == {"freeze.depth": ["stage3", "stage4"]}
    assert space.encoded({"freeze.depth": ["stage3", "stage4"]}) == {"freeze.depth": '["stage3", "stage4"]'}
    assert space.decoded({"freeze.depth": '["stage3", "stage4"]'}) == {"freeze.depth": ["stage3", "stage4"]}
    assert space.decoded({"freeze.depth": "stage2"}) == {"freeze.depth": "stage2"}


def test_a_recipe_enqueued_in_optuna_comes_back_and_is_completed():
    space = nested_space()
    study = optuna.create_study(sampler=RandomSampler(seed=1))
    study.enqueue_trial(space.encoded({"augment.strength": "light", "augment.flip": "both"}))
    params = space.suggest(study.ask())
    assert params["augment.flip"] == "both"
    assert params["augment.rotate"] in ("none", "quarter")


def test_log_samples_have_a_uniform_logarithm():
    space = parsed({"optimizer.lr": {"log": [1e-5, 1e-1]}})
    below = sum(params["optimizer.lr"] < 1e-3 for params in samples(space, 400))
    assert 160 <= below <= 240  # half of 400, four standard deviations (10) either side


def test_a_step_gives_the_grid():
    space = parsed({"freeze.depth": {"uniform": [0, 1], "step": 0.25}})
    assert {params["freeze.depth"] for params in samples(space)} == {0.0, 0.25, 0.5, 0.75, 1.0}


def test_whole_numbers_are_whole():
    space = parsed({"model.head_hidden": {"int": [8, 64], "log": True}, "train.accumulate": {"int": [2, 8], "step": 3}})
    found = samples(space)
    assert all(type(params["model.head_hidden"]) is int for params in found)
    assert {params["train.accumulate"] for params in found} == {2, 5, 8}


@pytest.mark.parametrize(
    ("value", "inside"),
    [(1, True), (4, True), (5, False), (2, False), (True, False), ("1", False), (1.0, False), (0, False)],
)
def test_a_stepped_whole_number_contains_its_grid_only(value, inside):
    assert Number(low=1, high=4, whole=True, step=3).contains(value) is inside


def test_zero_is_not_false():
    assert not Choice((0, 1)).contains(False)
    assert Choice((0, 1)).contains(0)


def test_values_under_a_condition_are_those_it_lets_through():
    space = nested_space()
    assert possible_values(space, "augment.strength", given="augment.rotate") == ("light", "strong")
    assert possible_values(space, "augment.strength", given="augment.strength") == ("none", "light", "strong")


def test_a_circle_of_conditions_is_told_with_its_paths():
    with pytest.raises(UserError) as caught:
        make_space({"c": Choice((1,), {"a": (1,)}), "a": Choice((1,), {"b": (1,)}), "b": Choice((1,), {"a": (1,)})})
    assert str(caught.value) == "vary.a.when: depends on itself (a -> b -> a)"


def test_conditions_that_exclude_each_other_are_refused():
    with pytest.raises(UserError) as caught:
        make_space({"a": Choice((1, 2)), "b": Choice((1, 2), {"a": (1,)}), "c": Choice((1,), {"b": (2,), "a": (2,)})})
    assert str(caught.value) == "vary.c.when: can never hold, a would have to be 2 and 1 at once"


def test_a_condition_outside_the_other_range_is_refused():
    with pytest.raises(UserError, match=r"^vary\.b\.when\.a: 3 is outside 1, 2$"):
        make_space({"a": Choice((1, 2)), "b": Choice((1,), {"a": (3,)})})
    with pytest.raises(UserError, match=r"^vary\.b\.when\.a: 9 is outside 1 to 4$"):
        make_space({"a": Number(low=1, high=4, whole=True), "b": Choice((1,), {"a": (9,)})})


def test_a_condition_on_a_continuous_range_is_refused():
    with pytest.raises(
        UserError, match=r"^vary\.b\.when\.a: a is a continuous range; a condition needs a choice or int$"
    ):
        make_space({"a": Number(low=0.0, high=1.0), "b": Choice((1,), {"a": (0.5,)})})


FORMS = "{choice: [...]}, {uniform: [low, high]}, {log: [low, high]} or {int: [low, high]}"


@pytest.mark.parametrize(
    ("raw", "line"),
    [
        (0.1, f": got 0.1, must be {FORMS}; a fixed value belongs in base"),
        ({}, f": says no range, must be {FORMS}"),
        ({"when": {"a": 1}}, f": says no range, must be {FORMS}"),
        ({"logg": [1, 2]}, ".logg: unknown key; did you mean 'log'?"),
        ({"log": [1, 2], "step": 1}, ".step: unknown key; known: confidence, log, prior, when"),
        ({"choice": [1], "uniform": [1, 2]}, f": got both choice and uniform, must be {FORMS}"),
        ({"choice": []}, ".choice: is empty, must list at least one value"),
        ({"choice": "none"}, ".choice: got 'none', must be a list of values"),
        ({"choice": [1, 2, 1]}, ".choice: lists 1 twice"),
        ({"choice": ['["stem"]', ["stem"]]}, '.choice: lists ["stem"] twice'),
        ({"log": []}, ".log: got [], must be [low, high]"),
        ({"log": [1e-5]}, ".log: got [1e-05], must be [low, high]"),
        ({"log": ["1", 2]}, ".log: got '1', must be a finite number"),
        ({"uniform": [0, float("inf")]}, ".uniform: got inf, must be a finite number"),
        ({"log": [1e-5, 1e-6]}, ": upper bound 1e-06 is below lower bound 1e-05"),
        ({"log": [0, 1]}, ": a log range needs a lower bound above 0, got 0"),
        ({"uniform": [0.5, 0.5]}, ": both bounds are 0.5; a fixed value belongs in base"),
        ({"uniform": [0.5, 1.0], "step": 0.3}, ".step: 0.3 does not divide the range from 0.5 to 1.0"),
        ({"uniform": [0.5, 1.0], "step": 2}, ".step: 2 is larger than the range from 0.5 to 1.0"),
        ({"uniform": [0.5, 1.0], "step": -0.1}, ".step: got -0.1, must be above 0"),
        ({"int": [1, 8.5]}, ".int: got 8.5, must be a whole number"),
        ({"int": [1, 8], "step": 0.5}, ".step: got 0.5, must be a whole number"),
        ({"int": [1, 8], "log": "yes"}, ".log: got 'yes', must be true or false"),
        ({"int": [1, 8], "log": True, "step": 7}, ".step: a log range takes no step"),
        ({"choice": [1], "when": "a"}, ".when: got 'a', must be {path: value} or {path: [values]}"),
        ({"choice": [1], "when": {"a": []}}, ".when.a: is empty, must list at least one value"),
        ({"log": [1e-5, 1e-2], "prior": 0.1}, ".prior: 0.1 is outside 1e-05 to 0.01"),
        ({"int": [1, 9], "step": 2, "prior": 4}, ".prior: 4 is outside 1 to 9 in steps of 2"),
        ({"choice": ["adamw", "sgd"], "prior": "adam"}, ".prior: 'adam' is outside 'adamw', 'sgd'"),
        (
            {"log": [1, 2], "prior": 1, "confidence": "hgh"},
            ".confidence: got 'hgh', must be low, medium or high; did you mean 'high'?",
        ),
        ({"log": [1, 2], "prior": 1, "confidence": 0.5}, ".confidence: got 0.5, must be low, medium or high"),
        ({"log": [1, 2], "confidence": "low"}, ".confidence: has no effect without a prior; give that too"),
        ({"log": [1, 2], "priors": 1}, ".priors: unknown key; did you mean 'prior'?"),
    ],
)
def test_a_wrong_dimension_is_one_line(raw, line):
    assert mistake(raw) == f"vary.optimizer.lr{line}"


def as_text(value):
    return value if isinstance(value, str) else json.dumps(value)


@st.composite
def spaces(draw):
    """Plain spaces of up to six paths; later ones may depend on earlier choices, never so that nothing can hold."""
    mapping = {}
    for index in range(draw(st.integers(1, 6))):
        path = draw(st.sampled_from("abcdefgh")) + str(index)
        raw = draw(dimensions())
        owners = [name for name, other in mapping.items() if "choice" in other and "when" not in other]
        if owners and draw(st.booleans()):
            owner = draw(st.sampled_from(owners))
            members = mapping[owner]["choice"]
            raw["when"] = {owner: draw(st.lists(st.sampled_from(members), min_size=1, unique_by=as_text))}
        mapping[path] = raw
    return mapping


def dimensions():
    floats = st.floats(1e-6, 1e3, allow_subnormal=False)
    pairs = st.tuples(floats, floats).filter(lambda pair: pair[0] < pair[1]).map(list)
    wholes = st.tuples(st.integers(1, 500), st.integers(501, 1000)).map(list)
    scalars = st.one_of(
        st.text('xyz[,]"', max_size=4), st.integers(2, 9), st.lists(st.sampled_from(["stem", "stage1"]), max_size=2)
    )
    return st.one_of(
        st.builds(lambda members: {"choice": members}, st.lists(scalars, min_size=1, max_size=4, unique_by=as_text)),
        st.builds(lambda pair: {"uniform": pair}, pairs),
        st.builds(lambda pair: {"log": pair}, pairs),
        st.builds(lambda pair, log: {"int": pair, "log": log}, wholes, st.booleans()),
        st.builds(lambda low, step, count: {"int": [low, low + step * count], "step": step}, *[st.integers(1, 9)] * 3),
    )


def lies_in_what_was_written(value, raw):
    if "choice" in raw:
        return value in raw["choice"]
    low, high = raw.get("int") or raw.get("log") or raw["uniform"]
    return low <= value <= high


def test_a_prior_is_read_and_written_null_too():
    raw = {"choice": [None, "stage3"], "prior": None, "confidence": "high"}
    assert parse_dimension(raw, where="x").prior == Prior(None, "high")
    assert parse_dimension(raw, where="x").plain() == raw
    assert parse_dimension({"log": [1e-5, 1e-2], "prior": 1e-3}, where="x").prior == Prior(1e-3, "medium")
    assert parse_dimension({"choice": [None, "stage3"]}, where="x").prior is None


@given(spaces(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_every_sample_is_a_point_of_its_space(mapping, seed):
    space = parsed(mapping)
    for params in samples(space, 5, seed=seed):
        assert space.contains(params)
        assert set(params) == {
            path
            for path, raw in mapping.items()
            if all(params.get(owner, ...) in values for owner, values in raw.get("when", {}).items())
        }
        assert all(lies_in_what_was_written(value, mapping[path]) for path, value in params.items())


@given(spaces(), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_samples_survive_optuna_and_json(mapping, seed):
    space = parsed(mapping)
    for params in samples(space, 3, seed=seed):
        assert space.decoded(json.loads(json.dumps(space.encoded(params)))) == params


@given(spaces())
@settings(max_examples=60, deadline=None)
def test_a_space_written_as_yaml_reads_back_the_same(mapping):
    space = parsed(mapping)
    assert parsed(yaml.safe_load(yaml.safe_dump(space.plain()))) == space


@given(spaces(), st.randoms(use_true_random=False), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_the_order_of_keys_changes_no_sample(mapping, shuffler, seed):
    shuffled = list(mapping.items())
    shuffler.shuffle(shuffled)
    assert samples(parsed(dict(shuffled)), 3, seed=seed) == samples(parsed(mapping), 3, seed=seed)
    assert list(parsed(dict(shuffled)).dimensions) == list(parsed(mapping).dimensions)
