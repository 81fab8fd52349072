"""What limited a search, and the commands against it."""

from search.ledger.notes import BackboneChoice, Comparison, DataFacts, PairedScore, SearchNotes
from search.ledger.trials import Trial
from search.report.next_steps import limits_of, steps_after
from search.space.loading import load
from search.space.spec import SearchSpec

OPEN = {"state": "RUNNING", "reason": "out of time at epoch 1"}


def spec(*, budget=None, **base):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "budget": budget or {"minutes": 30}},
            "scheduler": {"max_epochs": 9},
            "base": {"data.path": "my images", "model.name": "resnet18", **base},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )


def trial(number, *, lr=0.01, **fields):
    known = {"state": "COMPLETE", "target": 1, "origin": "tpe", "params": {"optimizer.lr": lr}, "epochs": ()}
    return Trial(number=number, **known | fields)


def limits(trials=None, *, of=None, untold=None, **notes):
    known = {"data": DataFacts(counts={"train": {"a": 40, "b": 30}})}
    trials = trials or [trial(0)]
    return limits_of(trials, best=trials[0], spec=of or spec(), notes=SearchNotes(**known | notes), untold=untold)


def comparison(**fields):
    return Comparison(**{"trial": 0, "metric": "val/accuracy", "confidence": 0.95, "num_images": 50} | fields)


def test_a_search_that_nothing_held_back_is_promoted_and_no_more():
    assert limits(comparison=comparison(own_size=224)) == []
    (step,) = steps_after([], is_better=True, spec=spec(), best=trial(0))
    assert step.command == "python -m search promote cells"


def test_trials_left_open_ask_for_twice_the_time():
    (limit,) = limits([trial(0), trial(1, **OPEN), trial(2, **OPEN)])
    assert limit.line == "time, 2 trials left open for want of it"
    assert limit.step.command == "python -m search resume cells --minutes 60"


def test_what_was_to_be_tried_first_and_was_too_long_for_the_time_is_counted():
    asked = spec().model_copy(update={"try_first": [{"optimizer.lr": 1e-2}, {"optimizer.lr": 1e-3}]})
    (limit,) = limits([trial(0, origin="try_first"), trial(1, **OPEN)], of=asked)
    assert limit.line == "time, 1 trial left open and 1 of try_first not begun for want of it"
    assert limits([trial(0, origin="try_first"), trial(1, origin="try_first")], of=asked) == []


def test_small_images_ask_for_the_size_of_the_backbone():
    (limit,) = limits(of=spec(**{"data.image_size": 64}), comparison=comparison(own_size=224))
    assert limit.line == "resolution, images of 64 pixels where the backbone was made for 224"
    assert limit.step.command == (
        "python -m search run searches/cells/search.json --set data.image_size=224 --name cells-224px"
    )


def test_a_best_value_at_the_end_of_its_range_asks_for_a_wider_one():
    (limit,) = limits([trial(0, lr=1e-4)])
    assert limit.line == "range, optimizer.lr is best at 0.0001, the end of what was searched, 0.0001 to 0.1"
    assert "--set 'vary.optimizer.lr={log: [1e-05, 0.1]}' --name cells-wider" in limit.step.command


def test_the_command_of_a_wider_range_makes_the_search_that_it_says(tmp_path):
    (limit,) = limits([trial(0, lr=0.09)])
    path = tmp_path / "search.json"
    path.write_text(spec().model_dump_json(indent=1))
    changed = load(path, [limit.step.command.split("'")[1]], name="cells-wider")
    assert changed.space.dimensions["optimizer.lr"].extremes == (1e-4, 1.0)


def test_few_images_of_a_class_ask_for_a_diagnosis_and_only_one():
    few = limits(data=DataFacts(counts={"train": {"a": 40, "b": 7, "c": 9}}))
    assert few[0].line == "data, class 'b' has 7 images to train on and 1 other class under 20"
    commands = [step.command for step in steps_after(few, is_better=False, spec=spec(), best=trial(0))]
    assert commands == ["python -m search promote cells", "python -m search diagnose 'my images' --model resnet18"]


def test_too_few_images_to_tell_are_said_with_what_they_could_tell():
    score = PairedScore(value=0.9, gain=0.01, low=-0.03, high=0.05, only_first=3, only_second=2, p=1.0)
    (limit,) = limits(untold=score, comparison=comparison())
    assert limit.line == "images to judge by, 50 of them tell nothing apart that differs by less than 4.0 points"


def test_backbones_that_there_was_no_time_for_are_counted():
    (limit,) = limits(backbones=BackboneChoice(scores={}, kept=["a"], not_scored=["b", "c"]))
    assert limit.line == "backbones, 2 of them were not scored for want of time"
