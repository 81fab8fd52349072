"""Trials that learn from two domains."""

import math
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch
from safetensors.torch import load_file

from trainable import UserError, fit
from trainable.config.trial import AdaptConfig
from trainable.model.norms import target_statistics
from trainable.serving.package import load_package, package
from trainable.training.checkpoint import load_scored
from trainable.training.setup import set_up
from trainable.training.trained import Trained, export_weights
from trainable.training.trainer import create_trainer

torch.set_num_threads(1)

METHODS = get_args(AdaptConfig.model_fields["method"].annotation)
VARIANTS = {
    **{method: {} for method in ("mcc", "dsbn", "fda")},  # the others in combinations
    "dann, ganin, averaged, a stage": {
        "adapt": {"method": "dann", "schedule": "ganin", "layer": "stage3", "dropout": 0.3},
        "train": {"ema": 0.4},
    },
    "adabn, averaged": {"adapt": {"method": "adabn"}, "train": {"ema": 0.4}, "freeze": {"depth": 0.5}},
    "cdan behind frozen layers": {"adapt": {"method": "cdan"}, "freeze": {"depth": 0.5}},
    "none, a new head, averaged": {
        "adapt": {"method": "none"},
        "finetune": {"strategy": "two_stage", "classifier_share": 0.5},
        "train": {"epochs": 4, "ema": 0.4},
    },
    "adabn that thaws, averaged, small images first": {
        "adapt": {"method": "adabn"},
        "finetune": {"strategy": "gradual"},
        "train": {"epochs": 3, "ema": 0.4},
        "data": {"early_size": 24, "early_epochs": 1},
    },
    "coral of a stage that thaws": {
        "adapt": {"method": "coral", "layer": "stage3"},
        "finetune": {"strategy": "gradual"},
        "train": {"epochs": 3},
    },
    "mmd, dynamic, accumulating": {"adapt": {"method": "mmd", "schedule": "dynamic"}, "train": {"accumulate": 2}},
    "adversarial in steps, with dropout": {
        "adapt": {"method": "adversarial", "steps": 2},
        "model": {"dropout": 0.3, "drop_path": 0.1},
    },
}


def told(epoch):
    return {n: v for n, v in epoch.metrics.items() if not n.startswith("usage/") or n == "usage/prefix_share"}


def run(config, folder, *, breaks):
    """Metrics of every epoch and the last checkpoint's weights; with ``breaks`` each epoch is a process's only one."""
    metrics, resume = [], None
    while True:
        for epoch in fit(config, resume_from=resume):
            metrics.append(told(epoch))
            resume = folder / f"epoch_{epoch.number}"
            epoch.save(resume)
            if breaks:
                break
        else:
            break
    return metrics, (resume / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("name", VARIANTS)
def test_resumed_and_with_every_target_label_flipped_it_is_the_unbroken_run_to_the_bit(
    name, adapting, two_kinds, tmp_path
):
    sections = VARIANTS[name]
    method = sections.get("adapt", {}).get("method", name)
    flipped = two_kinds("flipped.csv", labels_of_poly=["defective"] * 14 + ["functional"] * 14)
    unbroken = run(adapting(method, **sections), tmp_path / "unbroken", breaks=False)
    shutil.rmtree(Path(adapting(method).data.cache) / "prefix", ignore_errors=True)  # what was stored is stored anew
    if "data" in sections:
        sections = sections | {"data": sections["data"] | {"path": flipped}}
    broken = adapting(method, path=flipped, **sections)
    assert run(broken, tmp_path / "broken", breaks=True) == unbroken


def test_a_target_without_labels_is_as_good(adapting, two_kinds, tmp_path):
    none = two_kinds("none.csv", labels_of_poly=[""] * 28)
    expected = run(adapting("cdan"), tmp_path / "own", breaks=False)
    assert run(adapting("cdan", path=none), tmp_path / "none", breaks=False) == expected


def test_an_oracle_trains_the_same_and_is_scored_by_labels_beside(adapting, two_kinds, tmp_path):
    blind, blind_weights = run(adapting("dann"), tmp_path / "blind", breaks=False)
    oracle, oracle_weights = run(adapting("dann", oracle=True), tmp_path / "oracle", breaks=False)
    assert oracle_weights == blind_weights
    truths = {name for name in oracle[0] if name.startswith("oracle/")}
    assert truths == {f"oracle/{name}" for name in ("accuracy", "balanced_accuracy", "macro_f1", "loss", "ece")}
    assert [{name: value for name, value in one.items() if name not in truths} for one in oracle] == blind
    wrong = two_kinds("wrong.csv", labels_of_poly=["defective"] * 14 + ["functional"] * 14)
    flipped, _ = run(adapting("dann", path=wrong, oracle=True), tmp_path / "wrong", breaks=False)
    assert math.isclose(flipped[-1]["oracle/accuracy"], 1 - oracle[-1]["oracle/accuracy"])


@pytest.mark.parametrize("method", ["dann", "cdan", "mmd", "coral", "mcc", "adversarial"])
def test_both_losses_are_told_and_their_sum_is_what_is_minimised(method, adapting):
    first = next(fit(adapting(method, adapt={"weight": 0.5})))
    source, target, weight = (first.metrics[f"train/{name}"] for name in ("source_loss", "target_loss", "adapt_weight"))
    assert weight == 0.5
    if method in (
        "dann",
        "cdan",
    ):  # the weight is the reversed gradient's, the domain classifier learns at its own rate
        assert first.metrics["train/loss"] == pytest.approx(source + target, rel=1e-6)
    elif method == "adversarial":  # the domain classifier's own loss comes on top
        assert first.metrics["train/loss"] > source + 0.5 * target
    else:
        assert first.metrics["train/loss"] == pytest.approx(source + 0.5 * target, rel=1e-5)
    if method in ("dann", "cdan", "adversarial"):
        assert 0 <= first.metrics["train/domain_accuracy"] <= 1


def test_the_weight_follows_its_schedule(adapting):
    rising = [told(epoch)["train/adapt_weight"] for epoch in fit(adapting("coral", adapt={"schedule": "ganin"}))]
    # 20 training images in batches of 9 are 2 whole ones and one of 2: progress 0, 1/6, 1/3, then 1/2, 2/3, 5/6
    expected = [2 / (1 + math.exp(-10 * step / 6)) - 1 for step in range(6)]
    assert rising == pytest.approx([sum(expected[:3]) / 3, sum(expected[3:]) / 3], rel=1e-6)
    dynamic = next(fit(adapting("coral", adapt={"schedule": "dynamic", "weight": 2.0})))
    assert 1.0 < dynamic.metrics["train/adapt_weight"] < 2.0


def test_a_bounded_term_fades_as_the_loss_does(adapting):
    settings = {"train": {"batch_size": 20, "epochs": 12}, "optimizer": {"lr": 0.02}}
    *_, last = fit(
        adapting("mcc", adapt={"schedule": "bounded", "weight": 0.001}, **settings)
    )  # so little that it stays large
    source, target, weight = (last.metrics[f"train/{name}"] for name in ("source_loss", "target_loss", "adapt_weight"))
    assert source < target  # else nothing had to be bounded
    assert weight == pytest.approx(0.001 * source / target, rel=1e-5)  # of one batch an epoch
    assert weight < 0.0009


def test_a_reversed_gradient_reaches_the_backbone_and_the_weight_scales_it(adapting):
    """The domain loss's gradient on the backbone is -λ times, on the domain classifier once, that of learning to tell them."""
    gradients = {}
    for weight in (1.0, 0.25):
        started = create_trainer(set_up(adapting("dann", adapt={"weight": weight})))
        images, others = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(2)
        terms = started.adaptation.terms(
            started.state.network.train(),
            images=images,
            others=others,
            classify=lambda logits: 0 * logits.sum(),
            progress=0.0,
            autocast=torch.autocast("cpu", enabled=False),
        )
        terms.loss.backward()
        gradients[weight] = {
            name: p.grad.clone() for name, p in started.state.network.named_parameters() if p.grad is not None
        }
    moved = [
        name for name in gradients[1.0] if name.startswith("backbone.") and gradients[1.0][name].abs().max() > 1e-6
    ]
    assert len(moved) > 10
    for name in moved:
        torch.testing.assert_close(gradients[0.25][name], 0.25 * gradients[1.0][name], rtol=1e-4, atol=1e-7)
    for name in gradients[1.0]:
        if name.startswith("adapter."):
            torch.testing.assert_close(gradients[0.25][name], gradients[1.0][name])


def test_adabn_touches_only_batch_norm_statistics(adapting, tmp_path):
    run(adapting("none"), tmp_path / "none", breaks=False)
    run(adapting("adabn"), tmp_path / "adabn", breaks=False)
    plain, adapted = (load_file(tmp_path / name / "epoch_2" / "weights.safetensors") for name in ("none", "adabn"))
    assert all(torch.equal(adapted[name], plain[name]) for name in plain)
    added = {name.rpartition(".")[2] for name in adapted.keys() - plain.keys()}
    assert added == {"target_mean", "target_var", "target_batches"}
    assert not torch.equal(adapted["backbone.bn1.running_mean"], adapted["backbone.bn1.target_mean"])


@pytest.mark.parametrize("method", ["adabn", "dsbn"])
def test_exported_the_network_has_the_targets_statistics(method, adapting, tmp_path):
    config = adapting(method)
    run(config, tmp_path, breaks=False)
    checkpoint = tmp_path / "epoch_2"
    export_weights(config, checkpoint=checkpoint, path=tmp_path / "whole.safetensors")
    exported, saved = load_file(tmp_path / "whole.safetensors"), load_file(checkpoint / "weights.safetensors")
    assert torch.equal(exported["backbone.bn1.running_mean"], saved["backbone.bn1.target_mean"])
    assert not any("target_" in name or name.startswith("adapter.") for name in exported)


def test_dsbn_moves_each_domains_statistics_by_its_own_images(adapting, tmp_path):
    run(adapting("dsbn"), tmp_path, breaks=False)
    saved = load_file(tmp_path / "epoch_2" / "weights.safetensors")
    run(adapting("none"), tmp_path / "none", breaks=False)
    plain = load_file(tmp_path / "none" / "epoch_2" / "weights.safetensors")
    assert torch.equal(saved["backbone.bn1.running_mean"], plain["backbone.bn1.running_mean"])
    assert not torch.allclose(saved["backbone.bn1.target_mean"], saved["backbone.bn1.running_mean"])


def test_packaged_the_network_has_the_targets_statistics(adapting, tmp_path):
    config = adapting("adabn")
    (*_, last) = fit(config)
    last.save(tmp_path / "checkpoint")
    package(config, folder=tmp_path / "package", checkpoint=tmp_path / "checkpoint")
    trial = set_up(config)
    load_scored(tmp_path / "checkpoint", network=trial.network, moved=trial.moved)
    served = load_package(tmp_path / "package", device="cpu").network
    images = next(trial.inputs.split("target_val", epoch=0))[0]
    with torch.inference_mode(), target_statistics(trial.network.eval()):
        expected = trial.network(images)
    assert torch.equal(served(images), expected)
    assert not torch.allclose(trial.network(images), expected)


def test_the_target_is_scored_with_its_own_statistics(adapting, tmp_path):
    plain = run(adapting("none"), tmp_path / "none", breaks=False)[0][-1]
    adapted = run(adapting("adabn"), tmp_path / "adabn", breaks=False)[0][-1]
    assert {name: value for name, value in plain.items() if not name.startswith("target/")} == {
        name: value for name, value in adapted.items() if not name.startswith("target/")
    }
    assert plain["target/entropy"] != adapted["target/entropy"]


def test_adapted_statistics_follow_what_trains_and_the_size_of_the_images(adapting, tmp_path):
    """Those of resting norms are of full-size images, those of moving norms of the weights as they are."""
    small_first = {"early_size": 24, "early_epochs": 1}
    config = adapting("adabn", freeze={"depth": "stage2"}, data=small_first)
    run(config, tmp_path / "small first", breaks=False)
    adapted = load_file(tmp_path / "small first" / "epoch_2" / "weights.safetensors")
    run(adapting("adabn", freeze={"depth": "stage2"}), tmp_path / "full", breaks=False)
    full = load_file(tmp_path / "full" / "epoch_2" / "weights.safetensors")
    frozen = [name for name in full if "target_" in name and name.startswith(("backbone.bn1", "backbone.layer1"))]
    assert frozen
    assert all(torch.equal(adapted[name], full[name]) for name in frozen)
    averaged = adapting("adabn", finetune={"strategy": "gradual"}, train={"epochs": 3, "ema": 0.5})
    run(averaged, tmp_path / "averaged", breaks=False)
    last = {
        epoch: load_file(tmp_path / "averaged" / f"epoch_{epoch}" / "average.safetensors")[
            "backbone.layer4.0.bn2.target_var"
        ]
        for epoch in (1, 2, 3)
    }
    assert not torch.equal(last[2], last[3])  # stage4 trains from the second epoch on


def test_only_an_oracle_can_score_the_target(adapting, tmp_path):
    config = adapting("mmd", oracle=True)
    run(config, tmp_path, breaks=False)
    of_target = Trained(config=config, checkpoint=tmp_path / "epoch_2").score("target_test")
    assert sum(map(sum, of_target.confusion)) == len(set_up(config).pack.indices("target_test"))


@pytest.mark.parametrize("method", ["cdan", "adabn", "dsbn"])
def test_what_frozen_layers_make_of_the_images_is_shared_and_changes_nothing(method, adapting, tmp_path):
    frozen = {"freeze": {"depth": 0.5}}
    live, _ = run(adapting(method, data={"prefix_gb": 0.0}, **frozen), tmp_path / "live", breaks=False)
    config = adapting(method, **frozen)
    stored, _ = run(config, tmp_path / "stored", breaks=False)
    assert live == stored
    assert all(epoch["usage/prefix_share"] > 0.4 for epoch in stored)


def test_all_methods_share_the_prefix_of_a_cut_but_adabns_target(adapting, cache):
    store = Path(cache) / "prefix"

    def files_after(method, **adapt):
        next(fit(adapting(method, freeze={"depth": 0.5}, adapt=adapt)))
        return {path.name for path in store.glob("*.block")}

    first = files_after("dann")
    assert first
    for method, weight in (("dann", 0.1), ("cdan", 1.0), ("mmd", 1.0), ("dsbn", 1.0)):
        assert files_after(method, weight=weight) == first
    assert files_after("adabn") > first


@pytest.mark.parametrize(
    "sections",
    [
        {"augment": {"mixup": 0.2}},
        {"adapt": {"method": "fda"}},
        {"adapt": {"method": "adversarial"}},
        {"freeze": {"depth": 0.5, "bn": "train_stats"}},
        {"freeze": {"depth": 0.0}},
        {"augment": {"custom": ["torchvision.transforms.v2.functional:vflip"]}},
    ],
    ids=str,
)
def test_what_cannot_be_computed_once_is_computed_anew(sections, adapting, monkeypatch):
    monkeypatch.setenv("SEARCH_ALLOW_CODE", "1")
    config = adapting(sections.get("adapt", {}).get("method", "mmd"), **({"freeze": {"depth": 0.5}} | sections))
    assert next(fit(config)).metrics["usage/prefix_share"] == 0.0


def test_an_aligned_stage_must_train(adapting):
    line = r"^adapt.layer: 'stage1' of test_resnet is frozen, so nothing can be aligned in it$"
    with pytest.raises(UserError, match=line):
        set_up(adapting("mmd", adapt={"layer": "stage1"}, freeze={"depth": "stage2"}))


def test_a_method_of_batch_norms_needs_some(adapting):
    with pytest.raises(UserError, match=r"^adapt.method: 'adabn' needs batch norms, convnext_atto has none$"):
        set_up(adapting("adabn", model={"name": "convnext_atto"}))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_stages_of_any_layout_can_be_aligned(name, adapting):
    size = 64 if name.startswith("swin") else 32
    config = adapting(
        "coral",
        model={"name": name},
        adapt={"layer": "stage2"},
        data={"path": adapting("none").data.path, "image_size": size},
        train={"epochs": 1, "batch_size": 9},
    )
    started = create_trainer(set_up(config))
    images = torch.randn(3, 3, size, size)
    pooled, aligned = started.state.network.eval().look(images, end=started.adaptation.end)
    assert aligned.shape == (3, started.adaptation.end.channels)
    assert pooled.shape == (3, started.state.network.width)
    assert next(fit(config)).metrics["train/target_loss"] > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("amp", ["bf16", "fp16"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_a_gpu_in_mixed_precision(method, amp, adapting):
    config = adapting(method, freeze={"depth": 0.5}, train={"amp": amp, "channels_last": True})
    told_twice = [[told(epoch) for epoch in fit(config)] for _ in range(2)]  # the second from what the first stored
    for one, other in zip(*told_twice, strict=True):
        assert math.isfinite(one["train/loss"])
        assert one == pytest.approx(other, rel=0.05, abs=0.05)  # GPU kernels add in no fixed order
