"""Meta-training of a start for few-shot learning."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

from trainable.config.meta import MetaConfig
from trainable.config.trial import ModelConfig
from trainable.data.pack import open_pack
from trainable.errors import UserError
from trainable.model.backbone import create_backbone, input_spec
from trainable.pretraining.meta import Part, adapt, draw_task, learn, meta_reports, task_classes
from trainable.pretraining.resumable import BACKBONE

torch.set_num_threads(1)
METHODS = ("maml", "anil", "reptile")


def meta_train(config, *, folder):
    """The weights at the end of a training."""
    list(meta_reports(config, folder=folder))
    return folder / BACKBONE


class Pair(nn.Module):
    """A network in two parts, small enough for finite differences."""

    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(3, 4), nn.Linear(4, 2)

    def features(self, inputs):
        return torch.tanh(self.backbone(inputs))

    def forward(self, inputs):
        return self.head(self.features(inputs))


@pytest.fixture
def pair():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Pair().double()


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(10, 3, generator=generator, dtype=torch.float64)
    labels = torch.tensor([0, 1] * 5)
    return Part(inputs[:4], labels[:4]), Part(inputs[4:], labels[4:])


@pytest.fixture
def make_config(draw_folder, cache):
    def make(counts=None, **values):
        counts = counts or {"a": 12, "b": 12, "c": 12, "d": 12}
        base = {
            "ways": 3,
            "shots": 2,
            "queries": 3,
            "inner_steps": 2,
            "tasks": 2,
            "updates": 4,
            "report_every": 2,
            "data": {"path": str(draw_folder(counts)), "image_size": 32, "cache": cache},
            "model": {"name": "test_resnet", "weights": "random"},
        }
        return MetaConfig.model_validate(base | values)

    return make


def spec_of(config):
    return input_spec(config.model, image_size=config.data.image_size, channels=config.data.channels)


def test_one_inner_step_from_zero_weights_is_the_hand_worked_one():
    """At zero weights softmax is ½ each: gradient of image x of class 0 is (-½x, ½x), of class 1 (½x, -½x); mean of two."""
    layer = nn.Linear(2, 2, bias=False)
    nn.init.zeros_(layer.weight)
    support = Part(torch.tensor([[1.0, 2.0], [3.0, -1.0]]), torch.tensor([0, 1]))
    fast = adapt(layer, support, steps=1, lr=0.1, second_order=False)
    expected = -0.1 * torch.tensor([[0.5, -0.75], [-0.5, 0.75]])
    assert torch.allclose(fast["weight"], expected)
    assert not layer.weight.any()


@pytest.mark.parametrize(("method", "steps"), [("maml", 1), ("maml", 3), ("anil", 3)])
def test_the_gradient_through_the_adaptation_is_that_of_finite_differences(method, steps, pair, parts):
    """Central differences in float64 at 1e-6 are good to about 1e-9."""
    config = MetaConfig(method=method, inner_steps=steps, inner_lr=0.5, tasks=1)
    learn(pair, *parts, config=config)
    for name, parameter in pair.named_parameters():
        for index in range(parameter.numel()):
            losses = []
            for step in (1e-6, -1e-6):
                other = copy.deepcopy(pair)
                with torch.no_grad():
                    other.get_parameter(name).view(-1)[index] += step
                losses.append(float(adapted_loss(other, *parts, method=method, steps=steps)))
            slope = (losses[0] - losses[1]) / 2e-6
            assert float(parameter.grad.view(-1)[index]) == pytest.approx(slope, abs=1e-8)


def adapted_loss(network, support, query, *, method, steps):
    """Gradient descent written out with .backward() and copies, sharing nothing with what is tested."""
    network = copy.deepcopy(network)
    adapted = network.head if method == "anil" else network
    for _ in range(steps):
        network.zero_grad()
        cross_entropy(network(support.inputs), support.labels).backward()
        with torch.no_grad():
            for parameter in adapted.parameters():
                parameter -= 0.5 * parameter.grad
    return cross_entropy(network(query.inputs), query.labels).detach()


def test_without_second_order_the_gradient_is_that_of_the_adapted_weights(pair, parts):
    support, query = parts
    learn(
        pair, support, query, config=MetaConfig(method="maml", inner_steps=2, inner_lr=0.5, tasks=1, first_order=True)
    )
    found = [parameter.grad for parameter in pair.parameters()]
    fast = {
        name: w.detach().requires_grad_()
        for name, w in adapt(pair, support, steps=2, lr=0.5, second_order=False).items()
    }
    loss = cross_entropy(functional_call(pair, fast, (query.inputs,)), query.labels)
    expected = torch.autograd.grad(loss, list(fast.values()))
    assert all(torch.allclose(one, other) for one, other in zip(found, expected, strict=True))


def test_fast_weights_do_not_carry_over_from_one_task_to_the_next(pair, parts):
    support, query = parts
    start = copy.deepcopy(pair.state_dict())
    alone = adapt(pair, query, steps=3, lr=0.5, second_order=True)
    adapt(pair, support, steps=3, lr=0.5, second_order=True)
    after_another = adapt(pair, query, steps=3, lr=0.5, second_order=True)
    assert all(torch.equal(alone[name], after_another[name]) for name in alone)
    assert all(torch.equal(start[name], value) for name, value in pair.state_dict().items())


def test_a_second_task_adds_its_own_gradient_and_nothing_of_the_first(pair, parts):
    config = MetaConfig(method="maml", inner_steps=2, inner_lr=0.5, tasks=2)
    separate = []
    for one, other in (parts, parts[::-1]):
        network = copy.deepcopy(pair)
        learn(network, one, other, config=config)
        separate.append([parameter.grad for parameter in network.parameters()])
    learn(pair, *parts, config=config)
    learn(pair, *parts[::-1], config=config)
    for parameter, *grads in zip(pair.parameters(), *separate, strict=True):
        assert torch.allclose(parameter.grad, grads[0] + grads[1], rtol=1e-12)


def test_anil_adapts_the_head_and_leaves_the_backbone_but_learns_both(pair, parts):
    support, query = parts
    inputs = pair.features(support.inputs)
    fast = adapt(pair.head, Part(inputs, support.labels), steps=3, lr=0.5, second_order=True)
    assert fast.keys() == {"weight", "bias"}
    learn(pair, support, query, config=MetaConfig(method="anil", inner_lr=0.5, tasks=1))
    assert all(parameter.grad.any() for parameter in pair.parameters())


def test_reptile_points_from_the_adapted_weights_back_to_the_start(pair, parts):
    learn(pair, *parts, config=MetaConfig(method="reptile", inner_steps=4, inner_lr=0.5, tasks=1))
    plain = copy.deepcopy(pair)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.5)
    for _ in range(4):
        optimizer.zero_grad()
        cross_entropy(plain(parts[0].inputs), parts[0].labels).backward()
        optimizer.step()
    for start, end in zip(pair.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(start.grad, start.detach() - end.detach())


def test_support_and_queries_of_a_task_share_no_image_and_come_from_the_train_split(make_config):
    config = make_config()
    pack = open_pack(config.data, spec_of(config))
    rows_of, train = task_classes(pack, config=config), set(pack.indices("train").tolist())
    for number in range(50):
        order = torch.Generator().manual_seed(number)
        task = draw_task(rows_of, ways=3, shots=2, queries=3, order=order)
        rows = [*task.support.tolist(), *task.queries.tolist()]
        assert len(set(rows)) == 15
        assert set(rows) <= train
        for part, labels in ((task.support, task.support_labels), (task.queries, task.query_labels)):
            classes = pack.labels[part]
            assert len(set(zip(classes.tolist(), labels.tolist(), strict=True))) == 3
    assert task.support_labels.tolist() == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_and_resumed_training_ends_with_the_bits_of_an_unbroken_one(method, make_config, tmp_path):
    model = {"name": "test_resnet", "weights": "random", "dropout": 0.2}
    config = make_config(method=method, model=model, updates=2, report_every=1)
    straight = list(meta_reports(config, folder=tmp_path / "straight"))
    assert [report.update for report in straight] == [1, 2]
    told = [next(meta_reports(config, folder=tmp_path / "broken")) for _ in straight]
    assert told == straight
    files = [meta_train(config, folder=tmp_path / name) for name in ("straight", "broken")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_longer_training_goes_on_from_a_shorter_one(make_config, tmp_path):
    meta_train(make_config(updates=2), folder=tmp_path / "run")
    longer = make_config(updates=4)
    (report,) = meta_reports(longer, folder=tmp_path / "run")
    assert report == list(meta_reports(longer, folder=tmp_path / "straight"))[-1]


def test_the_written_file_is_loaded_by_model_weights(make_config, tmp_path):
    config = make_config(updates=2, method="maml")
    path = meta_train(config, folder=tmp_path)
    spec = spec_of(config)
    start, _ = create_backbone(config.model, spec=spec, generator_seed=3)
    loaded, _ = create_backbone(ModelConfig(name="test_resnet", weights=str(path)), spec=spec, generator_seed=3)
    assert not torch.equal(start.state_dict()["conv1.0.weight"], loaded.state_dict()["conv1.0.weight"])


def test_classes_that_colour_tells_apart_are_learnt_from_few_images(make_config, tmp_path):
    """Four colours under noise; chance is ½."""
    draw = np.random.default_rng(0)
    for name, colour in {"a": (200, 60, 60), "b": (60, 200, 60), "c": (60, 60, 200), "d": (200, 200, 60)}.items():
        (tmp_path / "colours" / name).mkdir(parents=True)
        for index in range(12):
            pixels = (np.array(colour) + draw.integers(-30, 30, (20, 24, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "colours" / name / f"{index}.png")
    data = {"path": str(tmp_path / "colours"), "image_size": 32, "cache": str(tmp_path / "cache")}
    config = make_config(updates=12, report_every=6, ways=2, inner_lr=0.1, data=data)
    *_, last = meta_reports(config, folder=tmp_path)
    assert last.metrics["train/query_accuracy"] > 0.8


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"ways": 5}, "ways: 5 classes with shots + queries = 5 training images each are needed; 4 of 4 have them"),
        (
            {"shots": 20},
            "ways: 3 classes with shots .* = 23 training images each are needed; 0 of 4 have them, the largest",
        ),
    ],
)
def test_too_few_classes_or_images_for_a_task_are_one_clear_line(values, said, make_config, tmp_path):
    with pytest.raises(UserError, match=said.replace("+", r"\+")) as caught:
        meta_train(make_config(**values), folder=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_a_gpu_trains_and_goes_on(method, make_config, tmp_path):
    config = make_config(method=method, device="cuda")
    next(meta_reports(config, folder=tmp_path))
    (report,) = meta_reports(config, folder=tmp_path)
    assert math.isfinite(report.metrics["train/query_loss"])
