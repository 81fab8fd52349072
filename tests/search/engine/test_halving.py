from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search.engine.halving import Halving
from search.engine.rule import Close, Continue, Finish, Start, Wait
from search.ledger.trials import EpochRecord, Trial

METRIC = "val/accuracy"


def rule(mode="promote", low=1, high=9, reduction=3, finalists=1, metric=METRIC):
    return Halving(metric=metric, mode=mode, min_epochs=low, max_epochs=high, reduction=reduction, finalists=finalists)


def trial(number, values, target=1, state="RUNNING"):
    """A trial whose epochs have these values."""
    epochs = tuple(
        EpochRecord(number=i, metrics={METRIC: v}, recorded=datetime.now(UTC)) for i, v in enumerate(values, start=1)
    )
    return Trial(number=number, params={}, state=state, epochs=epochs, target=target, origin="random")


def act(trials, running=(), budget="open", **changes):
    return rule(**changes).next_action(trials, running=frozenset(running), budget=budget)


@pytest.mark.parametrize(
    ("low", "high", "reduction", "rungs"),
    [(3, 27, 3, (3, 9, 27)), (3, 20, 3, (3, 9, 20)), (1, 8, 2, (1, 2, 4, 8)), (5, 5, 3, (5,)), (2, 3, 4, (2, 3))],
)
def test_rungs_grow_by_the_reduction_and_end_with_the_training(low, high, reduction, rungs):
    assert rule(low=low, high=high, reduction=reduction).rungs == rungs


def test_the_first_action_starts_a_trial_to_the_first_rung():
    assert act([]) == Start(1)


def test_one_in_three_is_promoted_the_best_first():
    trials = [trial(0, [0.3]), trial(1, [0.9]), trial(2, [0.5])]
    assert act(trials[:2]) == Start(1)
    assert act(trials) == Continue(1, 3)


def test_a_promoted_trial_is_not_promoted_twice_and_a_later_better_one_takes_the_next_place():
    trials = [trial(0, [0.3]), trial(1, [0.9], target=3), trial(2, [0.5])]
    assert act(trials, running=[1]) == Start(1)
    more = [*trials, trial(3, [0.7]), trial(4, [0.1]), trial(5, [0.2])]
    assert act(more, running=[1]) == Continue(3, 3)


def test_the_highest_rung_is_served_first():
    low = [trial(n, [0.1 + n / 100]) for n in range(3)]
    high = [trial(3 + n, [0.5, 0.5, 0.5 + n / 100], target=3) for n in range(3)]
    assert act([*low, *high]) == Continue(5, 9)


def test_an_interrupted_trial_goes_on_before_anything_else():
    trials = [trial(0, [0.3]), trial(1, [0.9]), trial(2, [0.5]), trial(3, [0.1, 0.1], target=3)]
    assert act(trials) == Continue(3, 3)
    assert act(trials, running=[3]) == Continue(1, 3)


def test_when_the_trials_are_spent_the_running_are_awaited_and_the_best_waiting_one_is_trained_in_full():
    trials = [trial(0, [0.3]), trial(1, [0.9])]
    assert act(trials, running=[0], budget="trials spent") == Wait()
    on_its_way = [trial(0, [0.3], target=9), trial(1, [0.9])]
    assert act(on_its_way, running=[0], budget="compute spent") == Wait()
    assert act(on_its_way, running=[0], budget="compute spent", finalists=2) == Continue(1, 9)
    assert act(trials, budget="trials spent") == Continue(1, 9)
    done = [trial(0, [0.3]), trial(1, [0.9] * 9, target=9, state="COMPLETE")]
    assert act(done, budget="trials spent") == Close(0, "not among the best 1/3 at epoch 1")
    assert act([closed(done[0], "PRUNED"), done[1]], budget="trials spent") == Finish()
    assert act(done, budget="trials spent", finalists=2) == Continue(0, 9)


def test_once_the_compute_is_spent_nothing_is_promoted_but_the_finalist():
    trials = [trial(0, [0.3]), trial(1, [0.9]), trial(2, [0.5]), trial(3, [0.2, 0.2, 0.2], target=3)]
    assert act(trials, budget="trials spent") == Continue(1, 3)
    assert act(trials, budget="compute spent") == Continue(3, 9)


def test_a_failed_trial_counts_at_the_rungs_it_reached_and_is_never_promoted():
    trials = [trial(0, [0.3]), trial(1, [0.9], state="FAILED"), trial(2, [0.5])]
    assert act(trials) == Start(1)


def test_in_stop_mode_the_first_goes_on_and_a_worse_second_is_closed():
    trials = [trial(0, [0.5]), trial(1, [0.4])]
    assert rule("stop").verdict(trials[:1], number=0) == Continue(0, 3)
    assert rule("stop").verdict(trials, number=1) == Close(1, "not among the best 1/3 at epoch 1")
    assert act(trials, running=[0], mode="stop") == Close(1, "not among the best 1/3 at epoch 1")


def test_a_loss_is_ranked_from_below():
    epochs = [(EpochRecord(number=1, metrics={"val/loss": v}, recorded=datetime.now(UTC)),) for v in (0.3, 0.1, 0.2)]
    trials = [
        Trial(number=n, params={}, state="RUNNING", epochs=e, target=1, origin="random") for n, e in enumerate(epochs)
    ]
    assert rule(metric="val/loss").next_action(trials, running=frozenset(), budget="open") == Continue(1, 3)


def test_a_trial_is_judged_by_its_best_epoch_up_to_the_rung_and_not_after():
    trials = [
        trial(0, [0.8, 0.1, 0.1], target=3),
        trial(1, [0.2, 0.7, 0.2], target=3),
        trial(2, [0.1, 0.1, 0.75], target=3),
    ]
    assert act(trials, low=3, high=9, reduction=3) == Continue(0, 9)


@settings(max_examples=60, deadline=None)
@given(
    qualities=st.lists(st.floats(0, 1, allow_nan=False), min_size=1, max_size=30),
    low=st.integers(1, 3),
    reduction=st.integers(2, 4),
    levels=st.integers(0, 3),
    workers=st.integers(1, 4),
    mode=st.sampled_from(["promote", "stop"]),
)
def test_any_search_ends_with_every_trial_at_a_rung_and_the_best_among_the_promoted(
    qualities, low, reduction, levels, workers, mode
):
    """A whole search played out: each trial's value is its quality at every epoch."""
    halving = rule(mode, low=low, high=low * reduction**levels, reduction=reduction)
    values, trials, queue = dict(enumerate(qualities)), {}, []
    for _ in range(10_000):
        budget = "open" if len(trials) < len(qualities) else "trials spent"
        records = [trials[n] for n in sorted(trials)]
        action = halving.next_action(records, running=frozenset(queue), budget=budget)
        if isinstance(action, Finish):
            break
        if isinstance(action, Close):
            trials[action.number] = closed(trials[action.number], "PRUNED")
            continue
        if isinstance(action, Start):
            trials[len(trials)] = trial(len(trials), [], target=action.until)
            queue.append(len(trials) - 1)
        elif isinstance(action, Continue):
            assert trials[action.number].last_epoch < action.until
            old = trials[action.number]
            trials[action.number] = Trial(
                number=old.number, params={}, state="RUNNING", epochs=old.epochs, target=action.until, origin="random"
            )
            queue.append(action.number)
        if len(queue) >= workers or isinstance(action, Wait):
            number = queue.pop(0)
            until = trials[number].target
            state = "COMPLETE" if until == halving.max_epochs else "RUNNING"
            trials[number] = trial(number, [values[number]] * until, target=until, state=state)
    else:
        pytest.fail("the search does not end")
    assert len(trials) == len(qualities)
    assert all(t.last_epoch in halving.rungs for t in trials.values())
    assert any(t.state == "COMPLETE" for t in trials.values())
    reached = [sum(t.last_epoch >= rung for t in trials.values()) for rung in halving.rungs]
    if mode == "promote":
        assert reached == sorted(reached, reverse=True)
        best = max(values, key=lambda n: (values[n], -n))
        if levels and len(qualities) >= reduction:
            assert trials[best].last_epoch > low


def closed(record, state):
    return Trial(
        number=record.number, params={}, state=state, epochs=record.epochs, target=record.target, origin="random"
    )


def test_a_worker_that_is_free_while_the_last_finalist_is_trained_trains_one_more():
    waiting = [trial(0, [0.9] * 3, target=9), *(trial(n, [0.9 - n / 10] * 3, target=3) for n in (1, 2))]
    trials = [*waiting, trial(3, [0.1])]
    assert act(trials, running=[0], budget="trials spent") == Continue(1, 9)
    assert act(trials, running=[0], budget="compute spent") == Wait()
    both = [trials[0], trial(1, [0.8] * 3, target=9), *trials[2:]]
    assert act(both, running=[0, 1], budget="trials spent") == Wait()
    far_on = [trial(0, [0.9] * 6, target=9), *trials[1:]]
    assert act(far_on, running=[0], budget="trials spent") == Wait()  # the other would end later
