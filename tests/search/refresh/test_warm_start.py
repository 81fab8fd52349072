from search.engine.sampling import propose, sampling_rule
from search.ledger.trials import Trial
from search.refresh.warm_start import configurations, warm_spec, warm_start


def test_the_best_of_every_search_come_first_the_newest_before_the_older(made_spec, made_trial):
    newest = (made_spec("b"), [made_trial(0, 0.5), made_trial(1, 0.7)])
    older = (made_spec("a"), [made_trial(0, 0.9), made_trial(1, 0.8), made_trial(2, 0.1)])
    whose = [one.whose for one in configurations([newest, older])]
    assert whose == ["trial 1 of b", "trial 0 of a", "trial 0 of b", "trial 1 of a", "trial 2 of a"]


def test_only_distinct_configurations_are_taken_and_only_so_many(made_spec, made_trial):
    lrs = (0.01, 0.0105, 0.0001, 0.1, 0.0011, 0.0003, 0.03)
    trials = [made_trial(number, 0.9 - number / 100, **{"optimizer.lr": lr}) for number, lr in enumerate(lrs)]
    found = warm_start(configurations([(made_spec(), trials)]), spec=made_spec(refresh={"warm": 4}))
    assert [recipe["optimizer.lr"] for recipe in found.recipes] == [0.01, 0.0001, 0.1, 0.0011]
    assert found.notes == ()


def test_a_warm_search_has_a_reduced_budget_and_eight_fresh_random_ones(made_spec, made_trial):
    lrs = (0.01, 0.0001, 0.1, 0.001, 0.03)
    trials = [made_trial(number, 0.9 - number / 100, **{"optimizer.lr": lr}) for number, lr in enumerate(lrs)]
    old = made_spec(trials=64)
    start = warm_start(configurations([(old, trials)]), spec=old)
    warm = warm_spec(old, start)
    assert warm.search.trials == 32
    assert warm.search.budget.epochs == 51
    assert warm_spec(made_spec(trials=10), start).search.trials == 13  # five warm, eight fresh
    asked = {"search": {"name": "timed", "budget": {"minutes": 30.0}}}
    timed = warm_spec(made_spec(**asked), start).search
    assert (timed.trials, timed.budget.minutes) == (None, 15)
    told = []
    for number in range(warm.search.trials):
        proposal = propose(told, space=warm.space, rule=sampling_rule(warm))
        told.append(
            Trial(
                number=number,
                params=proposal.encoded,
                state="COMPLETE",
                epochs=made_trial(0, 0.5 + number / 100).epochs,
                target=1,
                origin=proposal.origin,
            )
        )
    origins = [one.origin for one in told]
    assert origins[:13] == ["try_first"] * 5 + ["random"] * 8
    assert "tpe" in origins[13:]


def test_no_earlier_search_is_a_search_from_the_beginning(made_spec):
    assert warm_start([], spec=made_spec()).recipes == ()
