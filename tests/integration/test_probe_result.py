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
from trainable.training.finishing import read_finish
from trainable.training.trained import Trained

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


def test_the_probe_is_the_first_trial_the_result_and_is_said_to_be(searched):
    linear, *others = searched.ledger("idle").trials()
    assert (linear.number, linear.state, linear.reason, linear.last_epoch) == (0, "COMPLETE", "solved", 1)
    assert [trial.is_searched for trial in others][:2] == [True, True]
    data = searched.read("report", "idle")
    best = searched.ledger("idle").trial(data["best_trial"])
    assert not best.is_searched
    stage = best.overrides["model.until"]
    assert (stage is None) == (best.number == 0)
    name = "linear_probe" if stage is None else f"probe_{stage}"
    assert data["best_value"] == pytest.approx(max(data["baseline_values"].values()), abs=0.03)  # float16 features
    assert data["baseline_values"]["linear_probe"] == linear.best("val/balanced_accuracy")
    assert data["baseline_values"][name] == max(data["baseline_values"].values())
    assert data["best_config"]["finetune.solver"] == "lbfgs"
    assert data["best_config"].get("model.until") == stage
    assert data["trials"] == {"COMPLETE": 2}
    assert f"beats every trial: the best is the probe, trial {best.number}; take it, or search longer" in data["probe"]
    verdict = data["verdict"]
    trial = verdict["against"].removeprefix("trial ")
    assert verdict["kind"] == "probe"
    assert searched.ledger("idle").trial(int(trial)).is_searched
    noted = searched.ledger("idle").notes.comparison
    assert (verdict["gain"], verdict["low"]) == (
        noted.others[f"trial {trial}"].gain,
        noted.others[f"trial {trial}"].low,
    )
    assert "no trial is better than the " in verdict["sentence"]
    said = verdict["sentence"]
    assert searched.told("report", "idle").replace("\n", "").startswith(f"verdict: {said}")
    assert "no trial is better than" in searched.told("status", "idle")
    assert said in (searched.folder / "searches/idle/report.html").read_text()
    store = MlflowClient(f"sqlite:///{searched.folder}/mlflow.db")
    runs = store.search_runs([one.experiment_id for one in store.search_experiments()])
    assert any(said in run.data.tags.get("mlflow.note.content", "") for run in runs)


def test_its_test_score_is_the_one_that_is_measured(searched):
    test = searched.ledger("idle").notes.test
    assert (test.trial, test.epoch, test.soup, test.reads) == (best_of(searched), 1, None, 1)


def test_promoting_registers_a_model_that_predicts_as_the_probe(searched):
    promoted = searched.read("promote", "idle")
    assert promoted["outcome"] == "promoted"
    assert promoted["candidate"]["recipe"] == f"trial {best_of(searched)}"
    folder = searched.folder / "searches/idle"
    spec, probe = stored_spec(folder), searched.ledger("idle").trial(best_of(searched))
    config = TrialConfig.model_validate(spec.config_of(probe))
    checkpoint = best_checkpoint(folder, probe, metric=spec.search.metric)
    served = load_package(searched.folder / promoted["candidate"]["package"], device="cpu")
    finish = read_finish(served.description["finish"])
    expected = Trained(config=config, checkpoint=checkpoint, finish=finish).predict("test").probabilities
    images = [image.read_bytes() for image in encoded_images(config, split="test")]
    np.testing.assert_allclose(served.probabilities(images), expected, atol=1e-3)  # the head's own precision


@pytest.mark.long
def test_a_larger_search_tries_what_it_would_have_and_does_not_train_a_probe_again(searched, make_place):
    probes = [trial.overrides for trial in searched.ledger("idle").trials() if not trial.is_searched]
    searched.told("run", "space.yaml", "--set", "search.trials=3")
    trials = searched.ledger("idle").trials()
    assert [trial.overrides for trial in trials if not trial.is_searched] == probes
    other = prepared(make_place(), searched, baselines=[])
    other.told("run", "space.yaml", "--set", "search.trials=3")
    straight = other.ledger("idle").trials()
    assert [trial.params for trial in straight] == [trial.params for trial in trials if trial.is_searched]


@pytest.mark.long
def test_killed_as_the_best_probe_is_trained_the_search_ends_with_it_all_the_same(searched, make_place):
    place = prepared(make_place(), searched)
    journal = place.folder / "searches/idle/ledger.journal"
    at_least = 1 if best_of(searched) == 0 else 2  # the linear probe is the first trial, a stage's the last
    place.kill_when(
        lambda: journal.is_file() and journal.read_text().count('"origin":"probe"') >= at_least, "run", "space.yaml"
    )
    assert not place.ledger("idle").notes.finished
    place.told("resume", "idle")
    metric = "val/balanced_accuracy"
    for of_killed, unbroken in zip(place.ledger("idle").trials(), searched.ledger("idle").trials(), strict=False):
        assert (of_killed.origin, of_killed.state, of_killed.overrides) == (
            unbroken.origin,
            "COMPLETE",
            unbroken.overrides,
        )
        assert of_killed.best(metric) == unbroken.best(metric)
    assert place.ledger("idle").notes.test.trial == best_of(searched)


def best_of(place):
    return place.read("report", "idle")["best_trial"]


def prepared(place, searched, **changed):
    for name in ("made", "own.safetensors"):
        (place.folder / name).symlink_to(searched.folder / name)
    (place.folder / "space.yaml").write_text(yaml.safe_dump(SPACE | changed))
    return place
