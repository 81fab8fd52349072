"""What every format of export keeps: its file gives what the network gives, for any number of images."""

import numpy as np
import pytest
import torch

from trainable.config.trial import TrialConfig
from trainable.data.input_spec import InputSpec
from trainable.deploy.deployed import Deployed, describe
from trainable.deploy.exporting import Wanted
from trainable.deploy.table import FORMATS
from trainable.errors import UserError
from trainable.loader.batches import normalise
from trainable.model.network import create_network

ARCHITECTURES = ["test_efficientnet", "test_convnext", "test_vit"]
TOLERANCES = {"tensorrt": 1e-4}  # a GPU's sums
TOLERANCE = 1e-5  # of logits around 1: float32 sums in another order
CLASSES = ("defective", "functional")


def available(name):
    """The format, or a skip that says what this machine lacks for it."""
    try:
        FORMATS[name].require()
    except UserError as error:
        pytest.skip(str(error))
    return FORMATS[name]


def make(architecture, *, channels=3, size=32, finetune=None, **model):
    """A network whose head, shift and statistics are not at their starts, where much would cancel out, and its input."""
    spec = InputSpec(
        size=size,
        mean=(0.485, 0.456, 0.406)[:channels],
        std=(0.229, 0.224, 0.225)[:channels],
        interpolation="bilinear",
        crop_share=1.0,
    )
    config = TrialConfig.model_validate(
        {"model": {"name": architecture, "weights": "random"} | model, "finetune": finetune or {}}
    )
    network = create_network(config, spec=spec, num_classes=2)
    randomness = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in network.state_dict().items():
            if key.endswith(("running_mean", "head.1.weight", "shift", "bottleneck_adapter.up.weight")):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=randomness))
            elif key.startswith("pool."):
                tensor.add_(0.5 * torch.randn(tensor.shape, generator=randomness))
    return network.eval(), spec


def pixels_of(channels=3, *, size=32):
    """32 images that differ in brightness, so that their logits differ too."""
    levels = torch.linspace(20, 235, 32).view(-1, 1, 1, 1)
    noise = 20 * torch.randn(32, channels, size, size, generator=torch.Generator().manual_seed(1))
    return (levels + noise).clamp(0, 255).to(torch.uint8)


def logits_of(network, pixels, spec):
    with torch.no_grad():
        return network(normalise(pixels, spec)).numpy()


def written(form, network, spec, folder):
    path = folder / f"model.{form.suffix}"
    form.write(Deployed(network, spec=spec), path=path, description=describe(spec, classes=CLASSES))
    return path


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_file_gives_the_networks_logits_for_1_3_and_32_images(name, architecture, tmp_path):
    form = available(name)
    network, spec = make(architecture)
    predict = form.open_file(written(form, network, spec, tmp_path))
    expected = logits_of(network, pixels_of(), spec)
    assert np.ptp(expected, axis=0).min() > 100 * TOLERANCE
    for count in (1, 3, 32):
        found = predict(pixels_of()[:count])
        np.testing.assert_allclose(found, expected[:count], atol=TOLERANCES.get(name, TOLERANCE), rtol=0)


@pytest.mark.parametrize("name", FORMATS)
def test_a_grey_network_is_written_too(name, tmp_path):
    form = available(name)
    network, spec = make("test_resnet", channels=1)
    predict = form.open_file(written(form, network, spec, tmp_path))
    expected = logits_of(network, pixels_of(1), spec)
    np.testing.assert_allclose(predict(pixels_of(1)), expected, atol=TOLERANCES.get(name, TOLERANCE), rtol=0)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("architecture", "model"),
    [
        ("test_resnet", {"pool": "gem"}),
        pytest.param("test_convnext", {"pool": "gem", "until": "stage3"}, marks=pytest.mark.long),
        ("test_vit", {"pool": "attentive"}),
        pytest.param("test_vit", {"pool": "token_mean"}, marks=pytest.mark.long),
        ("test_resnet", {"head": "cosine", "finetune": {"strategy": "adapter", "bottleneck": 4}}),
        ("test_vit", {"pool": "blocks", "pool_blocks": 3, "finetune": {"strategy": "prompt", "prompts": 3}}),
    ],
    ids=str,
)
def test_a_network_with_more_than_timms_own_layers_is_written_too(name, architecture, model, tmp_path):
    form = available(name)
    network, spec = make(architecture, size=64, **model)
    predict = form.open_file(written(form, network, spec, tmp_path))
    pixels = pixels_of(size=64)
    expected = logits_of(network, pixels, spec)
    assert np.ptp(expected, axis=0).min() > 100 * TOLERANCE
    for count in (1, 32):
        np.testing.assert_allclose(
            predict(pixels[:count]), expected[:count], atol=TOLERANCES.get(name, TOLERANCE), rtol=0
        )


@pytest.mark.parametrize("name", FORMATS)
def test_the_file_stands_alone_and_names_the_classes_but_no_place(name, tmp_path):
    form = available(name)
    network, spec = make("test_resnet")
    path = written(form, network, spec, tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    content = path.read_bytes()
    assert path.stat().st_size > sum(parameter.nbytes for parameter in network.parameters()) / 2
    assert b"site-packages" not in content
    assert name == "tensorrt" or b"defective" in content  # an engine is a plan of this GPU alone


@pytest.mark.parametrize("name", FORMATS)
def test_a_network_is_as_it_was_after_it_was_written(name, tmp_path):
    form = available(name)
    network, spec = make("test_resnet")
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    written(form, network, spec, tmp_path)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


@pytest.mark.parametrize("name", FORMATS)
def test_it_can_be_asked_for_by_its_name_and_its_suffix_is_its_own(name):
    assert Wanted(to=(name,)).to == (name,)
    assert [form.suffix for form in FORMATS.values()].count(FORMATS[name].suffix) == 1
