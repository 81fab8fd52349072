"""A search whose trials cannot learn ends with the probe that beats them, which is promoted as any trial."""

import numpy as np
import pytest
import timm
import torch
import yaml
from mlflow import MlflowClient
from PIL import Image
from safetensors.torch import save_file

from search.ledger.files import best_checkpoint
from search.ledger.stored import stored_spec
from trainable.config.trial import TrialConfig
from trainable.serving.encoded import encoded_images
from trainable.serving.package import load_package
from trainable.training.fit import predict_checkpoint

pytestmark = pytest.mark.slow

EACH = 40
SPACE = {
    "search": {"name": "idle", "trials": 2, "seed": 1},
    "scheduler": {"min_epochs": 1, "max_epochs": 1},
    "resources": {"cpu": 1, "concurrency": 1},
    "baselines": ["stage_probes"],
    "base": {
        "data": {"path": "made", "image_size": 48, "test_share": 0.35, "val_share": 0.25},
        "model": {"name": "resnet10t", "weights": "own.safetensors"},  # those of every seed
        "train": {"batch_size": 8},
        "augment": {"strength": "none"},
    },
    "vary": {"optimizer.lr": {"log": [1e-9, 1e-8]}},
    "promote": {"model": "kinds", "confirm": {"top": 1, "seeds": 2}, "max_ece": None},
}


@pytest.fixture(scope="module")
def searched(make_place):
    """A finished search over stripes that lie or stand, of random brightness."""
    place, random = make_place(), np.random.default_rng(0)
    for kind, axis in (("lying", 0), ("standing", 1)):
        (place.folder / "made" / kind).mkdir(parents=True)
        for index in range(EACH):
            wave = 40 * np.sin(2 * np.pi * np.arange(48) / random.uniform(5, 9) + random.uniform(0, 6))
            stripes = np.broadcast_to(wave[:, None] if axis == 0 else wave[None, :], (48, 48))
            pixels = stripes + random.uniform(90, 160) + random.normal(0, 10, (48, 48))
            image = Image.fromarray(np.repeat(pixels.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2))
            image.save(place.folder / "made" / kind / f"{index}.png")
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), place.folder / "own.safetensors")
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    place.told("run", "space.yaml")
    return place


def test_the_probe_is_the_result_and_is_said_to_be(searched):
    *trials, probe = searched.ledger("idle").trials()
    assert [trial.is_searched for trial in trials] == [True, True]
    assert (probe.number, probe.state, probe.reason, probe.last_epoch) == (2, "COMPLETE", "solved", 1)
    data = searched.read("report", "idle")
    stage = probe.overrides["model.until"]
    name = "linear_probe" if stage is None else f"probe_{stage}"
    assert data["best_trial"] == 2
    assert data["best_value"] == pytest.approx(max(data["baseline_values"].values()), abs=0.03)  # float16 features
    assert data["baseline_values"][name] == max(data["baseline_values"].values())
    assert data["best_config"]["finetune.solver"] == "lbfgs"
    assert data["best_config"].get("model.until") == stage
    assert data["trials"] == {"COMPLETE": 2}
    said = data["probe"]
    assert "beats every trial: it is the result, trial 2; take it, or search longer or deeper" in said
    assert said in " ".join(searched.told("report", "idle").split())
    assert "beats every trial" in searched.told("status", "idle")
    assert said in (searched.folder / "searches/idle/report.html").read_text()
    store = MlflowClient(f"sqlite:///{searched.folder}/mlflow.db")
    runs = store.search_runs([one.experiment_id for one in store.search_experiments()])
    assert any(said in run.data.tags.get("mlflow.note.content", "") for run in runs)


def test_its_test_score_is_the_one_that_is_measured(searched):
    test = searched.ledger("idle").notes.test
    assert (test.trial, test.epoch, test.soup, test.reads) == (2, 1, None, 1)


def test_promoting_registers_a_model_that_predicts_as_the_probe(searched):
    promoted = searched.read("promote", "idle")
    assert promoted["outcome"] == "promoted"
    assert promoted["candidate"]["recipe"] == "trial 2"
    folder = searched.folder / "searches/idle"
    spec, probe = stored_spec(folder), searched.ledger("idle").trial(2)
    config = TrialConfig.model_validate(spec.config_of(probe))
    checkpoint = best_checkpoint(folder, probe, metric=spec.search.metric)
    expected = predict_checkpoint(config, checkpoint=checkpoint, split="test").probabilities
    served = load_package(searched.folder / promoted["candidate"]["package"], device="cpu")
    images = [image.read_bytes() for image in encoded_images(config, split="test")]
    np.testing.assert_allclose(served.probabilities(images), expected, atol=1e-3)  # the head's own precision


def test_a_larger_search_tries_what_it_would_have_and_does_not_train_the_probe_again(searched, make_place):
    searched.told("run", "space.yaml", "--set", "search.trials=3")
    trials = searched.ledger("idle").trials()
    assert [trial.is_searched for trial in trials] == [True, True, False, True]
    other = make_place()
    for name in ("made", "own.safetensors"):
        (other.folder / name).symlink_to(searched.folder / name)
    (other.folder / "space.yaml").write_text(yaml.safe_dump(SPACE | {"baselines": []}))
    other.told("run", "space.yaml", "--set", "search.trials=3")
    straight = other.ledger("idle").trials()
    assert [trial.params for trial in straight] == [trial.params for trial in trials if trial.is_searched]


def test_killed_as_the_probe_is_trained_the_search_ends_with_it_all_the_same(searched, make_place):
    place = make_place()
    for name in ("made", "own.safetensors"):
        (place.folder / name).symlink_to(searched.folder / name)
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    journal = place.folder / "searches/idle/ledger.journal"
    place.kill_when(lambda: journal.is_file() and '"origin":"probe"' in journal.read_text(), "run", "space.yaml")
    before = place.ledger("idle").trials()[-1]
    assert (before.is_searched, before.state) == (False, "RUNNING")
    place.told("resume", "idle")
    *_, probe = place.ledger("idle").trials()
    unbroken = searched.ledger("idle").trial(2)
    assert (probe.number, probe.state, probe.overrides) == (2, "COMPLETE", unbroken.overrides)
    metric = "val/balanced_accuracy"
    assert probe.best(metric) == unbroken.best(metric)
    assert place.ledger("idle").notes.test.trial == 2
