from pathlib import Path

from search.ledger.refreshes import Record, space_identity
from search.refresh import searches
from search.refresh.warm_start import WarmStart
from search.space.spec import SearchSpec

KEEP = Path("/versions/abc.parquet")
SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "cells", "trials": 40, "seed": 7, "budget": {"gpu_hours": 8.0}},
        "scheduler": {"min_epochs": 1, "max_epochs": 9},
        "tracking": {"uri": "sqlite:///mlflow.db"},
        "baselines": ["scratch"],
        "base": {"data.path": "images"},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}, "freeze.depth": {"choice": [0, 0.5]}},
        "try_first": [{"optimizer.lr": 1e-3}],
    }
)
RECORD = Record(
    number=2, key="0123456789abcdef", identity={}, fingerprint="f" * 32, code="1", began="2026-01-01T00:00:00+00:00"
)


def test_searches_of_a_refresh_are_named_by_its_key():
    assert searches.search_name(SPEC, RECORD) == "cells.01234567"
    assert searches.search_name(SPEC, RECORD, is_refit=True) == "cells.01234567.refit"


def test_all_searches_of_a_model_share_experiment_and_registered_model():
    found = searches.full_search(SPEC, name="cells.01234567", keep_splits=KEEP)
    assert (found.tracking.experiment, found.model_name) == ("cells", "cells")
    assert found.base["data.keep_splits"] == str(KEEP)
    assert searches.full_search(SPEC, name="cells", keep_splits=KEEP) == SPEC


def test_where_the_images_lie_is_no_change_of_the_space():
    moved = SPEC.model_copy(update={"base": SPEC.base | {"data.path": "other", "data.keep_splits": "x"}})
    assert space_identity(SearchSpec.model_validate(moved.model_dump())) == space_identity(SPEC)
    other = SPEC.model_copy(update={"base": SPEC.base | {"data.image_size": 64}})
    assert space_identity(SearchSpec.model_validate(other.model_dump())) != space_identity(SPEC)


def test_a_search_of_other_data_draws_other_random_configurations():
    names = ("cells.01234567", "cells.89abcdef")
    seeds = {searches.full_search(SPEC, name=name, keep_splits=KEEP).search.seed for name in names}
    assert len(seeds | {SPEC.search.seed}) == 3


def test_a_refit_is_one_trial_of_one_recipe_trained_in_full():
    recipe = {"optimizer.lr": 0.01, "freeze.depth": 0.5}
    found = searches.refit_search(SPEC, recipe, name="cells.01234567.refit", keep_splits=KEEP)
    assert (found.search.trials, found.search.budget.gpu_hours, found.scheduler.name) == (1, None, "none")
    assert found.try_first == [recipe]
    assert (found.soup, found.baselines, found.promote.confirm.top) == (0, [], 1)


def test_a_warm_search_spends_a_share_of_the_budget():
    start = WarmStart(
        recipes=({"optimizer.lr": 0.01, "freeze.depth": 0.5},), whose=("the champion, version 1",), notes=()
    )
    found = searches.warm_search(SPEC, start, name="cells.01234567", keep_splits=KEEP)
    assert (found.search.trials, found.search.budget.gpu_hours) == (20, 4.0)
    assert found.try_first == [*start.recipes, *SPEC.try_first]
    assert found.sampler.fresh == 8
