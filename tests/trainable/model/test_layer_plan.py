import pytest

from trainable.errors import UserError
from trainable.model.backbone import plan_of


def test_a_stage_name_freezes_up_to_its_end_and_a_list_all_but_its_stages():
    plan = plan_of("resnet18")
    names = [unit.name for unit in plan.units]
    assert names == ["conv1", *(f"layer{stage}.{block}" for stage in (1, 2, 3, 4) for block in (0, 1))]
    assert {names[i] for i in plan.frozen("stage2")} == {"conv1", "layer1.0", "layer1.1", "layer2.0", "layer2.1"}
    assert {names[i] for i in plan.frozen(["stage1", "stage4"])} == {
        "conv1",
        "layer2.0",
        "layer2.1",
        "layer3.0",
        "layer3.1",
    }


def test_an_architecture_without_timm_groups_falls_back_to_its_children_and_says_so(caplog):
    plan = plan_of("caformer_s18")
    assert plan.fallback
    assert "no timm layer groups" in caplog.text
    assert not plan_of("resnet18").fallback


def test_pretrained_layers_beside_the_classifier_stay_in_the_backbone():
    assert plan_of("mobilenetv3_small_100").units[-1].parameters[0] == "conv_head.weight"
    assert "head.norm.weight" in plan_of("convnext_atto").units[-1].parameters


def test_vit_blocks_make_four_equal_stages():
    stages = [unit.stage for unit in plan_of("vit_tiny_patch16_224").units]
    assert stages == ["stem", *["stage1"] * 3, *["stage2"] * 3, *["stage3"] * 3, *["stage4"] * 3]


@pytest.mark.parametrize(("depth", "said"), [(1.2, "1.2 is not between 0 and 1"), ("layer4", "unknown stage 'layer4'")])
def test_a_depth_that_means_nothing_is_refused(depth, said):
    with pytest.raises(UserError, match=said):
        plan_of("resnet18").frozen(depth)


def test_an_unknown_architecture_is_named_with_its_nearest():
    with pytest.raises(UserError, match="model.name: unknown timm architecture 'resnet51'; did you mean 'resnet"):
        plan_of("resnet51")


def test_weights_that_timm_does_not_know_are_refused_with_those_it_knows():
    with pytest.raises(
        UserError, match=r"model\.name: timm knows no weights 'x' of 'test_vit'; there are test_vit\.r160_in1k"
    ):
        plan_of("test_vit.x")
    assert len(plan_of("test_vit.r160_in1k").units) == len(plan_of("test_vit").units)
