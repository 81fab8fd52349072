"""Which recipes are trained again, with which seeds, and which of them holds up."""

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from search.ledger import ledger as ledgers
from search.ledger.notes import SoupResult
from search.ledger.refits import MOST_SEED, existing_refits, note_soup, open_refits, refit_config
from search.promotion.refit import (
    best_model,
    check_judgeable,
    confirm,
    fresh_seeds,
    recipes,
    refit_points,
    soup_weights,
)
from search.space.dimension import Number
from search.space.loading import load
from search.space.space import make_space
from trainable.errors import UserError

METRIC = "val/balanced_accuracy"
RATES = (1e-3, 2e-3, 3e-3)
TEXT = """
search: {{name: cells, trials: 3, seed: {seed}}}
scheduler: {{max_epochs: 3}}
promote: {{confirm: {{top: {top}, seeds: {seeds}}}}}
base: {{data: {{path: images}}}}
vary: {{optimizer.lr: {{log: [1e-4, 1e-2]}}}}
"""


@pytest.fixture
def make_spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def make(*, top=2, seeds=2, seed=0):
        (tmp_path / "space.yaml").write_text(TEXT.format(top=top, seeds=seeds, seed=seed))
        return load("space.yaml")

    return make


@pytest.fixture
def ledger(tmp_path):
    """Three ended trials, each better than the one before."""
    ledger = ledgers.create(
        tmp_path,
        name="cells",
        storage=None,
        space=make_space({"optimizer.lr": Number(low=1e-4, high=1e-2, log=True)}),
        metric=METRIC,
        notes={"metric": METRIC},
    )
    for rate, value in zip(RATES, (0.7, 0.8, 0.9), strict=True):
        record(ledger, {"optimizer.lr": rate}, {METRIC: value})
    ledger.note(test={"trial": 2, "soup": None, "reads": 1})
    return ledger


def record(ledger, params, metrics, *, state="COMPLETE"):
    known = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "seed": IntDistribution(0, MOST_SEED)}
    distributions = {path: known[path] for path in params}
    number = ledger.start(encoded=params, distributions=distributions, target=3, origin="try_first")
    ledger.record(number, epoch=1, metrics=metrics)
    ledger.record(number, epoch=2, metrics={name: value / 2 for name, value in metrics.items()}, ended="last epoch")
    ledger.end(number, state=state, reason="diverged" if state == "FAILED" else "last epoch")
    return number


def trained(spec, ledger, folder, values):
    """All refits as if they had been trained: ``values`` by trial and seed's place."""
    refits = open_refits(spec, folder=folder)
    for (trial, place), value in values.items():
        params = {**ledger.trial(trial).params, "seed": fresh_seeds(spec)[place]}
        state = "COMPLETE" if value is not None else "FAILED"
        record(refits, params, {METRIC: 0.1 if value is None else value}, state=state)
    return refits


def confirmed(spec, ledger, refits, folder):
    return confirm(spec, ledger, refits, folder=folder, address="not to be joined", tell=lambda trial: None)


def test_the_best_trials_are_refitted_and_the_soup_where_it_was_kept(make_spec, ledger):
    spec = make_spec(top=2)
    assert [recipe.trials for recipe in recipes(spec, ledger)] == [(2,), (1,)]
    ledger.note(test={"trial": 2, "soup": [2, 0], "reads": 1})
    assert [recipe.said for recipe in recipes(spec, ledger)] == ["trial 2", "trial 1", "soup of trials 2, 0"]


def test_seeds_are_fresh_and_more_of_them_begin_with_the_same(make_spec):
    few, many = fresh_seeds(make_spec(seeds=2)), fresh_seeds(make_spec(seeds=4))
    assert many[:2] == few
    assert len(set(many)) == 4
    assert set(fresh_seeds(make_spec(seeds=4, seed=1))).isdisjoint(many)
    assert 0 not in many


def test_a_refit_is_the_trial_with_another_seed(make_spec, ledger):
    spec = make_spec()
    own = refit_config(spec, {"optimizer.lr": 2e-3, "seed": 77})
    assert own == spec.trial_config({"optimizer.lr": 2e-3}) | {"seed": 77}


def test_the_best_by_mean_comes_first_and_of_it_the_best_seed(make_spec, ledger, tmp_path):
    spec = make_spec()
    values = {(2, 0): 0.95, (2, 1): 0.65, (1, 0): 0.81, (1, 1): 0.85}  # trial 2 was lucky
    refits = trained(spec, ledger, tmp_path, values)
    found = confirmed(spec, ledger, refits, tmp_path)
    assert [(one.recipe.trials, pytest.approx(one.mean(METRIC))) for one in found] == [((1,), 0.83), ((2,), 0.80)]
    assert best_model(found[0], metric=METRIC).refits == (3,)
    assert best_model(found[0], metric=METRIC).seed == fresh_seeds(spec)[1]


def test_a_recipe_with_a_refit_that_failed_is_out(make_spec, ledger, tmp_path):
    spec = make_spec()
    refits = trained(spec, ledger, tmp_path, {(2, 0): 0.95, (2, 1): None, (1, 0): 0.5, (1, 1): 0.5})
    found = confirmed(spec, ledger, refits, tmp_path)
    assert [one.recipe.trials for one in found] == [(1,), (2,)]
    assert found[1].why_not == "refit 1 failed: diverged"


def test_refits_of_a_soup_are_judged_as_a_soup(make_spec, ledger, tmp_path):
    spec = make_spec(top=1)
    ledger.note(test={"trial": 2, "soup": [2, 1], "reads": 1})
    values = {(2, 0): 0.8, (2, 1): 0.7, (1, 0): 0.6, (1, 1): 0.75}
    refits = trained(spec, ledger, tmp_path, values)
    for place, (of, measured) in enumerate((([0, 2], 0.9), ([3, 1], 0.8))):  # the best refit first
        seed = fresh_seeds(spec)[place]
        note_soup(refits, SoupResult(of=of, members=of, measured={METRIC: measured}), seed=seed)
        soup_weights(tmp_path, seed=seed).parent.mkdir(parents=True, exist_ok=True)
        soup_weights(tmp_path, seed=seed).write_bytes(b"weights")
    found = confirmed(spec, ledger, refits, tmp_path)
    assert [(one.recipe.said, pytest.approx(one.mean(METRIC))) for one in found] == [
        ("soup of trials 2, 1", 0.85),
        ("trial 2", 0.75),
    ]
    assert best_model(found[0], metric=METRIC).refits == (0, 2)


def test_the_searchs_own_study_knows_nothing_of_refits(make_spec, ledger, tmp_path):
    spec = make_spec()
    assert existing_refits(spec, folder=tmp_path) is None
    trained(spec, ledger, tmp_path, {(2, 0): 0.9})
    own = ledgers.open_existing(tmp_path, name="cells", storage=None, space=spec.space)
    assert len(own.trials()) == 3
    assert len(existing_refits(spec, folder=tmp_path).trials()) == 1


def test_what_no_labelled_image_can_judge_is_not_trained_again(make_spec, ledger, tmp_path):
    make_spec()
    text = (tmp_path / "space.yaml").read_text()
    adapted = text.replace("data: {path: images}", "data: {path: images, target: others}, adapt: {method: adabn}")
    (tmp_path / "space.yaml").write_text(adapted)
    with pytest.raises(UserError, match="trial 2 takes its batch norms from the target .adapt.method: adabn."):
        check_judgeable(load("space.yaml"), ledger)
    (tmp_path / "space.yaml").write_text(adapted.replace("target: others", "target: others, oracle: true"))
    check_judgeable(load("space.yaml"), ledger)
    (tmp_path / "space.yaml").write_text(adapted.replace("adabn", "mmd"))
    check_judgeable(load("space.yaml"), ledger)


def test_a_refit_that_only_lost_its_workers_is_begun_anew(make_spec, ledger, tmp_path):
    spec = make_spec(top=1)
    refits = trained(spec, ledger, tmp_path, {(2, 0): 0.9})
    first, second = ({"optimizer.lr": 3e-3, "seed": seed} for seed in fresh_seeds(spec))
    assert refit_points(spec, ledger, refits, wanted=recipes(spec, ledger)) == [first, second]
    number = refits.start(
        encoded=second,
        distributions={"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "seed": IntDistribution(0, MOST_SEED)},
        target=3,
        origin="try_first",
    )
    refits.count_attempt(number)
    refits.end(number, state="FAILED", reason="failed 4 times: the worker was lost")
    assert refit_points(spec, ledger, refits, wanted=recipes(spec, ledger)) == [first, second, second]
    record(refits, {**second}, {METRIC: 0.8})
    (found,) = confirmed(spec, ledger, refits, tmp_path)
    assert [model.metrics[METRIC] for model in found.models] == [0.9, 0.8]
