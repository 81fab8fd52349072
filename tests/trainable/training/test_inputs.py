"""Images that are made on the device are those of the loaders; a CPU stands for the device, where they are so to the bit."""

from dataclasses import replace

import pytest
import torch

from trainable.loader.held import HeldImages
from trainable.training.fit import begin
from trainable.training.inputs import Inputs
from trainable.training.setup import set_up

CPU = torch.device("cpu")
AUGMENTS = [{"strength": "none"}, {"strength": "light"}, {"strength": "strong"}, {"strength": "symmetries"}]


def on_device(inputs: Inputs, *, is_held: bool) -> Inputs:
    pack = inputs.full.pack
    held = {inputs.full.spec.size: HeldImages(pack, CPU)} if is_held else {}
    return replace(inputs, on_device=True, held=held, loaders={})


def shown(inputs, adaptation):
    return list(inputs.training(epoch=2, view=2, adaptation=adaptation))


@pytest.mark.parametrize("augment", AUGMENTS, ids=str)
@pytest.mark.parametrize("is_held", [True, False])
def test_training_on_the_device_sees_what_the_loader_shows(augment, is_held, make_config):
    trainer = begin(make_config(augment=augment))
    by_loader = shown(trainer.inputs, trainer.adaptation)
    directly = shown(on_device(trainer.inputs, is_held=is_held), trainer.adaptation)
    assert len(by_loader) == len(directly) > 1
    for one, other in zip(by_loader, directly, strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets, other.targets)


def test_old_images_are_rehearsed_on_the_device_too(make_config, cell_folder):
    trainer = begin(make_config(data={"rehearsal": str(cell_folder), "rehearsal_share": 0.5}))
    by_loader = shown(trainer.inputs, trainer.adaptation)
    directly = shown(on_device(trainer.inputs, is_held=True), trainer.adaptation)
    assert sum(len(one.targets) for one in directly) > len(trainer.inputs.full.pack.indices("train"))
    for one, other in zip(by_loader, directly, strict=True):
        assert torch.equal(one.images, other.images)


@pytest.mark.parametrize("is_held", [True, False])
def test_evaluation_on_the_device_sees_what_the_loader_shows(is_held, make_config):
    inputs = set_up(make_config()).inputs
    directly = on_device(inputs, is_held=is_held)
    for split in ("train", "val"):
        pairs = zip(inputs.split(split, epoch=1), directly.split(split, epoch=1), strict=True)
        for (images, labels), (other_images, other_labels) in pairs:
            assert torch.equal(images, other_images)
            assert torch.equal(labels, other_labels)


def test_frozen_layers_see_the_same_of_held_images(make_config):
    inputs = set_up(make_config()).inputs
    directly = on_device(inputs, is_held=True)
    for view in (None, 3):
        viewed, other = (one.viewed("train", epoch=1, view=view) for one in (inputs, directly))
        assert torch.equal(viewed.images(viewed.rows[:7]), other.images(other.rows[:7]))


def test_a_cpu_leaves_views_to_the_loaders_processes(make_config):
    inputs = set_up(make_config()).inputs
    assert not inputs.on_device
    assert not inputs.held


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("augment", AUGMENTS, ids=str)
def test_a_gpu_shows_what_a_cpu_does_within_a_step(augment, make_config):
    trainers = [begin(make_config(augment=augment, train={"device": device})) for device in ("cuda", "cpu")]
    assert trainers[0].inputs.on_device
    batches = [shown(trainer.inputs, trainer.adaptation) for trainer in trainers]
    step = 1 / (255 * min(trainers[0].inputs.full.spec.std))
    for one, other in zip(*batches, strict=True):
        assert one.images.device.type == "cuda"
        difference = (one.images.cpu() - other.images).abs()
        assert (difference < 1.01 * step).float().mean() > 0.99  # a policy may tell a step more, as at a threshold
