"""Which recipes are trained again, with which seeds, and which of them holds up."""

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from search.ledger.notes import SoupResult
from search.ledger.refits import MOST_SEED, note_soup
from search.promotion.refit import best_recipes, confirm, refit_points

METRIC = "val/balanced_accuracy"


def confirmed(search):
    return confirm(search, address="not to be joined", on_change=lambda trial: None)


def test_the_best_trials_are_refitted_and_the_soup_where_it_was_kept(make_spec, ledger):
    spec = make_spec(top=2)
    assert [recipe.trials for recipe in best_recipes(spec, ledger)] == [(2,), (1,)]
    ledger.note(test={"trial": 2, "soup": [2, 0], "reads": 1})
    assert [recipe.as_text for recipe in best_recipes(spec, ledger)] == ["trial 2", "trial 1", "soup of trials 2, 0"]


def test_the_best_by_mean_comes_first_and_of_it_the_best_seed(make_search):
    values = {(2, 0): 0.95, (2, 1): 0.65, (1, 0): 0.81, (1, 1): 0.85}  # trial 2 was lucky
    search = make_search(values)
    found = confirmed(search)
    assert [(recipe.trials, pytest.approx(recipe.mean(METRIC))) for recipe in found] == [((1,), 0.83), ((2,), 0.80)]
    assert found[0].best_model(METRIC).refits == (3,)
    assert found[0].best_model(METRIC).seed == search.fresh_seeds()[1]


def test_a_recipe_with_a_refit_that_failed_is_out(make_search):
    found = confirmed(make_search({(2, 0): 0.95, (2, 1): None, (1, 0): 0.5, (1, 1): 0.5}))
    assert [recipe.trials for recipe in found] == [(1,), (2,)]
    assert found[1].why_not == "refit 1 failed: diverged"


def test_refits_of_a_soup_are_judged_as_a_soup(make_search, ledger):
    ledger.note(test={"trial": 2, "soup": [2, 1], "reads": 1})
    values = {(2, 0): 0.8, (2, 1): 0.7, (1, 0): 0.6, (1, 1): 0.75}
    search = make_search(values, top=1)
    for place, (of, measured) in enumerate((([0, 2], 0.9), ([3, 1], 0.8))):  # the best refit first
        seed = search.fresh_seeds()[place]
        note_soup(search.refits, SoupResult(of=of, members=of, measured={METRIC: measured}), seed=seed)
        search.soup_path(seed=seed).parent.mkdir(parents=True, exist_ok=True)
        search.soup_path(seed=seed).write_bytes(b"weights")
    found = confirmed(search)
    assert [(recipe.as_text, pytest.approx(recipe.mean(METRIC))) for recipe in found] == [
        ("soup of trials 2, 1", 0.85),
        ("trial 2", 0.75),
    ]
    assert found[0].best_model(METRIC).refits == (0, 2)


def test_a_refit_that_only_lost_its_workers_is_begun_anew(make_search, record):
    search = make_search({(2, 0): 0.9}, top=1)
    recipes, refits = best_recipes(search.spec, search.ledger), search.refits
    first, second = ({"optimizer.lr": 3e-3, "seed": seed} for seed in search.fresh_seeds())
    assert [point.params for point in refit_points(search, recipes=recipes)] == [first, second]
    number = refits.start(
        encoded=second,
        distributions={"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "seed": IntDistribution(0, MOST_SEED)},
        target=3,
        origin="try_first",
    )
    refits.count_failure(number, failure={"reason": "lost", "of_machine": True, "details": ""})
    refits.end(number, state="FAILED", reason="failed 4 times: the worker was lost")
    assert [point.params for point in refit_points(search, recipes=recipes)] == [first, second, second]
    record(refits, {**second}, {METRIC: 0.8})
    (found,) = confirmed(search)
    assert [model.metrics[METRIC] for model in found.models] == [0.9, 0.8]
