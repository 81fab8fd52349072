"""What is served is what was trained, wherever it is loaded."""

import io
import json
import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from trainable import fit
from trainable.data import decode as decoding
from trainable.loader.batches import normalise
from trainable.loader.views import evaluation_view
from trainable.serving import classifier as serving
from trainable.serving import package as packaging
from trainable.serving.encoded import encoded_images
from trainable.serving.package import digest, load_package, package
from trainable.statistics.scores import score
from trainable.training.checkpoint import load_scored
from trainable.training.finishing import Finish, read_finish
from trainable.training.setup import set_up
from trainable.training.trained import Trained

NETWORKS = {
    "a CNN with a hidden layer in its head": {"model": {"head": "mlp", "head_hidden": 8}},
    "a ViT at another size than its own": {"model": {"name": "test_vit"}, "data": {"image_size": 64}},
    "images smaller at first": {
        "model": {"name": "test_vit"},
        "data": {"image_size": 64, "early_size": 32, "early_epochs": 1},
    },
    "shifted logits": {"loss": {"logit_adjustment": 1.0}},
    "a running average": {"train": {"ema": 0.5}},
    "grey": {"data": {"channels": 1}},
    "a CNN that ends behind a stage": {"model": {"name": "resnet10t", "until": "stage3"}},
    "a CNN with features of its stages": {"model": {"name": "resnet10t", "pool": "stages"}},
    "a ViT with features of its stages": {"model": {"name": "test_vit", "pool": "stages"}, "data": {"image_size": 64}},
    "features of the stages before an end": {"model": {"name": "resnet10t", "until": "stage3", "pool": "stages"}},
    "a CNN pooled by the generalised mean": {"model": {"name": "resnet10t", "pool": "gem"}, "data": {"image_size": 64}},
    "a frozen CNN pooled by the generalised mean": {
        "model": {"pool": "gem"},
        "freeze": {"depth": 1.0},
        "data": {
            "image_size": 64,
            "prefix_dtype": "float32",
        },  # what is served begins behind nothing, and rounds nothing
    },
    "the generalised mean before an end": {"model": {"name": "resnet10t", "until": "stage3", "pool": "gem"}},
    "a ViT pooled by attention": {"model": {"name": "test_vit", "pool": "attentive"}, "data": {"image_size": 64}},
    "a CNN pooled by attention": {
        "model": {"name": "test_convnext", "pool": "attentive"},
        "data": {"image_size": 64},
    },
    "a ViT's class token and mean": {"model": {"name": "test_vit", "pool": "token_mean"}, "data": {"image_size": 64}},
    "a ViT's class tokens of its last blocks": {
        "model": {"name": "test_vit", "pool": "blocks", "pool_blocks": 2},
        "data": {"image_size": 64},
    },
    "a CNN with a cosine head": {"model": {"head": "cosine", "dropout": 0.1}},
    "a cosine head on the generalised mean": {
        "model": {"head": "cosine", "pool": "gem"},
        "freeze": {"depth": 1.0},
        "data": {
            "image_size": 64,
            "prefix_dtype": "float32",
        },  # what is served begins behind nothing, and rounds nothing
    },
    "a ViT that ends behind a stage": {"model": {"name": "test_vit", "until": "stage2"}, "data": {"image_size": 64}},
    "bottlenecks in a CNN pooled by the generalised mean": {
        "finetune": {"strategy": "adapter", "bottleneck": 8},
        "model": {"name": "test_resnet", "pool": "gem"},
        "freeze": {"depth": 0.5},
        "optimizer": {"lr": 0.01},
        "data": {"image_size": 64, "prefix_dtype": "float32"},
    },
    "prompts in a ViT that ends behind a stage": {
        "finetune": {"strategy": "prompt", "prompts": 3},
        "model": {"name": "test_vit", "until": "stage3"},
        "data": {"image_size": 64},
        "optimizer": {"lr": 0.01},
        "train": {"ema": 0.5},
    },
}
LIGHT = {
    "light adapters of a CNN": {"finetune": {"strategy": "lora"}, "freeze": {"depth": 0.5}, "optimizer": {"lr": 0.01}},
    "light adapters of a ViT that ends behind a stage": {
        "finetune": {"strategy": "dora"},
        "model": {"name": "test_vit", "until": "stage2"},
        "data": {"image_size": 64},
        "optimizer": {"lr": 0.01},
        "train": {"ema": 0.5},
    },
}
NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


def trained(config, folder):
    (*_, last) = fit(config)
    last.save(folder)
    return last


@pytest.mark.parametrize("name", [*NETWORKS, *(pytest.param(name, marks=NEEDS_PEFT) for name in LIGHT)])
def test_the_package_scores_what_training_measured(make_config, tmp_path, name):
    sections = {key: dict(values) for key, values in (NETWORKS | LIGHT)[name].items()}
    sections["train"] = {"epochs": 2, "batch_size": 9} | sections.get("train", {})
    config = make_config(**sections)
    last = trained(config, tmp_path / "checkpoint")
    package(config, folder=tmp_path / "package", checkpoint=tmp_path / "checkpoint")
    served = load_package(tmp_path / "package", device="cpu")
    images = encoded_images(config, split="val")
    assert served.plausible(np.ones((1, len(served.classes)))) is None
    labels = np.array([served.classes.index(image.label) for image in images])
    found = served.probabilities([image.read_bytes() for image in images], batch_size=3)
    metrics = score(found, labels=labels, classes=served.classes).named("val")
    assert metrics["val/loss"] == pytest.approx(last.metrics["val/loss"], abs=1e-5)  # batches of another size
    assert metrics["val/balanced_accuracy"] == last.metrics["val/balanced_accuracy"]


def test_a_finished_model_is_served_and_described_with_its_views_and_its_calibration(make_config, tmp_path):
    config = make_config(train={"epochs": 2, "batch_size": 9}, augment={"strength": "light", "flip": "both"})
    trained(config, tmp_path / "checkpoint")
    network = Trained(config=config, checkpoint=tmp_path / "checkpoint")
    steps = ("views", "calibration")
    package(config, folder=tmp_path / "package", checkpoint=tmp_path / "checkpoint", finish=steps)
    finish = read_finish(json.loads((tmp_path / "package/model.json").read_text())["finish"])
    assert finish == network.find_finish(steps)
    assert finish != Finish()
    served = load_package(tmp_path / "package", device="cpu")
    found = served.probabilities([image.read_bytes() for image in encoded_images(config, split="val")])
    expected = replace(network, finish=finish).predict("val").probabilities
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_packaged_for_a_coverage_says_which_classes_are_plausible(make_config, tmp_path):
    config = make_config(train={"epochs": 1, "batch_size": 9})
    trained(config, tmp_path / "checkpoint")
    package(config, folder=tmp_path / "package", checkpoint=tmp_path / "checkpoint", coverage=0.6)
    served = load_package(tmp_path / "package", device="cpu")
    images = encoded_images(config, split="val")
    probabilities = served.probabilities([image.read_bytes() for image in images])
    plausible = served.plausible(probabilities * (1 + 1e-5))  # batches of another size
    labels = [served.classes.index(image.label) for image in images]
    held = plausible[np.arange(len(labels)), labels].mean()
    assert 0.6 <= held < 0.6 + 2 / len(labels)
    assert served.description["unsure"]["num_images"] == len(labels)


def test_features_are_what_the_trained_network_gives_its_head(make_config, tmp_path):
    config = make_config(train={"epochs": 1, "batch_size": 9}, model={"head": "mlp", "head_hidden": 8})
    trained(config, tmp_path / "checkpoint")
    package(config, folder=tmp_path / "package", checkpoint=tmp_path / "checkpoint")
    served = load_package(tmp_path / "package", device="cpu")
    setup = set_up(config)
    load_scored(tmp_path / "checkpoint", network=setup.network.eval(), moved=setup.moved)
    images = [image.read_bytes() for image in encoded_images(config, split="val")]
    pixels = torch.from_numpy(np.stack([served.pixels(image) for image in images]))
    with torch.inference_mode():
        expected = setup.network.features(normalise(pixels, setup.inputs.full.spec)).numpy()
    found = served.features(images, batch_size=3)
    assert found.dtype == np.float32
    assert found == pytest.approx(expected, abs=1e-5)  # batches of another size
    assert np.std(found, axis=0).max() > 0
    assert served.features([]).shape == (0, expected.shape[1])


def odd_images():
    """Images as they come: turned by a tag, deep grey, with a palette, transparent, four colours, an array."""
    grey = np.linspace(0, 255, 40 * 30).reshape(30, 40).astype(np.uint8)
    colour = Image.fromarray(np.stack([grey, grey[::-1], grey[:, ::-1]], axis=-1))
    turned = Image.Exif()
    turned[0x0112] = 6
    kinds = {
        "turned": (colour, "jpeg", {"exif": turned}),
        "deep": (Image.fromarray(grey.astype(np.uint16) * 257), "png", {}),
        "palette": (colour.quantize(16), "png", {}),
        "transparent": (colour.convert("RGBA"), "png", {}),
        "four colours": (colour.convert("CMYK"), "tiff", {}),
    }
    for name, (image, kind, options) in kinds.items():
        file = io.BytesIO()
        image.save(file, kind, **options)
        yield name, file.getvalue()
    file = io.BytesIO()
    np.save(file, np.asarray(colour))
    yield "array", file.getvalue()


@pytest.mark.parametrize(("name", "data"), list(odd_images()))
def test_any_image_is_prepared_as_for_training(packaged, name, data):
    config, root = packaged
    served = load_package(root / "package", device="cpu")
    spec = set_up(config).inputs.full.spec
    stored = decoding.decode(data, channels=3, side=spec.stored_side, interpolation=spec.interpolation)
    view = evaluation_view(stored, spec)
    pixels = served.pixels(data)
    assert np.array_equal(pixels, view.numpy())
    ready = served.normalised(torch.from_numpy(pixels)[None])
    assert torch.equal(ready, normalise(view[None], spec))


@pytest.fixture(scope="module")
def packaged(tmp_path_factory, cell_folder):
    from trainable import TrialConfig

    root = tmp_path_factory.mktemp("packaged")
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(cell_folder), "image_size": 32, "cache": str(root / "cache")},
            "model": {"name": "resnet10t", "weights": "random"},
            "train": {"epochs": 1, "batch_size": 9},
        }
    )
    trained(config, root / "checkpoint")
    package(config, folder=root / "package", checkpoint=root / "checkpoint")
    return config, root


def test_it_runs_where_the_project_is_not_installed(packaged, cells):
    _, root = packaged
    program = textwrap.dedent(
        f"""
        import importlib.util, json, pathlib, sys
        sys.modules["trainable"] = sys.modules["search"] = None  # not to be imported
        def module(name):
            spec = importlib.util.spec_from_file_location(name, {str(root / "package")!r} + f"/{{name}}.py")
            found = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(found)
            return found
        folder = pathlib.Path({str(root / "package")!r})
        model = module("classifier").Classifier(folder, decode=module("decode").decode, layers=module("layers"), device="cpu")
        print(json.dumps(model.probabilities([pathlib.Path({str(cells[0])!r}).read_bytes()]).tolist()))
        """
    )
    result = subprocess.run(
        [sys.executable, "-B", "-c", program], capture_output=True, text=True, cwd=root, check=False
    )
    assert result.returncode == 0, result.stderr
    here = load_package(root / "package", device="cpu").probabilities([cells[0].read_bytes()])
    assert np.array_equal(np.array(json.loads(result.stdout)), here)


def test_a_package_that_serves_something_else_is_not_written(packaged, tmp_path, monkeypatch):
    config, root = packaged
    broken = load_file(root / "package" / "weights.safetensors")

    def other_weights(network):
        return broken | {"head.1.bias": broken["head.1.bias"] + torch.tensor([1.0, 0.0])}

    monkeypatch.setattr(packaging, "network_state", other_weights)
    with pytest.raises(RuntimeError, match="differs from the trained one"):
        package(config, folder=tmp_path / "package", checkpoint=root / "checkpoint")
    assert list(tmp_path.iterdir()) == []


def test_it_says_by_hash_alone_which_image_was_in_which_split_of_which_class(packaged):
    config, root = packaged
    rows = pq.read_table(root / "package" / "images.parquet").to_pylist()
    assert set(rows[0]) == {"sample_id", "split", "label", "group"}
    for split in ("train", "val", "test"):
        images = encoded_images(config, split=split)
        found = {(row["sample_id"], row["label"]) for row in rows if row["split"] == split}
        assert found == {(image.sample_id, image.label) for image in images}


def test_the_digest_changes_with_any_byte(packaged, tmp_path):
    _, root = packaged
    before = digest(root / "package")
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in (root / "package").iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert digest(copy) == before
    state = load_file(copy / "weights.safetensors")
    save_file(state | {"shift": state["shift"] + 1e-7}, copy / "weights.safetensors")
    assert digest(copy) != before


def test_nothing_in_a_package_is_pickled(packaged):
    _, root = packaged
    assert {path.name for path in (root / "package").iterdir()} == {
        "weights.safetensors",
        "model.json",
        "images.parquet",
        "classifier.py",
        "decode.py",
        "layers.py",
    }


@pytest.mark.parametrize(
    ("load", "cores", "most", "threads"),
    [(0.1, 8, 8, 8), (0.1, 8, 4, 4), (5.6, 8, 8, 2), (1.7, 2, 2, 1), (9.0, 2, 2, 1)],
)
def test_an_image_alone_is_answered_on_the_cores_that_other_work_leaves(load, cores, most, threads):
    assert serving.idle_cores(load, cores=cores, most=most) == threads


@pytest.mark.parametrize(("images", "threads"), [(1, 1), (serving.FEW - 1, 1), (serving.FEW, 2)])
def test_on_a_busy_machine_few_images_have_one_thread_and_what_follows_has_all(images, threads, monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr("os.getloadavg", lambda: (99.0, 0.0, 0.0))
    try:
        torch.set_num_threads(2)
        with serving.threads_for(images, most=2):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
