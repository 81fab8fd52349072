"""The study of a search's refits, beside the search's own."""

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from search.ledger import ledger as ledgers
from search.ledger.notes import SoupResult
from search.ledger.refits import (
    MOST_SEED,
    CandidateNote,
    FinishedSearch,
    existing_refits,
    note_candidate,
    note_soup,
    note_tested,
    open_refits,
    refit_config,
    refit_notes,
)
from search.space.loading import load

TEXT = """
search: {name: cells, trials: 3}
scheduler: {max_epochs: 3}
base: {data: {path: images}}
vary: {optimizer.lr: {log: [1e-4, 1e-2]}}
"""


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.yaml").write_text(TEXT)
    return load("space.yaml")


def test_a_refit_is_the_trial_with_another_seed(spec):
    own = refit_config(spec, {"optimizer.lr": 2e-3, "seed": 77})
    assert own == spec.trial_config({"optimizer.lr": 2e-3}) | {"seed": 77}


def test_the_searchs_own_study_knows_nothing_of_refits(spec, tmp_path):
    notes = {"metric": spec.search.metric}
    ledgers.create(tmp_path, name="cells", storage=None, space=spec.space, metric=spec.search.metric, notes=notes)
    assert existing_refits(spec, folder=tmp_path) is None
    distributions = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "seed": IntDistribution(0, MOST_SEED)}
    refits = open_refits(spec, folder=tmp_path)
    refits.start(encoded={"optimizer.lr": 3e-3, "seed": 1}, distributions=distributions, target=3, origin="try_first")
    own = ledgers.open_existing(tmp_path, name="cells", storage=None, space=spec.space)
    assert len(own.trials()) == 0
    assert len(existing_refits(spec, folder=tmp_path).trials()) == 1


def test_what_a_promotion_notes_is_read_back(spec, tmp_path):
    refits = open_refits(spec, folder=tmp_path)
    assert (refit_notes(refits).candidate, refit_notes(refits).tested, refit_notes(refits).soups) == (None, (), {})
    candidate = CandidateNote(package="refits/packages/a/package", recipe="trial 2")
    soup = SoupResult(of=[0, 2], members=[0], measured={"val/loss": 0.5})
    note_candidate(refits, candidate)
    note_tested(refits, ["a", "b"])
    note_soup(refits, soup, seed=77)
    found = refit_notes(existing_refits(spec, folder=tmp_path))
    assert (found.candidate, found.tested, found.soups) == (candidate, ("a", "b"), {77: soup})


@pytest.fixture
def make_search(spec, tmp_path):
    """Opens a search of one trial, which has read its test split once, with as many refits as it has seeds."""

    def make(*, seeds=2, seed=0):
        promote = spec.promote.model_copy(update={"confirm": spec.promote.confirm.model_copy(update={"seeds": seeds})})
        search = spec.search.model_copy(update={"seed": seed})
        changed = spec.model_copy(update={"promote": promote, "search": search})
        metric, folder = spec.search.metric, tmp_path / f"{seeds}.{seed}"
        notes = {"metric": metric, "test": {"trial": 0}}
        ledger = ledgers.create(folder, name="cells", storage=None, space=spec.space, metric=metric, notes=notes)
        start(ledger, {"optimizer.lr": 3e-3})
        return FinishedSearch(spec=changed, ledger=ledger, refits=open_refits(changed, folder=folder), folder=folder)

    return make


def start(ledger, params, **overrides):
    known = {"optimizer.lr": FloatDistribution(1e-4, 1e-2, log=True), "seed": IntDistribution(0, MOST_SEED)}
    distributions = {path: known[path] for path in params}
    return ledger.start(encoded=params, distributions=distributions, target=3, origin="try_first", **overrides)


def test_seeds_are_fresh_and_more_of_them_begin_with_the_same(make_search):
    few, many = make_search(seeds=2).fresh_seeds(), make_search(seeds=4).fresh_seeds()
    assert many[:2] == few
    assert len(set(many)) == 4
    assert set(make_search(seeds=4, seed=1).fresh_seeds()).isdisjoint(many)
    assert 0 not in many


def test_of_several_refits_with_a_seed_the_newest_counts(make_search):
    search = make_search()
    first, second = search.fresh_seeds()
    for seed in (first, second, first):
        start(search.refits, {"optimizer.lr": 3e-3, "seed": seed})
    assert search.find_refit(0, seed=first).number == 2
    assert search.find_refit(0, seed=second).number == 1
    assert search.refit_config(1) == search.spec.trial_config({"optimizer.lr": 3e-3}) | {"seed": second}


def test_a_probe_with_the_values_of_a_trial_has_refits_of_its_own_with_what_it_has_in_their_place(make_search):
    search = make_search(seeds=1)
    (seed,) = search.fresh_seeds()
    solved = {"finetune.strategy": "linear_probe", "finetune.solver": "lbfgs", "optimizer.lr": 1e-3}
    probe = start(search.ledger, {"optimizer.lr": 3e-3}, overrides=solved)
    start(search.refits, {"optimizer.lr": 3e-3, "seed": seed}, overrides=solved)
    start(search.refits, {"optimizer.lr": 3e-3, "seed": seed})
    assert [search.find_refit(number, seed=seed).number for number in (probe, 0)] == [0, 1]
    config = search.refit_config(0)
    assert (config["finetune"]["solver"], config["optimizer"]["lr"], config["seed"]) == ("lbfgs", 1e-3, seed)
    assert search.refit_config(1)["optimizer"]["lr"] == 3e-3


def test_every_read_of_the_test_split_is_counted(make_search):
    search = make_search()
    assert search.num_test_reads == 1  # the search's own
    note_tested(search.refits, ["a", "b"])
    assert search.num_test_reads == 3
