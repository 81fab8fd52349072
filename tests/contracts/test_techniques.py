"""What every choice of techniques keeps: configuration, code, guide and linter know the same names and keys."""

import re
from pathlib import Path
from typing import get_args

import pytest

from search.space.lint import NEEDS, lint
from search.space.paths import defaults
from search.space.spec import SearchSpec
from trainable.adapt.methods import METHODS, WEIGHT_SCHEDULES
from trainable.config.techniques import CHOICES, COLOUR_CHANNELS, STAGES
from trainable.config.trial import Stage, TrialConfig
from trainable.config.validation import leaf_fields
from trainable.loader.augmentations import POLICIES, STRENGTHS
from trainable.loader.batches import SAMPLERS
from trainable.model.head import HEADS
from trainable.model.phase import STRATEGIES
from trainable.model.pool import POOLS
from trainable.training.losses import CLASS_WEIGHTS, LOSSES
from trainable.training.lr_schedule import SCHEDULES
from trainable.training.optimizer import UPDATE_RULES
from trainable.training.solving import SOLVERS

GUIDE = (Path(__file__).parents[2] / "docs" / "techniques.md").read_text()
CODE = {
    "model.pool": POOLS,
    "model.head": HEADS,
    "data.class_sampling": SAMPLERS,
    "finetune.strategy": STRATEGIES,
    "finetune.solver": SOLVERS,
    "optimizer.name": UPDATE_RULES,
    "lr_schedule.name": SCHEDULES,
    "augment.strength": STRENGTHS,
    "augment.auto": POLICIES,
    "loss.name": LOSSES,
    "loss.class_weights": CLASS_WEIGHTS,
    "adapt.method": METHODS,
    "adapt.schedule": WEIGHT_SCHEDULES,
}


def values_of(path):
    """The values that a key takes, but null."""
    annotation = leaf_fields(TrialConfig)[path].annotation
    options = [option for option in get_args(annotation) if option is not type(None)]
    return [value for option in options for value in get_args(option) or [option]]


def named_in_guide(path):
    """What the guide has in code font in lines that name the key, or that stand under a heading or table that does."""
    heading, found = "", set()
    for line in GUIDE.splitlines():
        if line.startswith(("#", "| technique", "| strategy", "| metric")):
            heading = line if line.startswith("#") else f"{heading} {line}"
        if path in heading or path in line:
            found.update(re.findall(r"`(?:[a-z.]+: )?(\w+)`", line))
    return found


def test_the_stages_of_a_backbone_are_those_that_a_key_takes():
    assert get_args(Stage) == STAGES


def test_every_choice_has_its_code():
    assert CODE.keys() == CHOICES.keys()


@pytest.mark.parametrize("path", CHOICES)
def test_configuration_and_code_know_the_same_names(path):
    assert values_of(path) == list(CHOICES[path])
    assert list(CODE[path]) == list(CHOICES[path])


@pytest.mark.parametrize("path", CHOICES)
def test_the_guide_names_every_value(path):
    assert set(CHOICES[path]) <= named_in_guide(path)


@pytest.mark.parametrize("path", CHOICES)
def test_the_keys_of_a_value_are_paths_which_not_every_value_reads(path):
    read = [set(technique.keys) for technique in CHOICES[path].values()]
    assert set().union(*read) <= leaf_fields(TrialConfig).keys()
    assert not set.intersection(*read)


def test_every_setting_of_updates_has_no_effect_where_a_head_is_solved_for():
    sections = ("optimizer.", "lr_schedule.", "augment.", "loss.", "train.ema")
    of_updates = {path for path in defaults() if path.startswith(sections)} - {"loss.logit_adjustment"}
    assert of_updates <= set(CHOICES["finetune.solver"]["gradient"].keys)


@pytest.mark.parametrize("need", [need for need in NEEDS if need.other in CHOICES], ids=lambda need: need.path)
def test_the_linter_asks_for_the_values_that_read_a_key(need):
    reading = {value for value, technique in CHOICES[need.other].items() if need.path in technique.keys}
    assert {value for value in CHOICES[need.other] if need.serves(value)} == reading


@pytest.mark.parametrize("need", [need for need in NEEDS if need.other == "data.channels"], ids=lambda need: need.path)
def test_the_linter_asks_policies_for_channels_that_they_know(need):
    assert tuple(count for count in range(1, 65) if need.serves(count)) == COLOUR_CHANNELS


@pytest.mark.parametrize(
    "path", sorted(CHOICES.keys() - {"augment.auto"})
)  # without it a strength may bring a policy of its own
def test_the_linter_knows_every_key_of_a_value(path):
    known = {need.path for need in NEEDS if need.other == path}
    assert known == {key for technique in CHOICES[path].values() for key in technique.keys}
    assert known <= defaults().keys()


def test_the_linter_names_the_methods_that_a_frozen_backbone_leaves_nothing_to_move():
    sections = {
        "search": {"name": "demo", "trials": 2},
        "scheduler": {"min_epochs": 1, "max_epochs": 2},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-2]}},
    }
    named = set()
    for method in METHODS:
        base = {"data": {"path": "images", "target": "there"}, "adapt": {"method": method}, "freeze": {"depth": 1.0}}
        lines = lint(SearchSpec.model_validate(sections | {"base": base}))
        named |= {method} if any("have nothing to move" in line for line in lines) else set()
    moving = {
        name
        for name, method in CHOICES["adapt.method"].items()
        if method.aligns or method.target_norms == "in training"
    }
    assert named == moving
