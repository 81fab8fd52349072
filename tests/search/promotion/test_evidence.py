"""A candidate beside a champion: which images may be asked, and what is said of them."""

from dataclasses import replace

import numpy as np
import pytest

from search.promotion.evidence import answer, gather
from search.promotion.gate import gate
from search.space.promotion_sections import GateSection
from search.tracking.model_files import classify
from trainable.serving.encoded import encoded_images
from trainable.statistics.comparison import Interval

pytestmark = pytest.mark.slow

RULE = GateSection(metric="accuracy")


def gathered(candidate, champion):
    measured = answer(candidate, images=encoded_images(candidate.config, split="test"))
    return measured, gather(measured, opponent=champion, rule=RULE)


def ids(served, *splits):
    return {sample_id for sample_id, split in served.splits.items() if split in splits}


def test_on_the_same_data_both_are_asked_for_every_test_image(served):
    candidate = served("old")
    measured, evidence = gathered(candidate, served("old", lr=1e-2))
    assert evidence.paired.num_images == len(measured.images) == len(ids(candidate, "test"))
    assert (evidence.old_test, evidence.why_no_old_test) == (None, "")


def test_beside_itself_a_model_gains_nothing(served):
    _, evidence = gathered(served("old"), served("old"))
    assert evidence.paired.gain == Interval(0.0, 0.0, 0.0)
    assert evidence.champion_test == evidence.test


def test_the_packaged_model_is_what_is_measured(served):
    candidate = served("old")
    measured, evidence = gathered(candidate, None)
    assert evidence.test.metrics["accuracy"].value == np.mean(measured.probabilities.argmax(1) == measured.labels)
    assert evidence.latency_ms > 0
    assert evidence.size_mb == pytest.approx(19.8, abs=0.5)


def test_what_being_unsure_is_worth_is_measured_where_a_model_says_so(served):
    candidate = served("old")
    measured, evidence = gathered(candidate, None)
    assert evidence.unsure is None
    least = float(np.median(measured.probabilities))
    description = {**candidate.description, "unsure": {"coverage": 0.9, "least_probability": least, "num_images": 9}}
    saying = replace(candidate, description=description)
    _, evidence = gathered(saying, None)
    held = measured.probabilities[np.arange(len(measured.labels)), measured.labels] >= least
    assert evidence.unsure.coverage.value == held.mean()


def test_images_that_the_champion_was_trained_on_are_left_out(served):
    candidate, champion = served("old"), served("old", split_seed=1)
    _, evidence = gathered(candidate, champion)
    fair = ids(candidate, "test") - ids(champion, "train", "val")
    assert 2 <= len(fair) < len(ids(candidate, "test"))
    assert evidence.paired.num_images == len(fair)


def test_where_no_image_is_new_to_both_the_gate_is_told_why(served):
    _, evidence = gathered(served("old", test_share=0.15), served("old", split_seed=1, test_share=0.15))
    assert evidence.paired is None
    assert evidence.why_unpaired == "it was trained on the candidate's test images"
    assert not gate(evidence, rule=RULE).promote


def test_where_data_grew_the_champions_own_test_images_are_asked_too(served):
    candidate, champion = served("grown"), served("old")
    _, evidence = gathered(candidate, champion)
    fair = ids(champion, "test") - ids(candidate, "train", "val")
    if len(fair) < 2:
        pytest.fail("the splits of this test leave no old image to ask")
    assert evidence.old_test.num_images == len(fair)


def test_a_class_that_only_the_champion_knows_is_answered_by_it_all_the_same(served):
    candidate, champion = served("old"), served("wider")
    measured, evidence = gathered(candidate, champion)
    images = [image for image in measured.images if not champion.was_trained_on(image.sample_id)]
    answers = classify(champion.model, [image.read_bytes() for image in images], top_k=1)
    right = [answer["label"] == image.label for answer, image in zip(answers, images, strict=True)]
    assert evidence.champion_test.metrics["accuracy"].value == np.mean(right)


def test_a_class_that_the_champion_does_not_know_counts_against_it(served):
    candidate, champion = served("wider"), served("old")
    measured, evidence = gathered(candidate, champion)
    assert "unknown" in evidence.test.per_class
    assert evidence.champion_test.per_class["unknown"]["recall"] == 0.0
    assert evidence.paired.num_images == len(
        [image for image in measured.images if image.sample_id not in ids(champion, "train", "val")]
    )
