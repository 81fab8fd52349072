"""Soups of a small network, on forty small images."""

from contextlib import nullcontext
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from trainable import TrialConfig, UserError
from trainable.data.pack import open_pack
from trainable.loader.batches import evaluation_batches, normalise
from trainable.model.backbone import input_spec
from trainable.model.network import create_network
from trainable.model.norms import recompute_batch_norm
from trainable.serving.package import package
from trainable.statistics import scores
from trainable.training import evaluate
from trainable.training.checkpoint import load_scored
from trainable.training.fit import fit
from trainable.training.setup import set_up
from trainable.training.soup import Ingredient, Member, greedy_soup, make_soup, soup_group
from trainable.training.trained import Trained, export_weights

torch.set_num_threads(1)
NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


@pytest.fixture
def config(draw_folder, cache):
    folder = draw_folder({"train/cat": 8, "train/dog": 8, "val/cat": 10, "val/dog": 10, "test/cat": 1, "test/dog": 1})
    return make_config(path=str(folder), cache=cache)


def make_config(*, path="unused", cache=None, **sections):
    base = {
        "data": {"path": path, "image_size": 32, "cache": cache},
        "model": {"name": "test_resnet", "weights": "random"},
        "train": {"device": "cpu"},
    }
    return TrialConfig.model_validate(base | sections)


def make_network(config=None, *, num_classes=2):
    config = config or make_config()
    spec = input_spec(config.model, image_size=32, channels=3)
    network = create_network(config, spec=spec, num_classes=num_classes)
    torch.nn.init.normal_(network.head[-1].weight, std=0.1, generator=torch.Generator().manual_seed(0))
    return network


def ingredients(config, folder, *, strategies):
    """A trained trial of each of these strategies, as a search gives it to the soup."""
    made = []
    for number, strategy in enumerate(strategies):
        sections = config.model_dump() | {"finetune": {"strategy": strategy}, "freeze": {"depth": 0.5}}
        sections |= {"train": {"epochs": 1, "batch_size": 4, "device": "cpu"}, "optimizer": {"lr": 1e-2 * (number + 1)}}
        trial = TrialConfig.model_validate(sections)
        (epoch,) = fit(trial)
        epoch.save(folder / str(number))
        value = epoch.metrics[trial.train.metric]
        made.append(Ingredient(name=str(number), config=trial, checkpoint=folder / str(number), value=value))
    return sorted(made, key=lambda one: -one.value)


def copy(network):
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def shaken(state, *, seed, by=0.02):
    """The state with noise on every weight, as another run from the same start might have ended."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: tensor + by * torch.randn(tensor.shape, generator=generator)
        if name.endswith("weight")
        else tensor.clone()
        for name, tensor in state.items()
    }


def batches_of(config, split, *, size=8):
    spec = input_spec(config.model, image_size=32, channels=3)
    pack = open_pack(config.data, spec)
    batches = evaluation_batches(pack, split, spec=spec, batch_size=size)
    return [(normalise(batch.images, spec), batch.labels) for batch in batches]


def scorer(config, *, metric="loss"):
    """A function of states: the metric on the validation images, after the norms have seen the training images."""
    network, train, val = make_network(config), batches_of(config, "train"), batches_of(config, "val")

    def score(state):
        network.load_state_dict(state)
        recompute_batch_norm(network, (images for images, _ in train))
        found = evaluate.predict(network, batches=val, autocast=nullcontext())
        evaluation = scores.score(found.probabilities, labels=found.labels, classes=("cat", "dog"))
        return evaluation.metrics[metric]

    return score


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_a_soup_is_never_worse_than_its_best_member_and_scores_as_it_says(metric, config):
    score, start = scorer(config, metric=metric), copy(make_network(config))
    states = [shaken(start, seed=seed) for seed in range(5)]
    own = [score(state) for state in states]
    members = [Member(str(seed), own[seed], states[seed]) for seed in range(5)]
    soup = greedy_soup(members, score=score, metric=f"val/{metric}")
    best = (min if metric == "loss" else max)(own)
    assert soup.score <= best if metric == "loss" else soup.score >= best
    assert score(soup.state) == soup.score
    assert soup.tastings[0].score == best
    assert sorted(tasting.name for tasting in soup.tastings) == ["0", "1", "2", "3", "4"]
    assert [tasting.name for tasting in soup.tastings if tasting.kept] == list(soup.members)
    for name, tensor in soup.state.items():
        mean = np.mean([states[int(member)][name].double().numpy() for member in soup.members], axis=0)
        expected = mean if tensor.is_floating_point() else states[int(soup.members[0])][name].numpy()
        np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-7, atol=1e-9)
        assert tensor.dtype == start[name].dtype


@pytest.mark.parametrize(("metric", "sign"), [("val/accuracy", -1), ("val/loss", 1)])
def test_members_that_make_it_worse_stay_out_and_equals_go_in(metric, sign):
    """Networks of one number x, 2 being the best: 1; with 5 their mean is 3, with -3 it is 1 again, with 20 it were 5.75."""
    members = [Member(str(x), sign * abs(x - 2.0), {"x": torch.tensor(float(x))}) for x in (20, 1, -3, 5)]
    soup = greedy_soup(members, score=lambda state: sign * abs(float(state["x"]) - 2), metric=metric)
    assert [(tasting.name, tasting.score * sign, tasting.kept) for tasting in soup.tastings] == [
        ("1", 1.0, True),
        ("5", 1.0, True),
        ("-3", 1.0, True),
        ("20", 3.75, False),
    ]
    assert soup.members == ("1", "5", "-3")
    assert soup.state["x"].item() == soup.score * sign == 1.0


def test_a_score_that_is_no_number_keeps_a_member_out():
    members = [Member(str(x), float(x), {"x": torch.tensor(float(x))}) for x in (3, 2, 1)]
    scores = iter([0.5, float("nan"), 0.6])
    soup = greedy_soup(members, score=lambda _: next(scores), metric="val/accuracy")
    assert soup.members == ("3", "1")
    spoilt = [Member("broken", float("nan"), {}), Member("good", 0.1, {})]
    assert greedy_soup(spoilt, score=lambda _: 0.1, metric="val/accuracy").members[0] == "good"


def test_a_soup_of_one_is_that_network_to_the_bit():
    state = copy(make_network())
    soup = greedy_soup([Member("only", 0.5, state)], score=lambda _: 0.5, metric="val/accuracy")
    assert soup.members == ("only",)
    assert all(torch.equal(tensor, state[name]) for name, tensor in soup.state.items())


def test_averages_are_taken_in_double_precision_and_whole_numbers_from_the_best():
    """Half precision adds 1 to 2048 no more; a sum of three in float64 loses nothing."""
    values = [(2048.0, 3), (1.0, 4), (1.0, 5)]
    members = [
        Member(str(i), -i, {"w": torch.tensor([w], dtype=torch.float16), "steps": torch.tensor(steps)})
        for i, (w, steps) in enumerate(values)
    ]
    soup = greedy_soup(members, score=lambda _: 1.0, metric="val/accuracy")
    assert soup.state["w"].dtype == torch.float16
    assert soup.state["w"].item() == np.float16(2050 / 3)
    assert soup.state["steps"].item() == 3
    assert members[0].state["w"].item() == 2048.0


def test_networks_that_differ_are_refused_by_the_first_tensor_that_does():
    two = Member("two", 0.9, copy(make_network()))
    three = Member("three", 0.8, copy(make_network(num_classes=3)))
    with pytest.raises(UserError) as caught:
        greedy_soup([three, two], score=lambda _: 0.0, metric="val/accuracy")
    first = next(name for name, tensor in two.state.items() if tensor.shape != three.state[name].shape)
    shapes = ["×".join(map(str, member.state[first].shape)) for member in (two, three)]
    assert f"soup: {first} is {shapes[0]} in 'two' and {shapes[1]} in 'three'" in str(caught.value)
    more = Member("more", 0.8, two.state | {"extra": torch.zeros(2, 3)})
    with pytest.raises(UserError, match="soup: extra is missing in 'two' and 2×3 in 'more'"):
        greedy_soup([two, more], score=lambda _: 0.0, metric="val/accuracy")
    with pytest.raises(UserError, match="soup: there is no network"):
        greedy_soup([], score=lambda _: 0.0, metric="val/accuracy")


def test_recomputed_statistics_are_the_mean_of_the_batches(config):
    network, batches = make_network(config), batches_of(config, "train")
    assert len(batches) == 2
    first = next(module for module in network.modules() if isinstance(module, nn.BatchNorm2d))
    inputs = []
    with torch.no_grad(), torch.random.fork_rng():
        for images, _ in batches:
            inputs.append(
                network.backbone.conv1[0](images)
            )  # test_resnet's stem begins with a convolution, then this norm
    assert first is network.backbone.conv1[1]
    recompute_batch_norm(network, (images for images, _ in batches))
    means = torch.stack([values.mean(dim=(0, 2, 3)) for values in inputs])
    variances = torch.stack([values.var(dim=(0, 2, 3)) for values in inputs])
    torch.testing.assert_close(first.running_mean, means.mean(dim=0))
    torch.testing.assert_close(first.running_var, variances.mean(dim=0))
    assert first.num_batches_tracked == 2


def test_recomputing_is_the_same_twice_and_touches_nothing_else(config):
    dropping = make_config(
        path=config.data.path,
        cache=config.data.cache,
        model={"name": "test_resnet", "weights": "random", "dropout": 0.5, "drop_path": 0.2},
    )
    network, batches = make_network(dropping), batches_of(config, "train")
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    before, momenta = copy(network), [norm.momentum for norm in norms]
    recompute_batch_norm(network, (images for images, _ in batches))
    once = copy(network)
    recompute_batch_norm(network, (images for images, _ in batches))
    assert all(torch.equal(tensor, once[name]) for name, tensor in network.state_dict().items())
    changed = {name for name, tensor in once.items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[2] for name in changed} == {"running_mean", "running_var", "num_batches_tracked"}
    assert [norm.momentum for norm in norms] == momenta
    assert not any(module.training for module in network.modules())


def test_frozen_norms_keep_their_statistics(config):
    frozen = make_config(path=config.data.path, cache=config.data.cache, freeze={"depth": "stage2"})
    network = make_network(frozen)
    before = copy(network)
    recompute_batch_norm(network, (images for images, _ in batches_of(config, "train")))
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[1] for name in changed} == {"layer3", "layer4"}


def test_a_network_without_batch_norm_is_left_as_it_is():
    network = make_network(make_config(model={"name": "convnext_atto", "weights": "random"}))
    before = copy(network)
    recompute_batch_norm(network, [torch.zeros(2, 3, 32, 32)])
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize(
    "strategies",
    [
        ("partial", "partial", "linear_probe"),
        ("linear_probe", "bias_only", "partial"),
        ("linear_probe", "norm_only"),
        pytest.param(("lora", "dora", "partial"), marks=NEEDS_PEFT),
    ],
)
def test_a_soup_is_the_same_whether_what_frozen_layers_make_of_the_images_is_kept_or_not(
    draw_folder, cache, tmp_path, strategies
):
    counts = {"train/cat": 9, "train/dog": 8, "val/cat": 10, "val/dog": 10, "test/cat": 1, "test/dog": 1}
    config = make_config(path=str(draw_folder(counts)), cache=cache)  # one image of training joins the last batch
    data = config.data.model_copy(update={"prefix_gb": 0.0})
    live = config.model_copy(update={"data": data})
    soups = []
    for name, of in (("kept", config), ("live", live), ("again", config)):
        members = ingredients(of, tmp_path / name, strategies=strategies)
        soups.append(make_soup(members, path=tmp_path / f"{name}.safetensors"))
    (soup, evaluation, measured), *others = soups
    assert len(soup.tastings) == len(strategies)
    for other, other_evaluation, other_measured in others:
        assert [tasting.score for tasting in soup.tastings] == [tasting.score for tasting in other.tastings]
        assert all(torch.equal(tensor, other.state[name]) for name, tensor in soup.state.items())
        assert (evaluation, measured) == (other_evaluation, other_measured)


def test_a_soup_of_bottlenecks_averages_them_and_is_packaged_with_them(config, tmp_path):
    members = ingredients(config, tmp_path, strategies=("adapter", "adapter"))
    soup, evaluation, _ = make_soup(members, path=tmp_path / "soup.safetensors")
    states = []
    for member in members[: len(soup.members)]:
        setup = set_up(member.config)
        load_scored(member.checkpoint, network=setup.network, moved=setup.moved)
        states.append(setup.network.state_dict())
    (name, *_) = [name for name in states[0] if name.endswith("bottleneck_adapter.up.weight")]
    torch.testing.assert_close(soup.state[name], torch.stack([state[name] for state in states]).mean(dim=0))
    scored = Trained(config=members[0].config, soup=tmp_path / "soup.safetensors").score("val")
    assert scored.metrics["loss"] == pytest.approx(evaluation.metrics["loss"], rel=0.01)  # kept outputs are rounded
    package(members[0].config, folder=tmp_path / "package", soup=tmp_path / "soup.safetensors")
    assert name in load_file(tmp_path / "package" / "weights.safetensors")


def test_what_differs_in_its_adapters_is_not_averaged():
    def group(**sections):
        return soup_group(TrialConfig.model_validate(sections).model_dump(mode="json"))

    adapter = {"strategy": "adapter"}
    assert group(finetune=adapter | {"beside": "norms"}) == group(finetune=adapter)
    others = [
        group(),
        group(finetune={"strategy": "prompt"}),
        group(finetune=adapter | {"bottleneck": 8}),
        group(finetune=adapter, freeze={"depth": 0.5}),
    ]
    assert group(finetune=adapter) not in others
    assert group(freeze={"depth": 0.5}) == group(finetune={"strategy": "lora"}) == group()


@NEEDS_PEFT
def test_a_soup_of_light_adapters_is_measured_packaged_and_gone_on_from_as_the_plain_network(config, tmp_path):
    members = ingredients(config, tmp_path, strategies=("dora", "lora"))
    soup, evaluation, _ = make_soup(members, path=tmp_path / "soup.safetensors")
    first = members[0].config
    scored = Trained(config=first, soup=tmp_path / "soup.safetensors").score("val")
    # Behind frozen layers whose outputs are rounded to float16, and without.
    assert scored.metrics["loss"] == pytest.approx(evaluation.metrics["loss"], rel=0.01)
    package(first, folder=tmp_path / "package", soup=tmp_path / "soup.safetensors")  # refuses what answers otherwise
    export_weights(first, checkpoint=members[0].checkpoint, path=tmp_path / "own.safetensors")
    names = set(make_network(num_classes=2).state_dict())
    assert set(load_file(tmp_path / "own.safetensors")) == set(soup.state) == names
    model = first.model.model_copy(update={"weights": str(tmp_path / "own.safetensors")})
    (epoch,) = fit(first.model_copy(update={"model": model}))
    assert epoch.number == 1
