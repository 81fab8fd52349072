"""What follows a verdict: judged, registered, made champion, judged again where the champion changed meanwhile."""

import json
import shutil
from dataclasses import replace

import pytest

from search.promotion.candidate import answer_test_once
from search.promotion.promote import MOST_ROUNDS
from search.promotion.promote import settle as settle_candidate
from search.promotion.refit import Recipe, RefittedModel
from search.tracking.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from search.tracking.tracker import runs_of
from trainable.data.packaged import PACKAGE
from trainable.errors import OutageError

pytestmark = pytest.mark.slow

METRIC = "val/balanced_accuracy"
RECIPES = [
    Recipe((2,), models=(RefittedModel(7, (0,), {METRIC: 0.7}), RefittedModel(8, (1,), {METRIC: 0.9}))),
    Recipe((1,), why_not="refit 2 failed: diverged"),
]
LENIENT = {"max_ece": None, "min_recall": 0.0, "mcnemar_p": None, "better_by": -1.0, "old_tolerance": 1.0}


@pytest.fixture
def place(make_search, empty_database, tmp_path):
    """A search and the registry of its model, which has no version yet."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    search = make_search()
    tracking = search.spec.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    rule = search.spec.promote.model_copy(update=LENIENT)
    search = replace(search, spec=search.spec.model_copy(update={"tracking": tracking, "promote": rule}))
    return search, Registry(tracking.uri, name="cells", lock_folder=tmp_path)


@pytest.fixture
def make_candidate(place, served, tmp_path):
    """Makes a candidate of a served model, with as good answers to its test images as are asked for."""
    search, _ = place

    def make(*, lr=1e-3, right=True):
        model = served("old", lr=lr)
        search.ledger.note(data={"fingerprint": model.fingerprint, "fingerprints": {"path": [model.fingerprint]}})
        folder = tmp_path / f"model {lr}"
        shutil.rmtree(folder, ignore_errors=True)
        candidate = answer_test_once(search, recipes=RECIPES, package=model.folder / PACKAGE, folder=folder)
        share = candidate.test.probabilities * 0
        for row, label in enumerate(candidate.test.labels):
            share[row, label if right else 1 - label] = 1.0
        return replace(candidate, test=replace(candidate.test, probabilities=share))

    return make


@pytest.fixture
def settle(place, tmp_path):
    """Settles on a candidate; nobody hears of it unless told to."""
    search, usual = place

    def call(candidate, *, registry=usual, dry_run=False, force=False, tell=lambda line: None):
        runs = runs_of(search.spec, search.ledger, folder=tmp_path)
        return settle_candidate(candidate, registry=registry, runs=runs, dry_run=dry_run, force=force, tell=tell)

    return call


def aliases(registry):
    return {alias: found.number for alias in (CHAMPION, CHALLENGER, PREVIOUS) if (found := registry.by_alias(alias))}


def test_a_dry_run_judges_and_registers_nothing(place, make_candidate, settle):
    promotion = settle(make_candidate(), dry_run=True)
    assert (promotion.outcome, promotion.version, promotion.champion) == ("dry run", None, None)
    assert promotion.verdict.promote
    assert place[1].of_candidate(promotion.candidate.digest) is None


def test_a_good_candidate_becomes_champion_with_its_verdict_in_tags(place, make_candidate, settle):
    promotion = settle(make_candidate())
    assert (promotion.outcome, promotion.version, promotion.forced) == ("promoted", 1, False)
    assert aliases(place[1]) == {CHAMPION: 1}
    tags = place[1].version(1).tags
    assert tags["gate.verdict"] == "yes"
    assert tags["search.recipe"] == "trial 2"
    assert tags["search.seed"] == "8"
    assert tags["data.fingerprint"] == promotion.candidate.model.fingerprint
    assert "per_class" not in json.loads(tags["gate.numbers"])["test"]
    again = settle(make_candidate())
    assert (again.outcome, again.version, again.evidence) == ("unchanged", 1, None)


def test_a_bad_candidate_is_the_challenger_until_somebody_insists(place, make_candidate, settle):
    settle(make_candidate())
    refused = settle(make_candidate(lr=1e-2, right=False))
    assert (refused.outcome, refused.version, refused.champion) == ("refused", 2, 1)
    assert aliases(place[1]) == {CHAMPION: 1, CHALLENGER: 2}
    forced = settle(make_candidate(lr=1e-2, right=False), force=True)
    assert (forced.outcome, forced.version, forced.forced) == ("promoted", 2, True)
    assert aliases(place[1]) == {CHAMPION: 2, PREVIOUS: 1}
    assert place[1].version(2).tags["gate.forced"] == "true"


class Overtaken(Registry):
    """A registry in which somebody else makes versions 1 and 2 champion by turns, as often as asked, before one is switched."""

    times = 0

    def challenge(self, version):
        super().challenge(version)
        if self.times > 0:
            self.times -= 1
            with self.locked():
                self.switch(3 - self.by_alias(CHAMPION).number)


def test_where_another_became_champion_meanwhile_it_is_judged_again(place, make_candidate, settle, tmp_path):
    settle(make_candidate())
    settle(make_candidate(lr=1e-2))
    assert aliases(place[1]) == {CHAMPION: 2, PREVIOUS: 1}
    registry = Overtaken(place[1].uri, name="cells", lock_folder=tmp_path)
    third, told = make_candidate(lr=3e-3), []
    registry.times = MOST_ROUNDS
    with pytest.raises(OutageError, match="cells: others keep promoting; try again later"):
        settle(third, registry=registry, tell=told.append)
    assert told == ["cells: another version became champion meanwhile; judging again"] * MOST_ROUNDS
    registry.times = 1
    promotion = settle(third, registry=registry, tell=told.append)
    assert (promotion.outcome, promotion.version, promotion.champion) == ("promoted", 3, 2)
    assert len(told) == MOST_ROUNDS + 1


def test_as_plain_data_it_has_the_candidate_the_refits_and_every_check(make_candidate, settle):
    promotion = settle(make_candidate(), dry_run=True)
    document = json.loads(json.dumps(promotion.as_dict()))
    assert list(document)[:6] == ["outcome", "name", "version", "champion", "forced", "numbers"]
    assert document["candidate"] == {
        "recipe": "trial 2",
        "seed": 8,
        "digest": promotion.candidate.digest,
        "package": str(promotion.candidate.package),
        "test_reads": 2,
        "test_images_known": 0,
    }
    assert document["confirmed"] == [
        {"recipe": "trial 2", "values": {"7": 0.7, "8": 0.9}, "mean": pytest.approx(0.8), "why_not": ""},
        {"recipe": "trial 1", "values": {}, "mean": None, "why_not": "refit 2 failed: diverged"},
    ]
    assert document["numbers"]["champion"] is None
    assert all(check.keys() == {"name", "passed", "said"} for check in document["checks"])
