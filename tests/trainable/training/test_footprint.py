import pytest
import timm

from trainable.config.trial import TrialConfig
from trainable.metrics import MEASURES
from trainable.training.footprint import measure_network


def config(folder, **model):
    return TrialConfig.model_validate(
        {
            "data": {"path": str(folder), "image_size": 32},
            "model": {"name": "test_resnet", "weights": "random", **model},
            "train": {"epochs": 1, "metric": "val/accuracy"},
        }
    )


def num_parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_parameters_are_those_of_timms_backbone_and_a_head_of_two_classes(cell_folder):
    reference = num_parameters(timm.create_model("test_resnet", num_classes=2))
    assert measure_network(config(cell_folder), names=["model/parameters"]) == {"model/parameters": reference}


def test_light_adapters_are_not_counted_as_they_are_not_served(cell_folder):
    full = config(cell_folder)
    light = full.model_copy(update={"finetune": full.finetune.model_copy(update={"strategy": "lora"})})
    counted = [measure_network(trial, names=["model/parameters"]) for trial in (full, light)]
    assert counted[0] == counted[1]


def test_bottlenecks_are_counted_as_they_are_served(cell_folder):
    full = config(cell_folder)
    finetune = full.finetune.model_copy(update={"strategy": "adapter", "bottleneck": 8})
    names = ["model/parameters"]
    plain, counted = (
        measure_network(trial, names=names)["model/parameters"]
        for trial in (full, full.model_copy(update={"finetune": finetune}))
    )
    channels = (32, 48, 192, 96)  # behind the blocks of test_resnet
    assert counted - plain == sum(2 * 8 * each + 8 + each for each in channels)


def test_a_hidden_layer_counts(cell_folder):
    linear, mlp = (
        measure_network(config(cell_folder, **head), names=["model/parameters"])["model/parameters"]
        for head in ({}, {"head": "mlp", "head_hidden": 16})
    )
    width = timm.create_model("test_resnet", num_classes=0).num_features
    assert mlp > linear - (width + 1) * 2 + (width + 1) * 16


@pytest.mark.parametrize("channels_last", [True, False])
def test_one_image_takes_a_time_above_nothing_on_a_network_of_any_layout(cell_folder, channels_last):
    document = config(cell_folder).model_dump()
    document["train"]["channels_last"] = channels_last
    found = measure_network(TrialConfig.model_validate(document), names=list(MEASURES))
    assert found.keys() == MEASURES.keys()
    assert 0.01 < found["usage/latency_ms"] < 1000


def test_a_larger_network_takes_longer(cell_folder):
    small, large = (
        measure_network(config(cell_folder, name=name), names=["usage/latency_ms"])["usage/latency_ms"]
        for name in ("test_resnet", "resnet50")
    )
    assert large > 2 * small
