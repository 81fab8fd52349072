"""What every method of adaptation keeps: it trains, and the target's labels are nothing to it."""

import math

import pytest
import torch

from trainable.adapt.methods import METHODS, WEIGHT_SCHEDULES
from trainable.config.techniques import DISCRIMINATING_METHODS, NORM_METHODS
from trainable.config.trial import TrialConfig
from trainable.data.readers.read import read_source
from trainable.errors import UserError
from trainable.statistics.ranking import SELECTORS
from trainable.training.fit import fit
from trainable.training.setup import set_up
from trainable.training.trainer import create_trainer

torch.set_num_threads(1)

SITES = {"north": 12, "south": 12}  # images of each class
REFUSED = [("fda", "dynamic"), ("fda", "bounded"), ("dann", "bounded"), ("cdan", "bounded")]  # method, schedule
WITHOUT_A_TERM = ("none", "adabn", "dsbn", "fda")  # what they do is done to norms or pixels


@pytest.fixture(scope="module")
def sites(tmp_path_factory, draw_image):
    """A function that writes a CSV of two domains, the target's images with the labels that ``label_of`` gives them."""
    root = tmp_path_factory.mktemp("sites")
    rows = [(site, label, number) for site, count in SITES.items() for label in "ab" for number in range(count)]
    for index, (site, label, number) in enumerate(rows):
        draw_image(root / site / f"{label}{number}.png", number=index, size=(40, 36))

    def write(name, *, label_of):
        told = [(site, label, number, label_of(label) if site == "south" else label) for site, label, number in rows]
        lines = [f"{site}/{label}{number}.png,{said},{site}" for site, label, number, said in told]
        (root / name).write_text("\n".join(["image,label,site", *lines]) + "\n")
        return str(root / name)

    return write


@pytest.fixture(scope="module")
def adapting(sites, tmp_path_factory):
    """A function that makes a small trial from north to south."""
    cache = str(tmp_path_factory.mktemp("cache"))
    own = sites("own.csv", label_of=str)

    def make(method, *, path=None, **sections):
        data = {"path": path or own, "domain_column": "site", "target": "south", "image_size": 32, "cache": cache}
        base = {
            "data": data,
            "model": {"name": "test_resnet", "weights": "random"},
            "train": {"epochs": 1, "batch_size": 8},
            "adapt": {"method": method},
        }
        for name, values in sections.items():
            base[name] = base.get(name, {}) | values
        return TrialConfig.model_validate(base)

    return make


def trained(config, folder):
    """Everything measured in an epoch but time and memory, and the bytes of its weights."""
    (epoch,) = fit(config)
    epoch.save(folder)
    metrics = {name: value for name, value in epoch.metrics.items() if not name.startswith("usage/")}
    return metrics, (folder / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("method", METHODS)
def test_an_epoch_is_finite_and_the_same_whatever_labels_the_target_has(method, adapting, sites, tmp_path):
    metrics, weights = trained(adapting(method), tmp_path / "own")
    assert all(math.isfinite(value) for value in metrics.values())
    assert {f"target/{name}" for name in SELECTORS} <= metrics.keys()
    assert not any(name.startswith("oracle/") for name in metrics)
    for name, label_of in {"flipped": lambda label: "ab"[label == "a"], "none": lambda label: ""}.items():
        config = adapting(method, path=sites(f"{name}.csv", label_of=label_of))
        assert {sample.label for sample in read_source(config.data).target} == {None}
        assert trained(config, tmp_path / name) == (metrics, weights)


@pytest.mark.parametrize("method", METHODS)
def test_one_batch_gives_a_finite_loss_and_gradient_to_all_that_it_trains(method, adapting):
    trainer = create_trainer(set_up(adapting(method)))
    adaptation, network = trainer.adaptation, trainer.state.network.train()
    if not adaptation.sees_target:
        pytest.skip("its updates are those of the source alone")
    images, others = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).split(4)
    terms = adaptation.terms(
        network,
        images=images,
        others=others,
        classify=lambda logits: torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 0, 1])),
        progress=0.5,
        autocast=torch.autocast("cpu", enabled=False),
    )
    terms.loss.backward()
    assert terms.loss.ndim == 0
    assert torch.isfinite(terms.loss)
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
    assert all(p.grad is not None and p.grad.any() for p in network.adapter.parameters())
    assert all(not part.requires_grad and part.ndim == 0 for part in terms.parts.values())
    assert ("target_loss" in terms.parts) == (method not in WITHOUT_A_TERM)


@pytest.mark.parametrize("method", METHODS)
def test_only_methods_of_batch_norms_keep_the_targets_statistics_and_need_norms(method, adapting):
    buffers = {name.rpartition(".")[2] for name, _ in set_up(adapting(method)).network.named_buffers()}
    assert ("target_mean" in buffers) == (method in NORM_METHODS)
    without = adapting(method, model={"name": "test_convnext"})
    if method in NORM_METHODS:
        with pytest.raises(UserError, match=f"^adapt.method: '{method}' needs batch norms, test_convnext has none$"):
            set_up(without)
    else:
        assert set_up(without)


@pytest.mark.parametrize("method", METHODS)
def test_only_methods_that_tell_domains_have_something_that_learns_beside_the_network(method, adapting):
    learns = list(set_up(adapting(method)).network.adapter.parameters())
    assert bool(learns) == (method in DISCRIMINATING_METHODS)


@pytest.mark.parametrize("schedule", WEIGHT_SCHEDULES)
@pytest.mark.parametrize("method", METHODS)
def test_the_weight_never_exceeds_what_was_asked_for(method, schedule, adapting):
    if (method, schedule) in REFUSED:
        pytest.skip("this pair is refused: see the test of refusals")
    adaptation = create_trainer(set_up(adapting(method, adapt={"schedule": schedule, "weight": 0.7}))).adaptation
    strengths = [adaptation.strength(progress / 10) for progress in range(11)]
    assert all(0 <= strength <= 0.7 for strength in strengths)
    assert strengths == sorted(strengths)
    assert strengths[-1] == pytest.approx(0.7, rel=1e-3)


@pytest.mark.parametrize(("method", "schedule"), REFUSED)
def test_a_schedule_that_a_method_cannot_have_is_refused(method, schedule, adapting):
    with pytest.raises(
        ValueError, match=f"adapt.schedule: '{schedule}' .*adapt.method: {method}.*; fixed(, ganin| or ganin)"
    ):
        adapting(method, adapt={"schedule": schedule})


@pytest.mark.parametrize("method", [method for method in METHODS if method != "none"])
def test_without_a_target_it_is_refused(method):
    with pytest.raises(ValueError, match=f"adapt.method: '{method}' needs data.target"):
        TrialConfig.model_validate({"adapt": {"method": method}})
