"""A journal read quickly holds what Optuna's own storage reads in the same file."""

import json
import random
from functools import partial
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from search.ledger.journal import CHUNK_BYTES, Journal
from trainable.errors import UserError

DISTRIBUTIONS = {
    "lr": FloatDistribution(1e-4, 1e-1, log=True),
    "layers": IntDistribution(1, 9, step=2),
    "head": CategoricalDistribution(["linear", None, 0.5]),
}


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "ledger.journal")


def stock(path):
    return JournalStorage(JournalFileBackend(path))


def content(storage):
    """Every study with its trials, all that a storage can be asked of them."""
    studies = storage.get_all_studies()
    return [
        (study.study_name, study.directions, study.user_attrs, storage.get_all_trials(study._study_id))
        for study in studies
    ]


def play(storage, *, seed, num_events):
    """Random calls as a search makes them, and some that it never makes."""
    chance = random.Random(seed)
    study = optuna.create_study(storage=storage, study_name=f"s{seed}", direction="maximize")
    study.set_user_attr("notes", {"seed": seed})
    open_ids = []
    for event in range(num_events):
        kind = chance.choice(["begin", "attribute", "value", "value", "end"]) if open_ids else "begin"
        trial_id = chance.choice(open_ids) if open_ids else None
        match kind:
            case "begin":
                params = {"lr": 0.01, "layers": 3, "head": chance.choice(["linear", None])}
                trial = create_trial(
                    state=TrialState.RUNNING, params=params, distributions=DISTRIBUTIONS, user_attrs={"target": 3}
                )
                open_ids.append(storage.create_new_trial(study._study_id, template_trial=trial))
            case "attribute":
                key = chance.choice(["epoch:1", "epoch:2", "reason"])
                storage.set_trial_user_attr(trial_id, key, {"metrics": {"a": event / 7}, "ended": None})
            case "value":
                storage.set_trial_intermediate_value(trial_id, chance.randrange(5), event / 3)
            case "end":
                open_ids.remove(trial_id)
                state = chance.choice([TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL])
                storage.set_trial_state_values(trial_id, state, None if state == TrialState.FAIL else [0.5])
    return study


@pytest.mark.parametrize("seed", range(4))
def test_it_holds_what_optuna_reads_whoever_wrote(path, seed):
    play(stock(path), seed=seed, num_events=60)
    mine = Journal(path)
    assert content(mine) == content(stock(path))
    play(mine, seed=seed + 100, num_events=60)
    assert content(mine) == content(stock(path)) == content(Journal(path))


def test_what_another_process_writes_later_is_seen_and_what_was_given_stays_as_it_was(path):
    other = stock(path)
    study = play(other, seed=1, num_events=30)
    trial_id = study.ask()._trial_id
    mine = Journal(path)
    before = mine.get_trial(trial_id)
    other.set_trial_user_attr(trial_id, "reason", "late")
    other.set_trial_intermediate_value(trial_id, 1, 0.5)
    assert content(mine) == content(other)
    assert (before.user_attrs, before.intermediate_values) == ({}, {})


def test_what_is_said_of_a_trial_that_has_ended_or_is_not_there_counts_for_nothing(path):
    storage = stock(path)
    study = play(storage, seed=2, num_events=10)
    trial_id = study.ask()._trial_id
    storage.set_trial_state_values(trial_id, TrialState.FAIL)
    lines = [
        {"op_code": 8, "worker_id": "w", "trial_id": trial_id, "user_attr": {"reason": "late"}},
        {"op_code": 7, "worker_id": "w", "trial_id": 10_000, "step": 1, "intermediate_value": 0.1},
        {"op_code": 4, "worker_id": "w", "study_id": 10_000, "datetime_start": None},
    ]
    with Path(path).open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
    assert content(Journal(path)) == content(stock(path))


def test_a_file_of_several_chunks_is_read_whole_and_gone_on_with(path):
    study = play(stock(path), seed=3, num_events=20)
    trial_id = study.ask()._trial_id
    with Path(path).open("a") as file:
        for step in range(3):
            attr = {f"epoch:{step}": "x" * (CHUNK_BYTES // 2)}
            line = {"op_code": 8, "worker_id": "w", "trial_id": trial_id, "user_attr": attr}
            file.write(json.dumps(line) + "\n")
    mine = Journal(path)
    assert content(mine) == content(stock(path))
    mine.set_trial_user_attr(trial_id, "after", 1)
    assert mine.get_trial(trial_id).user_attrs["after"] == 1
    assert content(Journal(path)) == content(stock(path)) == content(mine)


def test_a_line_that_is_being_written_is_read_when_it_is_whole(path):
    study = play(stock(path), seed=4, num_events=20)
    trial_id = study.ask()._trial_id
    line = json.dumps({"op_code": 8, "worker_id": "w", "trial_id": trial_id, "user_attr": {"reason": "why"}}) + "\n"
    with Path(path).open("a") as file:
        file.write(line[:30])
        file.flush()
        mine = Journal(path)
        assert mine.get_trial(trial_id).user_attrs == {}
        file.write(line[30:])
    assert mine.get_trial(trial_id).user_attrs == {"reason": "why"}


@pytest.mark.parametrize("broken", ["no JSON", '{"op_code": 8}, {"op_code": 8}'])
def test_a_broken_line_in_the_middle_is_refused_where_optuna_refuses_it_in_one_line(path, broken):
    play(stock(path), seed=5, num_events=20)
    with Path(path).open("a") as file:
        file.write(f"{broken}\n")
    play_line = json.dumps({"op_code": 2, "worker_id": "w", "study_id": 0, "user_attr": {"a": 1}})
    with Path(path).open("a") as file:
        file.write(f"{play_line}\n")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        stock(path)
    with pytest.raises(UserError, match="is not as a search wrote it, so nothing of it is used") as refused:
        Journal(path)
    assert str(refused.value.__cause__) == str(error.value)


def test_opening_takes_fewer_calls_than_there_are_lines_to_copy(path, calls_of):
    """Of calls counted, Optuna's reader makes some twenty for each line."""
    storage = stock(path)
    study = play(storage, seed=6, num_events=2)
    trial_id = study.ask()._trial_id
    for epoch in range(300):
        storage.set_trial_user_attr(trial_id, f"epoch:{epoch}", {"metrics": {"a": 0.5}})
    counts = [calls_of(partial(opened, path)) for opened in (stock, Journal)]
    assert counts[1] < counts[0] / 3
