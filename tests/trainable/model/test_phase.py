"""Strategies as a function of (configuration, plan, epoch)."""

import pytest

from trainable.config.trial import TrialConfig
from trainable.errors import UserError
from trainable.model.backbone import plan_of
from trainable.model.layer_plan import LayerPlan
from trainable.model.phase import phase, thaw_epochs

PLAN = plan_of("resnet18")


def config_of(*, epochs=12, depth=0.0, bn="eval", **finetune):
    sections = {"freeze": {"depth": depth, "bn": bn}, "finetune": finetune, "train": {"epochs": epochs}}
    return TrialConfig.model_validate(sections)


def trained_stages(config, epoch, plan=PLAN):
    frozen = phase(config, plan=plan, epoch=epoch).frozen
    return sorted({unit.stage for index, unit in enumerate(plan.units) if index not in frozen})


def test_gradual_thaws_from_the_head_down_every_so_many_epochs():
    config = config_of(strategy="gradual", every=2)
    assert trained_stages(config, 2) == []
    assert trained_stages(config, 3) == ["stage4"]
    assert trained_stages(config, 5) == ["stage3", "stage4"]
    assert trained_stages(config, 11) == ["stage1", "stage2", "stage3", "stage4", "stem"]


def test_gradual_thaws_from_the_stem_up():
    config = config_of(strategy="gradual", order="bottom_up", every=1)
    assert trained_stages(config, 2) == ["stem"]
    assert trained_stages(config, 3) == ["stage1", "stem"]


def test_gradual_follows_an_explicit_schedule():
    config = config_of(strategy="gradual", schedule={"stage4": 6, "stage3": 11})
    assert [trained_stages(config, epoch) for epoch in (5, 6, 10, 11)] == [
        [],
        ["stage4"],
        ["stage4"],
        ["stage3", "stage4"],
    ]


def test_gradual_leaves_frozen_what_freeze_depth_keeps():
    config = config_of(strategy="gradual", depth="stage2")
    assert thaw_epochs(config, plan=PLAN) == {"stage4": 2, "stage3": 3}
    assert trained_stages(config, 12) == ["stage3", "stage4"]


def test_gradual_with_a_single_unit_or_a_stage_that_is_not_there_is_refused_by_name():
    one_unit = LayerPlan(PLAN.units[:1])
    with pytest.raises(UserError, match="'gradual' has nothing to thaw"):
        phase(config_of(strategy="gradual"), plan=one_unit, epoch=1)
    config = config_of(strategy="gradual", depth="stage2", schedule={"stage1": 3})
    with pytest.raises(
        UserError, match=r"finetune\.schedule: no stage 'stage1' is left to thaw; there are stage3, stage4"
    ):
        phase(config, plan=PLAN, epoch=1)


def test_surgical_trains_an_interval_of_stages():
    config = config_of(strategy="surgical", trainable=["stage2", "stage1"])
    assert trained_stages(config, 1) == ["stage1", "stage2"]
    with pytest.raises(ValueError, match="are no neighbours"):
        config_of(strategy="surgical", trainable=["stem", "stage2"])


def test_two_stage_ends_with_a_new_head_alone_on_balanced_classes_and_a_schedule_of_its_own():
    config = config_of(strategy="two_stage", epochs=10, depth=0.5, classifier_share=0.25)
    before, after = (phase(config, plan=PLAN, epoch=epoch) for epoch in (7, 8))
    assert (before.first, before.last, before.balanced, before.new_head) == (1, 7, False, False)
    assert before.frozen == PLAN.frozen(0.5)
    assert (after.first, after.last, after.balanced, after.new_head) == (8, 10, True, True)
    assert after.frozen == PLAN.frozen(1.0)


def test_what_trains_inside_frozen_layers():
    assert phase(config_of(strategy="norm_only"), plan=PLAN, epoch=1).within == "norms"
    assert phase(config_of(strategy="bias_only"), plan=PLAN, epoch=1).within == "biases"
    assert phase(config_of(depth=0.5, bn="train_all"), plan=PLAN, epoch=1).within == "norms"
    assert not phase(config_of(strategy="bias_only"), plan=PLAN, epoch=1).moving_norms
    assert phase(config_of(strategy="bias_only", bn="train_stats"), plan=PLAN, epoch=1).moving_norms


@pytest.mark.parametrize(
    ("sections", "line"),
    [
        (
            {"finetune": {"strategy": "lp_ft"}, "model": {"head": "mlp"}},
            "'lp_ft' needs model.head: linear or cosine, got 'mlp'",
        ),
        ({"finetune": {"strategy": "gradual"}, "freeze": {"depth": 1.0}}, "'gradual' has nothing to thaw"),
        ({"finetune": {"strategy": "gradual", "schedule": {}}}, "finetune.schedule: names no stage"),
        ({"finetune": {"strategy": "two_stage"}, "train": {"epochs": 1}}, "leaves none for the first stage"),
        ({"train": {"epochs": 3, "ema": 0.5, "ema_start": 3}}, "train.ema_start: 3 leaves no step to average"),
        ({"data": {"class_sampling": "sqrt"}, "loss": {"class_weights": "inverse"}}, "exclude each other"),
        ({"loss": {"focal_alpha": 0.75, "class_weights": "inverse"}}, "loss.focal_alpha: excludes loss.class_weights"),
        (
            {"loss": {"name": "balanced_softmax", "class_weights": "inverse"}},
            "loss.class_weights: 'inverse' counts the sizes of classes a second time, beside loss.name: balanced_softmax",
        ),
        (
            {"loss": {"name": "balanced_softmax"}, "data": {"class_sampling": "balanced"}},
            "data.class_sampling: 'balanced' counts the sizes of classes a second time, beside loss.name: balanced_softmax",
        ),
        (
            {"loss": {"name": "logit_adjusted", "logit_adjustment": 1.0}},
            "loss.logit_adjustment: 1 counts the sizes of classes a second time, beside loss.name: logit_adjusted; use one",
        ),
        (
            {"lr_schedule": {"warmup_epochs": 7}, "finetune": {"strategy": "two_stage"}},
            "does not fit into the first stage's",
        ),
    ],
)
def test_values_that_cannot_go_together_are_refused_by_name(sections, line):
    with pytest.raises(ValueError, match=line.replace(".", r"\.").replace("(", r"\(")):
        TrialConfig.model_validate(sections)
