"""What is chosen from real ledgers in one folder, and that it is chosen once."""

import logging

import pytest

from search.engine.sampling import propose, sampling_rule
from search.ledger import ledger as ledgers
from search.ledger.notes import DataFacts
from search.ledger.stored import SPEC_FILE
from search.run.warm_start import choose_warm_start, note_warm_start, warm_recipes, warm_start_lines
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"
VARY = {"optimizer.lr": {"log": [1e-4, 1e-1]}, "freeze.depth": {"choice": [0, 0.5, 1.0]}}
DATA = DataFacts(fingerprint="f" * 64, counts={"train": {"good": 80, "bad": 40}})


def make_spec(folder, name="new", *, metric=METRIC, **changes):
    search = {"name": name, "trials": 9, "metric": metric, "folder": str(folder), "warm_start": "auto"}
    return SearchSpec.model_validate(
        {
            "search": search | changes.pop("search", {}),
            "scheduler": {"min_epochs": 1, "max_epochs": 4},
            "base": {"data.path": "images", **changes.pop("base", {})},
            "vary": VARY,
            **changes,
        }
    )


def write_search(folder, name, *trials, data=DATA, metric=METRIC, **changes):
    """A search with trials of these rates and values, each of one epoch: its ledger."""
    spec = make_spec(folder, name, metric=metric, **changes)
    place = folder / name
    notes = {"metric": metric, "spec": spec.model_dump(mode="json"), "data": data}
    ledger = ledgers.create(place, name=name, storage=None, space=spec.space, metric=metric, notes=notes)
    (place / SPEC_FILE).write_text(spec.model_dump_json())
    for lr, value in trials:
        proposal = propose([], space=spec.space, rule=sampling_rule(spec))
        params = dict(proposal.encoded) | {"optimizer.lr": lr, "freeze.depth": 0.5}
        number = ledger.start(encoded=params, distributions=proposal.distributions, target=1, origin="random")
        ledger.record(number, epoch=1, metrics={metric: value})
    return spec, ledger


def test_the_best_of_the_searches_in_the_folder_come_first_and_are_noted_with_whose_they_were(tmp_path, caplog):
    write_search(tmp_path, "older", (1e-2, 0.9), (1e-4, 0.5))
    spec, ledger = write_search(tmp_path, "new")
    with caplog.at_level(logging.WARNING):
        note_warm_start(spec, ledger, data=DATA)
    start = ledger.notes.warm_start
    assert start == choose_warm_start(spec, data=DATA)
    assert start.recipes[0] == {"optimizer.lr": 1e-2, "freeze.depth": 0.5}
    assert caplog.messages == warm_start_lines(start)
    assert caplog.messages == [
        "warm start: looked at older: likeness 1.00, 2 classes, 120 training images, 'resnet50', 2 trials",
        "warm start: takes trial 0 of older",
    ]


def test_what_is_chosen_stays_whatever_is_searched_meanwhile(tmp_path):
    write_search(tmp_path, "older", (1e-2, 0.9))
    spec, ledger = write_search(tmp_path, "new")
    note_warm_start(spec, ledger, data=DATA)
    chosen = ledger.notes.warm_start
    write_search(tmp_path, "another", (1e-3, 0.99))
    note_warm_start(spec, ledger, data=DATA)
    assert ledger.notes.warm_start == chosen
    assert warm_recipes(spec, ledger) == ({"optimizer.lr": 1e-2, "freeze.depth": 0.5},)


def test_the_recipes_are_the_first_trials_before_those_of_the_space(tmp_path):
    write_search(tmp_path, "older", (1e-2, 0.9))
    spec, ledger = write_search(tmp_path, "new", try_first=[{"optimizer.lr": 1e-3}])
    note_warm_start(spec, ledger, data=DATA)
    rule = sampling_rule(spec, warm=warm_recipes(spec, ledger))
    for _ in range(3):
        proposal = propose(ledger.trials(), space=spec.space, rule=rule)
        ledger.start(encoded=proposal.encoded, distributions=proposal.distributions, target=1, origin=proposal.origin)
    trials = ledger.trials()
    assert [trial.origin for trial in trials] == ["warm_start", "try_first", "random"]
    assert [trial.params["optimizer.lr"] for trial in trials[:2]] == [1e-2, 1e-3]


def test_a_search_that_did_not_ask_begins_as_ever(tmp_path):
    write_search(tmp_path, "older", (1e-2, 0.9))
    spec, ledger = write_search(tmp_path, "new", search={"warm_start": None})
    note_warm_start(spec, ledger, data=DATA)
    assert ledger.notes.warm_start is None
    assert warm_recipes(spec, ledger) == ()


def test_a_search_that_began_without_stays_so_and_hears_of_it(tmp_path, caplog):
    write_search(tmp_path, "older", (1e-2, 0.9))
    spec, ledger = write_search(tmp_path, "new", (1e-1, 0.5))
    note_warm_start(spec, ledger, data=DATA)
    assert ledger.notes.warm_start is None
    assert caplog.messages == ["search.warm_start: has no effect on a search that has begun without"]


def break_file(folder, name, text):
    (folder / name).mkdir()
    (folder / name / SPEC_FILE).write_text(text)


def test_what_cannot_be_read_or_tells_nothing_is_left_out_with_a_line_each(tmp_path):
    write_search(tmp_path, "good", (1e-2, 0.9))
    write_search(tmp_path, "empty")
    write_search(tmp_path, "losses", (1e-2, 0.3), metric="val/loss")
    write_search(tmp_path, "seer", (1e-2, 0.9), data=DataFacts(oracle=True))
    write_search(tmp_path, "torn", (1e-2, 0.9))
    (tmp_path / "torn" / ledgers.JOURNAL).write_bytes(b"no line of a journal\n" * 3)
    write_search(tmp_path, "gone", (1e-2, 0.9))
    (tmp_path / "gone" / ledgers.JOURNAL).unlink()
    break_file(tmp_path, "scribble", "{not json")
    break_file(tmp_path, "list", "[]")
    break_file(tmp_path, "strange", '{"vary": 3}')
    start = choose_warm_start(make_spec(tmp_path), data=DATA)
    assert start.whose == ("trial 0 of good",)
    assert len(start.looked_at) == 1
    lines = {line.split(":")[0]: line for line in start.notes}
    assert set(lines) == {"empty", "losses", "seer", "torn", "gone", "scribble", "list", "strange"}
    assert all("left out, " in line and "\n" not in line for line in lines.values())
    assert lines["empty"] == f"empty: left out, no trial of it has a {METRIC}"
    assert lines["seer"] == "seer: left out, it has read the labels of a target"
    assert "is not the JSON that a search keeps there" in lines["scribble"]


@pytest.mark.parametrize("has_folder", [True, False])
def test_nothing_to_take_is_one_line(tmp_path, has_folder):
    folder = tmp_path if has_folder else tmp_path / "nowhere"
    start = choose_warm_start(make_spec(folder), data=DATA)
    assert warm_start_lines(start) == ["warm start: there is nothing to take, the search begins as any other"]


def test_recipes_that_a_selection_of_backbones_leaves_no_place_for_are_left_out(tmp_path):
    write_search(tmp_path, "older", (1e-2, 0.9), (1e-4, 0.8))
    spec, ledger = write_search(tmp_path, "new")
    note_warm_start(spec, ledger, data=DATA)
    fewer = spec.model_copy(update={"vary": VARY | {"optimizer.lr": {"log": [1e-3, 1e-1]}}})
    assert warm_recipes(SearchSpec.model_validate(fewer.model_dump()), ledger) == (
        {"optimizer.lr": 1e-2, "freeze.depth": 0.5},
    )


def test_control_codes_in_a_name_do_not_reach_the_terminal(tmp_path):
    break_file(tmp_path, "\x1b[2Jname", "[]")
    assert all("\x1b" not in line for line in warm_start_lines(choose_warm_start(make_spec(tmp_path), data=DATA)))
