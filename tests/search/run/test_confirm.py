"""The last candidates of a search, trained again in the study of refits: over real ledgers, reports as workers send them."""

import shutil

import pytest
from optuna.distributions import FloatDistribution

from search.engine.limits import Limits
from search.engine.reports import EpochReport, Infeasible
from search.ledger import ledger as ledgers
from search.ledger.refits import FinishedSearch, fresh_seed, open_refits
from search.ledger.trials import best_trial
from search.promotion.refit import best_recipes, refit_points
from search.run.confirm import Workshop, candidates, confirm_candidates, confirming
from search.run.refitting import points_of, refit_conductor
from search.space.loading import load

METRIC = "val/balanced_accuracy"
LR = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}
LAST = 3
TEXT = """
search: {{name: cells, trials: 4, confirm: {confirm}}}
scheduler: {{max_epochs: 3}}
promote: {{confirm: {{top: 2, seeds: 2}}}}
base: {{data: {{path: images}}}}
vary: {{optimizer.lr: {{log: [1e-4, 1e-1]}}}}
"""


@pytest.fixture
def make_search(tmp_path, monkeypatch):
    """A search whose four trials are decided, the last of them stopped early although it has the best value."""

    def make(folder=tmp_path, *, confirm=2):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "space.yaml").write_text(TEXT.format(confirm=confirm))
        spec = load("space.yaml")
        notes = {"metric": METRIC}
        ledger = ledgers.create(folder, name="cells", storage=None, space=spec.space, metric=METRIC, notes=notes)
        for number, value in enumerate((0.7, 0.9, 0.8, 0.99)):
            if number < len(ledger.trials()):
                continue
            ledger.start(encoded={"optimizer.lr": 10.0 ** -(number + 1)}, distributions=LR, target=LAST, origin="tpe")
            for epoch in range(1, 2 if number == 3 else LAST + 1):
                ledger.record(number, epoch=epoch, metrics={METRIC: value - 0.1 / epoch, "usage/seconds": 10.0})
            ledger.end(number, state="PRUNED" if number == 3 else "COMPLETE", reason="")
        ledger.write_alone()
        return FinishedSearch(spec=spec, ledger=ledger, refits=open_refits(spec, folder=folder), folder=folder)

    return make


def no_place():
    raise AssertionError("nothing is left to train")


def workshop(**limits):
    return Workshop(
        place=no_place,
        is_joined=False,
        at_once=1,
        limits=Limits(**limits),
        refit_changed=lambda refit, of: None,
        on_step=lambda: None,
    )


def conductor_of(search):
    points = points_of(search, numbers=[1, 2], seeds=[fresh_seed(search.spec, index=0)])
    return refit_conductor(search, points=points, on_change=lambda refit: None, clock=None)


def value_of(params, epoch):
    """With the other seed trial 1 falls far behind trial 2."""
    return (0.5 if params["optimizer.lr"] == 1e-2 else 0.8) + epoch / 100


def play(search, *, calls=None):
    """Train the refits; the driver is lost after so many reports."""
    conductor, done = conductor_of(search), 0
    while (leg := conductor.next_leg()) is not None:
        for epoch in range(leg.start + 1, LAST + 1):
            if done == calls:
                return
            metrics = {METRIC: value_of(leg.params, epoch), "usage/seconds": 10.0}
            ended = "last epoch" if epoch == LAST else None
            conductor.report(leg.number, report=EpochReport(epoch, metrics, ended))
            done += 1
        conductor.leg_over(leg.number)


def confirm(search, **limits):
    confirm_candidates(search.spec, search.ledger, folder=search.folder, workshop=workshop(**limits))


def test_the_best_of_those_trained_to_the_end_are_the_candidates(make_search):
    search = make_search()
    assert candidates(search.spec, search.ledger.trials()) == [1, 2]


def test_the_winner_is_the_best_on_average_over_its_seeds(make_search):
    search = make_search()
    assert best_trial(search.ledger.trials(), metric=METRIC).number == 3
    play(search)
    confirm(search)
    best = best_trial(search.ledger.trials(), metric=METRIC)
    assert best.number == 2
    assert best.mean(METRIC, metric=METRIC) == pytest.approx((0.8 - 0.1 / 3 + 0.83) / 2)
    assert search.ledger.trial(1).mean(METRIC, metric=METRIC) == pytest.approx((0.9 - 0.1 / 3 + 0.53) / 2)
    reader = ledgers.open_existing(search.folder, name="cells", storage=None, space=search.spec.space)
    assert [dict(metrics) for metrics in reader.trial(2).confirmed] == [{METRIC: pytest.approx(0.83)}]
    assert best_trial(reader.trials(), metric=METRIC).number == 2
    assert [trial.number for trial in search.ledger.trials() if trial.confirmed] == [1, 2]


def test_the_sampler_and_the_scheduler_see_nothing_of_it(make_search):
    search = make_search()
    before = [(trial.params, trial.epochs) for trial in search.ledger.trials()]
    play(search)
    confirm(search)
    assert [(trial.params, trial.epochs) for trial in search.ledger.trials()] == before


@pytest.mark.parametrize("calls", range(1, 2 * LAST))
def test_a_driver_lost_after_any_epoch_of_it_changes_nothing(make_search, tmp_path, calls):
    whole, killed = make_search(tmp_path / "whole"), make_search(tmp_path / "killed")
    play(whole)
    confirm(whole)
    play(killed, calls=calls)
    again = make_search(tmp_path / "killed")
    play(again)
    confirm(again)
    assert again.ledger.notes.confirmation == whole.ledger.notes.confirmation
    assert [(t.params, t.state, t.values(METRIC)) for t in again.refits.trials()] == [
        (t.params, t.state, t.values(METRIC)) for t in whole.refits.trials()
    ]


def test_a_candidate_that_fails_with_the_other_seed_does_not_win(make_search):
    search = make_search()
    conductor = conductor_of(search)
    first = conductor.next_leg()
    conductor.report(first.number, report=Infeasible("diverged"))
    conductor.leg_over(first.number)
    play(search)
    confirm(search)
    assert best_trial(search.ledger.trials(), metric=METRIC).number == 2
    failed, _ = search.ledger.notes.confirmation.trials
    assert (failed.number, failed.why_not) == (1, "refit 0 failed: diverged")


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        ({"epochs": 15}, "it takes 6 epochs, search.budget leaves 5"),
        ({"gpu_hours": 159 / 3600}, "it takes 60 seconds of work, search.budget leaves 59"),
    ],
)
def test_where_the_budget_is_too_small_that_is_noted_and_one_seed_decides(make_search, limits, line):
    search = make_search()
    confirm(search, **limits)
    assert search.ledger.notes.confirmation.why_not == line
    assert best_trial(search.ledger.trials(), metric=METRIC).number == 3
    assert search.refits.trials() == []


def test_what_is_begun_of_it_is_counted_once(make_search, tmp_path):
    search = make_search()
    play(search, calls=4)
    kept = confirming(search.spec, folder=tmp_path, at_once=1)
    assert (kept.count, kept.until, kept.spent_epochs, kept.spent_seconds) == (2, LAST, 4, 40.0)


def test_a_search_that_goes_on_takes_it_back_and_has_it_again_without_training(make_search):
    search = make_search()
    play(search)
    confirm(search)
    noted = search.ledger.notes.confirmation
    search.ledger.confirm(None)
    assert search.ledger.notes.confirmation is None
    assert not any(trial.confirmed for trial in search.ledger.trials())
    assert best_trial(search.ledger.trials(), metric=METRIC).number == 3
    confirm(search)
    assert search.ledger.notes.confirmation == noted


def test_a_promotion_takes_these_refits_for_its_first(make_search):
    search = make_search()
    play(search)
    confirm(search)
    recipes = best_recipes(search.spec, search.ledger)
    assert [recipe.trials for recipe in recipes] == [(2,), (1,)]
    points = refit_points(search, recipes=recipes)
    assert len(points) == 4
    assert [point.params for point in points[:2]] == [trial.params for trial in search.refits.trials()]
    first, second = search.fresh_seeds()
    assert [point.params["seed"] for point in points] == [first, first, second, second]


def test_without_it_nothing_is_kept_and_nothing_is_noted(make_search, tmp_path):
    search = make_search(confirm=0)
    shutil.rmtree(tmp_path / "refits", ignore_errors=True)
    assert confirming(search.spec, folder=tmp_path, at_once=1) is None
    confirm(search)
    assert search.ledger.notes.confirmation is None
