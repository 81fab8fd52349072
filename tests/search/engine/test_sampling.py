import random
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from search.engine.history import History
from search.engine.sampling import (
    KEPT_BEST,
    MODEL_SIZE,
    SAMPLERS,
    Sampling,
    model_rung,
    num_waiting,
    propose,
    propose_another,
    rung_study,
)
from search.ledger.trials import EpochRecord, Trial
from search.space.dimension import parse_dimension, without_prior
from search.space.space import make_space

METRIC = "val/accuracy"


def make(**dimensions):
    return make_space({path: parse_dimension(raw, where=path) for path, raw in dimensions.items()})


SPACE = make(
    **{
        "optimizer.lr": {"log": [1e-5, 1e-1]},
        "freeze.depth": {"choice": [0, 0.5, ["stage3", "stage4"]]},
        "model.head": {"choice": ["linear", "mlp"]},
        "model.head_hidden": {"int": [64, 512], "when": {"model.head": "mlp"}},
    }
)


def rule(sampler="tpe", **changes):
    return Sampling(
        **({"sampler": sampler, "seed": 1, "random_share": 0.0, "metric": METRIC, "rungs": (1, 3, 9)} | changes)
    )


def trial(number, params, values, state="PRUNED"):
    epochs = tuple(
        EpochRecord(number=i, metrics={METRIC: v}, recorded=datetime.now(UTC)) for i, v in enumerate(values, start=1)
    )
    return Trial(number=number, params=params, state=state, epochs=epochs, target=len(values), origin="random")


def history(count, value_of, length=1):
    """Trials drawn at random, with a value that depends on their parameters."""
    trials = []
    for number in range(count):
        params = propose(trials, space=SPACE, rule=rule("random")).encoded
        trials.append(trial(number, params, [value_of(params)] * length))
    return trials


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
def test_a_model_finds_what_random_draws_miss(sampler):
    """The value falls with the distance of log10(lr) to -2: the model's next rates are nearer than random ones."""
    import math

    trials = history(20, lambda p: -abs(math.log10(p["optimizer.lr"]) + 2))
    distances = {}
    for name in (sampler, "random"):
        proposals = [propose(trials, space=SPACE, rule=rule(name, seed=seed)) for seed in range(12)]
        distances[name] = sum(abs(math.log10(p.params["optimizer.lr"]) + 2) for p in proposals) / 12
    assert distances[sampler] < distances["random"] / 1.5


def test_the_model_reads_the_highest_rung_with_enough_results():
    enough = len(SPACE.dimensions) + 3
    low = history(20, lambda p: 0.5)
    high = [trial(t.number, t.params, [0.5] * 3) for t in low]
    reads = lambda trials: model_rung(trials, num_dimensions=len(SPACE.dimensions), rule=rule())  # noqa: E731
    assert reads(low[: enough - 1]) is None
    assert reads(low[:enough]) == 1
    assert reads([*high[: enough - 1], *low[enough - 1 :]]) == 1
    assert reads([*high[:enough], *low[enough:]]) == 3


def test_a_value_of_a_later_epoch_is_never_compared_with_one_of_an_earlier():
    params = propose([], space=SPACE, rule=rule()).encoded
    trials = [trial(0, params, [0.2, 0.9, 0.9]), trial(1, params, [0.5])]
    assert [t.value for t in rung_study(trials, space=SPACE, rung=1, metric=METRIC).trials] == [0.2, 0.5]
    assert [t.value for t in rung_study(trials, space=SPACE, rung=3, metric=METRIC).trials] == [0.9]


def test_a_failed_trial_counts_as_the_worst_and_a_running_one_as_unknown():
    params = propose([], space=SPACE, rule=rule()).encoded
    trials = [
        trial(0, params, [0.4]),
        trial(1, params, [], "FAILED"),
        Trial(number=2, params=params, state="RUNNING", epochs=(), target=1, origin="random"),
        trial(3, params, [0.7]),
    ]
    study = rung_study(trials, space=SPACE, rung=1, metric=METRIC)
    assert [(t.state.name, t.value) for t in study.trials] == [
        ("COMPLETE", 0.4),
        ("COMPLETE", 0.4),
        ("RUNNING", None),
        ("COMPLETE", 0.7),
    ]


def test_a_rung_that_no_trial_has_reached_has_no_values():
    params = propose([], space=SPACE, rule=rule()).encoded
    at_work = Trial(
        number=0, params=params, state="RUNNING", epochs=trial(0, params, [0.4]).epochs, target=3, origin="random"
    )
    study = rung_study([at_work, trial(1, params, [0.2], "FAILED")], space=SPACE, rung=3, metric=METRIC)
    assert [(t.state.name, t.value) for t in study.trials] == [("RUNNING", None)]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_that_reached_a_rung_without_a_value_leave_a_proposal_to_make(sampler):
    params = propose([], space=SPACE, rule=rule()).encoded
    epochs = (EpochRecord(number=1, metrics={"val/loss": 1.0}, recorded=datetime.now(UTC)),)
    trials = [
        Trial(number=number, params=params, state="FAILED", epochs=epochs, target=1, origin="random")
        for number in range(len(SPACE.dimensions) + 3)
    ]
    assert SPACE.contains(propose(trials, space=SPACE, rule=rule(sampler)).params)


def test_a_sampler_is_fitted_to_the_best_of_many_results_and_to_others_thinned_evenly():
    params = propose([], space=SPACE, rule=rule()).encoded
    trials = [trial(number, params, [0.9 if number % 10 == 3 else number / 1000]) for number in range(400)]
    trials[13] = trial(13, params, [0.95], "FAILED")
    study = rung_study(trials, space=SPACE, rung=1, metric=METRIC, most=125)
    values = [t.value for t in study.trials]
    assert len(values) == 125
    assert values.count(0.9) >= KEPT_BEST  # of 39 that are as good
    assert values[-1] == 0.399
    others = [round(value * 1000) for value in values if value < 0.9]
    gaps = [after - before for before, after in pairwise(others)]
    assert 1 <= min(gaps) <= max(gaps) <= 5
    assert len(rung_study(trials, space=SPACE, rung=1, metric=METRIC).trials) == 400


def test_ten_times_the_results_cost_a_proposal_hardly_more_calls(calls_of):
    params = [proposal.params for proposal in (propose([], space=SPACE, rule=rule(seed=seed)) for seed in range(40))]
    counts = []
    for size in (MODEL_SIZE, 10 * MODEL_SIZE):
        chance = random.Random(0)
        records = History(trial(n, params[n % 40], [chance.random()]) for n in range(size))
        records.ranking(METRIC, rung=1)
        counts.append(calls_of(lambda: propose(records, space=SPACE, rule=rule(rungs=(1,)))))  # noqa: B023
    assert counts[1] < 1.2 * counts[0]


def test_recipes_come_first_and_what_they_leave_open_is_drawn():
    recipes = ({"optimizer.lr": 0.001, "freeze.depth": ["stage3", "stage4"]}, {"model.head": "mlp"})
    first = propose([], space=SPACE, rule=rule(try_first=recipes))
    assert first.origin == "try_first"
    assert first.params["optimizer.lr"] == 0.001
    assert first.params["freeze.depth"] == ["stage3", "stage4"]
    second = propose([trial(0, first.encoded, [0.5])], space=SPACE, rule=rule(try_first=recipes))
    assert second.params["model.head"] == "mlp"
    assert 64 <= second.params["model.head_hidden"] <= 512


def test_no_configuration_is_proposed_twice_and_an_exhausted_space_says_so():
    space = make(**{"freeze.depth": {"choice": [0, 0.5, 1.0]}, "model.head": {"choice": ["linear", "mlp"]}})
    trials = []
    while (proposal := propose(trials, space=space, rule=rule("tpe"))) is not None:
        trials.append(trial(len(trials), proposal.encoded, [0.5]))
    seen = {tuple(sorted(t.params.items())) for t in trials}
    assert len(trials) == len(seen) == 6


@pytest.mark.parametrize("sampler", ["random", *SAMPLERS])
def test_a_choice_may_be_null(sampler):
    space = make(**{"model.until": {"choice": [None, "stage3"]}, "optimizer.lr": {"log": [1e-5, 1e-1]}})
    trials = []
    for number in range(12):
        proposal = propose(trials, space=space, rule=rule(sampler))
        trials.append(trial(number, space.decoded(proposal.encoded), [0.9 if proposal.params["model.until"] else 0.1]))
    assert {trial.params["model.until"] for trial in trials} == {None, "stage3"}


def test_a_large_finite_space_is_searched_to_its_last_point():
    space = make(**{"train.accumulate": {"int": [1, 12]}, "train.batch_size": {"int": [2, 13]}})
    trials = []
    while (proposal := propose(trials, space=space, rule=rule("random"))) is not None:
        trials.append(trial(len(trials), proposal.encoded, [0.5]))
    assert len(trials) == 144


def test_a_trial_that_waits_lower_is_not_taken_for_one_at_work():
    params = propose([], space=SPACE, rule=rule()).encoded
    waiting = Trial(
        number=0, params=params, state="RUNNING", epochs=trial(0, params, [0.4]).epochs, target=1, origin="random"
    )
    at_work = Trial(
        number=1, params=params, state="RUNNING", epochs=trial(0, params, [0.4]).epochs, target=3, origin="random"
    )
    study = rung_study([waiting, at_work, trial(2, params, [0.1] * 3)], space=SPACE, rung=3, metric=METRIC)
    assert [(t.state.name, t.value) for t in study.trials] == [("RUNNING", None), ("COMPLETE", 0.1)]


def test_a_share_of_the_proposals_stays_random():
    trials = history(20, lambda p: p["optimizer.lr"])
    origins = [propose(trials, space=SPACE, rule=rule(random_share=0.5, seed=s)).origin for s in range(40)]
    assert 10 <= origins.count("random") <= 30
    assert origins.count("random") + origins.count("tpe") == 40


KNOWN = make(
    **{
        "optimizer.lr": {"log": [1e-5, 1e-1], "prior": 1e-3, "confidence": "high"},
        "freeze.depth": {"choice": [0, 0.5, ["stage3", "stage4"]], "prior": 0.5},
        "model.head": {"choice": ["linear", "mlp"]},
        "model.head_hidden": {"int": [64, 512], "when": {"model.head": "mlp"}, "prior": 128},
    }
)


def test_a_recipe_that_was_too_long_for_the_time_is_proposed_again_and_another_in_its_place_is_none():
    recipes = ({"optimizer.lr": 1e-2}, {"optimizer.lr": 1e-3})
    led = rule(try_first=recipes, sampler="random")
    first = replace(trial(0, propose([], space=KNOWN, rule=led).params, [0.5]), origin="try_first")
    others = [propose_another([first], space=KNOWN, rule=led, attempt=attempt) for attempt in (1, 1, 2)]
    assert {other.origin for other in others} == {"random"}
    assert others[0] == others[1]
    assert others[0].params != others[2].params
    second = trial(1, others[0].params, [0.5])
    assert num_waiting([first, second], rule=led) == 1
    assert propose([first, second], space=KNOWN, rule=led).params["optimizer.lr"] == 1e-3


def test_after_the_recipes_comes_the_point_of_the_priors():
    recipe = {"optimizer.lr": 1e-2}
    first = propose([], space=KNOWN, rule=rule(try_first=(recipe,)))
    assert (first.origin, first.params["optimizer.lr"]) == ("try_first", 1e-2)
    begun = replace(trial(0, first.params, [0.5]), origin=first.origin)
    for seed in range(8):
        centre = propose([begun], space=KNOWN, rule=rule(try_first=(recipe,), seed=seed, sampler="random"))
        assert centre.origin == "prior"
        assert (centre.params["optimizer.lr"], centre.params["freeze.depth"]) == (1e-3, 0.5)
        assert centre.params.get("model.head_hidden", 128) == 128
        assert KNOWN.contains(centre.params)


def test_priors_make_half_of_the_first_proposals_and_hardly_any_once_there_are_many_results():
    results = [trial(number, {"optimizer.lr": 1e-2, "model.head": "linear"}, [0.5]) for number in range(60)]
    origins = {
        count: [propose(results[:count], space=KNOWN, rule=rule("random", seed=seed)).origin for seed in range(100)]
        for count in (1, 10, 60)
    }
    shares = {count: of_count.count("prior") for count, of_count in origins.items()}
    assert 35 <= shares[1] <= 60
    assert 15 <= shares[10] <= 35
    assert shares[60] <= 5


def test_a_point_of_the_priors_that_was_tried_is_not_proposed_again():
    space = make(**{"freeze.depth": {"choice": [0, 0.5], "prior": 0.5}, "model.head": {"choice": ["linear", "mlp"]}})
    trials = []
    while (proposal := propose(trials, space=space, rule=rule("tpe"))) is not None:
        trials.append(trial(len(trials), proposal.params, [0.5]))
    assert len({tuple(sorted(one.params.items())) for one in trials}) == len(trials) == 4


def test_a_space_without_priors_is_proposed_from_as_if_there_were_none_to_be_had():
    plain = {path: parse_dimension(without_prior(raw), where=path) for path, raw in KNOWN.plain().items()}
    trials = history(20, lambda p: p["optimizer.lr"])
    for seed in range(5):
        of_plain = propose(trials, space=make_space(plain), rule=rule(seed=seed))
        assert of_plain == propose(trials, space=SPACE, rule=rule(seed=seed))
        assert of_plain.origin != "prior"
