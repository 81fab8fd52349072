"""Diagnoses of clouds and of real cells; advice on diagnoses made by hand, one for each quarter of the matrix."""

import numpy as np
import pytest
import torch

from trainable import UserError
from trainable.diagnosis.advice import advice
from trainable.diagnosis.diagnose import (
    Diagnosis,
    Discrepancy,
    Lead,
    StageScores,
    diagnose,
    look,
    paired_difference,
)
from trainable.diagnosis.features import Features, frozen_features
from trainable.diagnosis.probe import stage_probe
from trainable.statistics.scores import Evaluation
from trainable.statistics.transferability import logme, mmd_permutation_test

torch.set_num_threads(1)

UNSURE = Lead("stage2", 0.02, 0.03)
EARLIER_WINS = Lead("stage2", 0.10, 0.03)
LAST_WINS = Lead("stage3", -0.10, 0.03)


def scores(value):
    return StageScores(
        probe=Evaluation({"balanced_accuracy": value}, {}, [[1, 0], [0, 1]]),
        logme=value - 1,
        h_score=value,
        class_distance_ratio=value,
    )


def made(train, *, lead=UNSURE, discrepancy=None):
    stages = {"stage1": scores(0.6), "stage2": scores(0.7), "stage3": scores(0.7), "pooled": scores(0.72)}
    return Diagnosis(
        counts={"train": train, "val": dict.fromkeys(train, 10)}, stages=stages, lead=lead, discrepancy=discrepancy
    )


def even(num_images, num_classes):
    """So many training images in classes of one size, as near as can be."""
    return {f"class {index}": (num_images + index) // num_classes for index in range(num_classes)}


def clouds(*, count, apart, seed):
    """Features N×5 around one centre a class."""
    labels = np.arange(count) % 2
    noise = np.random.default_rng(seed).standard_normal((count, 5))
    return (noise + apart * labels[:, None]).astype(np.float32), labels


def seen(*, apart_early, apart_last):
    """Features of two stages and the pooled ones, the same labels."""
    parts = {}
    for split, count, seed in (("train", 80, 0), ("val", 60, 10)):
        stage1, labels = clouds(count=count, apart=apart_early, seed=seed)
        pooled, _ = clouds(count=count, apart=apart_last, seed=seed + 1)
        parts[split] = ({"stage1": stage1, "stage4": pooled, "pooled": pooled}, labels)
    by_split = {split: found for split, (found, _) in parts.items()}
    return Features(by_split, {split: labels for split, (_, labels) in parts.items()}, ("dog", "cat"))


COUNTS = {"train": {"dog": 40, "cat": 40}, "val": {"dog": 30, "cat": 30}, "test": {"dog": 5, "cat": 5}}


# The twelve sets that Kornblith et al. 2019 transfer to (their table 1), by training images and classes.
@pytest.mark.parametrize(
    ("size", "images", "classes"),
    [
        ("large", 75_750, 101),  # Food-101
        ("large", 50_000, 10),  # CIFAR-10
        ("small", 8_144, 196),  # Stanford Cars
        ("small", 3_760, 47),  # Describable Textures
        ("small", 2_040, 102),  # Flowers
        ("small", 1_838, 2),  # the solar cells here
    ],
)
def test_size_is_by_images_and_by_images_of_a_class(size, images, classes):
    found = advice(made(even(images, classes)))
    assert found.size == size
    assert f"{images:,} training images, {images / classes:,.0f} a class" in found.reasons[0]


def test_few_similar_images_get_a_probe_and_fine_tuning_from_its_head():
    found = advice(made(even(600, 6), lead=LAST_WINS))
    assert (found.size, found.similarity, found.strategies) == ("small", "similar", ("linear_probe", "lp_ft"))
    assert found.ranges["finetune.strategy"] == {"choice": ["linear_probe", "lp_ft"]}
    assert found.ranges["freeze.depth"]["when"] == {"finetune.strategy": "lp_ft"}
    assert found.ranges["augment.strength"]["choice"][-1] == "medium"
    assert found.baselines == ("linear_probe",)
    assert any("stage3, trails the last features by 0.100" in reason for reason in found.reasons)


def test_many_similar_images_get_full_fine_tuning_with_layer_decay():
    found = advice(made(even(50_000, 10), lead=LAST_WINS))
    assert (found.size, found.similarity, found.strategies) == ("large", "similar", ("full",))
    assert found.fixed == {"finetune.strategy": "full"}
    assert found.ranges["optimizer.layer_decay"] == {"uniform": [0.6, 1.0]}
    assert "freeze.depth" not in found.ranges


def test_few_different_images_get_the_winning_stage_frozen_or_early_stages_trained():
    found = advice(made(even(600, 6), lead=EARLIER_WINS))
    assert (found.size, found.similarity, found.strategies) == ("small", "different", ("partial", "surgical"))
    assert found.ranges["freeze.depth"]["choice"] == ["stage1", "stage2"]
    assert found.ranges["finetune.trainable"]["choice"] == [["stem", "stage1"], ["stage1", "stage2"]]
    assert found.baselines == ("stage_probes",)
    assert any("stage2, leads the last features by 0.100" in reason for reason in found.reasons)
    first = advice(made(even(600, 6), lead=Lead("stage1", 0.1, 0.03)))
    assert first.ranges["freeze.depth"]["choice"] == ["stem", "stage1"]


def test_many_different_images_get_full_fine_tuning_beside_training_from_scratch():
    found = advice(made(even(50_000, 10), lead=EARLIER_WINS))
    assert (found.size, found.similarity, found.strategies) == ("large", "different", ("full", "scratch"))
    assert found.baselines == ("stage_probes", "scratch")
    assert found.ranges["optimizer.backbone_multiplier"] == {"log": [0.1, 1.0]}


@pytest.mark.parametrize(("value", "similarity"), [(0.059, "similar"), (0.061, "different")])
def test_an_earlier_stage_must_lead_by_more_than_two_standard_errors(value, similarity):
    assert advice(made(even(600, 6), lead=Lead("stage1", value, 0.03))).similarity == similarity


@pytest.mark.parametrize(
    ("lead", "p", "similarity"),
    [
        (UNSURE, 0.005, "different"),
        (UNSURE, 0.4, "similar"),
        (LAST_WINS, 0.005, "similar"),
        (EARLIER_WINS, 0.4, "different"),
        (None, 0.005, "different"),
        (None, 0.4, "similar"),
    ],
)
def test_the_reference_decides_where_the_probes_cannot(lead, p, similarity):
    found = advice(made(even(600, 6), lead=lead, discrepancy=Discrepancy(0.31, p, 200)))
    assert found.similarity == similarity
    assert any(f"MMD² 0.310 to 200 images, p {p:.3f}" in reason for reason in found.reasons)


def test_skew_adds_class_weights_and_strong_skew_samplers():
    assert "loss.class_weights" not in advice(made({"dog": 19, "cat": 10})).ranges
    mild = advice(made({"functional": 1263, "defective": 575}))
    assert mild.ranges["loss.class_weights"] == {"choice": ["none", "inverse"]}
    assert "data.class_sampling" not in mild.ranges
    assert "1,263 training images of 'functional' to 575 of 'defective', 2.2 to 1" in mild.reasons[-1]
    strong = advice(made({"dog": 500, "cat": 20}))
    assert strong.ranges["data.class_sampling"] == {"choice": ["shuffle", "sqrt", "balanced"]}
    assert strong.ranges["loss.class_weights"]["when"] == {"data.class_sampling": "shuffle"}


def test_the_paired_difference_is_worked_by_hand():
    """Class 0: +1 +1 0 0, class 1: 0 0: means ½ and 0. Squares 4·¼ + 1 over 6 images, times ¼ + ½, over 2 classes."""
    one = np.array([True, True, True, False, True, False])
    other = np.array([False, False, True, False, True, False])
    value, error = paired_difference(one, other, labels=np.array([0, 0, 0, 0, 1, 1]))
    assert value == 0.25
    assert error == pytest.approx(np.sqrt(2 / 6 * 0.75) / 2)


def test_the_standard_error_is_the_spread_over_data_sets():
    """400 validation sets of two classes whose disagreements are drawn: within a tenth."""
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 20])
    drawn = [generator.choice(3, size=80, p=[0.2, 0.1, 0.7]) for _ in range(400)]
    found = [paired_difference(draw == 0, draw == 1, labels=labels) for draw in drawn]
    values, errors = np.array(found).T
    assert values.mean() == pytest.approx(0.1, abs=0.02)
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_a_diagnosis_says_which_stage_serves_best_and_by_how_much():
    features = seen(apart_early=3.0, apart_last=0.0)
    found = diagnose(features, counts=COUNTS)
    assert (found.num_images, found.num_training, found.images_per_class, found.imbalance) == (150, 80, 40, 1)
    assert list(found.stages) == ["stage1", "stage4", "pooled"]
    assert found.best_stage == "stage1"
    assert found.lead.stage == "stage1"
    assert found.lead.value == pytest.approx(found.stages["stage1"].value - found.stages["pooled"].value)
    assert found.stages["stage4"] == found.stages["pooled"]
    assert found.stages["stage1"].logme == logme(features.of("stage1", split="train"), features.labels["train"])
    assert advice(found).similarity == "different"
    assert found.discrepancy is None


def test_features_that_serve_alike_are_no_sign_of_another_task():
    found = diagnose(seen(apart_early=1.0, apart_last=3.0), counts=COUNTS)
    assert found.best_stage == "pooled"
    assert found.lead.value < 0
    assert advice(found).similarity == "similar"


def test_the_distance_to_a_reference_is_that_of_the_pooled_features():
    features = seen(apart_early=3.0, apart_last=3.0)
    others = clouds(count=30, apart=3.0, seed=7)[0] + 2
    found = diagnose(features, counts=COUNTS, reference=others).discrepancy
    expected = mmd_permutation_test(features.of("pooled", split="train"), others, permutations=199, seed=0)
    assert (found.value, found.p) == expected
    assert (found.p, found.num_images) == (1 / 200, 30)


def test_the_look_at_real_cells_has_the_scores_of_the_stage_probes(make_config, cell_folder):
    config = make_config()
    found, features = look(config, reference=str(cell_folder))
    anew = frozen_features(config)
    expected = {stage: stage_probe(anew, stage=stage) for stage in anew.stages}
    assert {stage: one.probe for stage, one in found.stages.items()} == expected
    assert found.num_images == 40
    assert features.classes == ("defective", "functional")
    assert found.discrepancy.num_images == 40
    assert found.discrepancy.p > 0.5


def test_a_reference_that_cannot_be_used_is_said_in_a_line(make_config, tmp_path, draw_image):
    with pytest.raises(UserError, match=r"^reference: '.*missing' is no folder"):
        look(make_config(), reference=str(tmp_path / "missing"))
    for number in range(3):
        draw_image(tmp_path / "few" / f"{number}.png", number=number)
    with pytest.raises(UserError, match=r"^reference: '.*few' has 3 images, at least 10 are needed"):
        look(make_config(), reference=str(tmp_path / "few"))
