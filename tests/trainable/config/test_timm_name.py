"""Names of models as people copy them from the hub."""

import pytest
import timm
from pydantic import ValidationError

from trainable.config.timm_name import timm_name
from trainable.config.trial import ModelConfig, TrialConfig
from trainable.errors import UserError
from trainable.model.backbone import input_spec, plan_of


@pytest.mark.parametrize("written", ["{}", "timm/{}", "hf-hub:timm/{}", "hf_hub:timm/{}"])
@pytest.mark.parametrize("name", ["resnet18", "resnet18.a1_in1k", "vit_tiny_patch16_224.augreg_in21k"])
def test_the_hubs_names_of_timms_models_mean_timms_with_their_weights(written, name):
    config = ModelConfig(name=written.format(name), weights="random")
    assert config.name == name
    assert plan_of(config.name) == plan_of(name)


def test_a_name_of_the_hub_brings_the_normalisation_of_its_weights():
    half = input_spec(ModelConfig(name="timm/vit_tiny_patch16_224.augreg_in21k"), image_size=None, channels=3)
    assert half.mean == timm.get_pretrained_cfg("vit_tiny_patch16_224.augreg_in21k").mean


@pytest.mark.parametrize(
    "name", ["hf-hub:microsoft/resnet-50", "google/vit-base-patch16-224", "hf-hub:resnet18", "./resnet18"]
)
def test_a_model_of_the_hub_that_is_not_timms_is_one_line_with_the_right_form(name):
    with pytest.raises(ValueError, match="is no model of timm's: give an architecture"):
        timm_name(name)
    with pytest.raises(ValidationError, match=r"(?s)model\.name.*is no model of timm's"):
        TrialConfig.model_validate({"model": {"name": name}})


def test_an_unknown_tag_of_a_name_of_the_hub_lists_those_there_are():
    with pytest.raises(UserError, match="timm knows no weights 'a9_in1k' of 'resnet18'; there are .*resnet18.a1_in1k"):
        plan_of(ModelConfig(name="timm/resnet18.a9_in1k").name)


NEAR = {"resnet19": "resnet1", "ResNet50": "resnet50", "timm/vit_tiny_patch16_225": "vit_tiny"}


@pytest.mark.parametrize(("name", "near"), NEAR.items())
def test_an_unknown_name_has_the_nearest_good_one(name, near):
    with pytest.raises(UserError, match=rf"model\.name: unknown timm architecture .* did you mean '{near}"):
        plan_of(ModelConfig(name=name).name)
