"""What every sampler keeps: its next proposal is a point of the space and follows from what is recorded alone."""

import math
from datetime import UTC, datetime
from typing import get_args

import pytest

from search.engine.sampling import SAMPLERS, Sampling, propose
from search.ledger.ledger import create, open_existing
from search.ledger.trials import EpochRecord, Trial
from search.space.dimension import parse_dimension
from search.space.space import make_space
from search.space.spec import SamplerSection

METRIC = "val/accuracy"
SPACE = make_space(
    {
        path: parse_dimension(raw, where=path)
        for path, raw in {
            "optimizer.lr": {"log": [1e-5, 1e-1]},
            "optimizer.layer_decay": {"uniform": [0.5, 1.0], "step": 0.1},
            "freeze.depth": {"choice": [0, 0.5, ["stage3", "stage4"]]},
            "model.head": {"choice": ["linear", "mlp"]},
            "model.head_hidden": {"int": [64, 512], "when": {"model.head": "mlp"}},
        }.items()
    }
)
ENOUGH = len(SPACE.dimensions) + 3


def rule(sampler, **changes):
    return Sampling(
        **({"sampler": sampler, "seed": 1, "random_share": 0.0, "metric": METRIC, "rungs": (1, 3, 9)} | changes)
    )


def ended(number, params, value, state="PRUNED"):
    epochs = (
        ()
        if value is None
        else (EpochRecord(number=1, metrics={METRIC: value}, recorded=datetime(2024, 1, 1, tzinfo=UTC)),)
    )
    return Trial(number=number, params=params, state=state, epochs=epochs, target=1, origin="random")


def value_of(params):
    """Falls with the distance of log10(lr) from -2."""
    return 1 - abs(math.log10(params["optimizer.lr"]) + 2) / 4


def history(count, *, sampler="random"):
    """Trials as a sampler proposes them, each with a value that depends on its parameters."""
    trials = []
    for number in range(count):
        params = propose(trials, space=SPACE, rule=rule(sampler)).encoded
        trials.append(ended(number, params, value_of(params)))
    return trials


def test_those_that_can_be_asked_for_are_those_there_are():
    assert set(get_args(SamplerSection.model_fields["name"].annotation)) == set(SAMPLERS)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_history_gives_the_same_proposal_and_another_seed_another(sampler):
    trials = history(12)
    first = propose(trials, space=SPACE, rule=rule(sampler))
    assert propose(trials, space=SPACE, rule=rule(sampler)) == first
    assert propose(trials, space=SPACE, rule=rule(sampler, seed=2)) != first
    assert first.origin == sampler


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_proposal_is_a_point_of_the_space_from_an_empty_history_on(sampler):
    trials = history(2 * ENOUGH, sampler=sampler)
    proposals = [propose(trials[:number], space=SPACE, rule=rule(sampler)) for number in range(len(trials))]
    for proposal in proposals:
        assert SPACE.contains(proposal.params)
        assert SPACE.decoded(proposal.encoded) == dict(proposal.params)
        assert set(proposal.distributions) == set(proposal.params)
    assert {proposal.origin for proposal in proposals} == {"random", sampler}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_a_condition_governs_is_drawn_where_it_holds_and_nowhere_else(sampler):
    trials = history(12)
    proposals = []
    for better in ("linear", "mlp"):
        favouring = [ended(one.number, one.params, float(one.params["model.head"] == better)) for one in trials]
        proposals += [propose(favouring, space=SPACE, rule=rule(sampler, seed=seed)).params for seed in range(4)]
    assert {params["model.head"] for params in proposals} == {"linear", "mlp"}
    for params in proposals:
        assert ("model.head_hidden" in params) == (params["model.head"] == "mlp")


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_failed_trial_is_worth_as_little_as_the_worst(sampler):
    trials = history(12)
    worst = min(trials, key=lambda trial: trial.best(METRIC)).best(METRIC)
    failing = [*trials, ended(12, propose(trials, space=SPACE, rule=rule("random")).encoded, None, "FAILED")]
    poor = [*trials, ended(12, failing[-1].params, worst)]
    assert propose(failing, space=SPACE, rule=rule(sampler)) == propose(poor, space=SPACE, rule=rule(sampler))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_opened_again_proposes_what_it_would_have_proposed(sampler, tmp_path):
    ledger = create(tmp_path, name="one", storage=None, metric=METRIC, space=SPACE, notes={"metric": METRIC})
    for number in range(ENOUGH + 1):
        proposal = propose(ledger.trials(), space=SPACE, rule=rule(sampler))
        ledger.start(encoded=proposal.encoded, distributions=proposal.distributions, target=1, origin=proposal.origin)
        ledger.record(number, epoch=1, metrics={METRIC: value_of(proposal.params)})
        ledger.end(number, state="PRUNED", reason="not among the best")
    unbroken = propose(ledger.trials(), space=SPACE, rule=rule(sampler))
    reopened = open_existing(tmp_path, name="one", storage=None, space=SPACE).trials()
    assert propose(reopened, space=SPACE, rule=rule(sampler)) == unbroken
    assert unbroken.origin == sampler
