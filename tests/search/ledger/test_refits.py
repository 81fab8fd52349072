"""The study of a search's refits, beside the search's own."""

import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from search.ledger import ledger as ledgers
from search.ledger.notes import SoupResult
from search.ledger.refits import (
    MOST_SEED,
    CandidateNote,
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
    candidate = CandidateNote(package="refits/packages/a/package", said="trial 2")
    soup = SoupResult(of=[0, 2], members=[0], measured={"val/loss": 0.5})
    note_candidate(refits, candidate)
    note_tested(refits, ["a", "b"])
    note_soup(refits, soup, seed=77)
    found = refit_notes(existing_refits(spec, folder=tmp_path))
    assert (found.candidate, found.tested, found.soups) == (candidate, ("a", "b"), {77: soup})
