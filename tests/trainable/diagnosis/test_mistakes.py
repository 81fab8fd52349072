"""What is told of a network's mistakes, from answers written by hand on real images."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from trainable.data.input_spec import InputSpec
from trainable.data.pack import open_pack
from trainable.diagnosis.mistakes import MOST_IMAGES, mistakes_of
from trainable.statistics.comparison import wilson
from trainable.training.evaluate import Predicted


@pytest.fixture
def pack(make_config):
    spec = InputSpec(size=32, mean=(0.5,) * 3, std=(0.2,) * 3, interpolation="bilinear", crop_share=1.0)
    return open_pack(make_config().data, spec)


def answers(labels, chosen):
    probabilities = np.where(np.arange(2) == np.asarray(chosen)[:, None], 0.8, 0.2)
    return Predicted(np.zeros((len(labels), 1), np.float32), probabilities, np.asarray(labels))


def test_classes_images_and_confusion_are_those_of_the_answers(pack):
    indices = pack.indices("train")
    labels = pack.labels[indices]
    chosen = labels.copy()
    chosen[:2] = 1 - labels[:2]
    found = mistakes_of(answers(labels, chosen), pack=pack, indices=indices, confidence=0.95)
    assert found["num_images"] == len(indices)
    counts, recalls = np.bincount(labels), [(chosen[labels == label] == label).mean() for label in (0, 1)]
    by_class = {row["class"]: row for row in found["per_class"]}
    for label, name in enumerate(pack.classes):
        row, count = by_class[name], int(counts[label])
        assert (row["recall"], row["count"]) == (pytest.approx(recalls[label]), count)
        bounds = wilson(round(recalls[label] * count), of=count, confidence=0.95)
        assert (row["recall_low"], row["recall_high"]) == (bounds.low, bounds.high)
    assert [row["recall"] for row in found["per_class"]] == sorted(recalls)
    assert found["confusion"]["classes"] == list(pack.classes)
    assert np.trace(found["confusion"]["counts"]) == len(indices) - 2
    wrong = found["confident"]
    assert [image["name"] for image in wrong] == [pack.names[index] for index in indices[:2]]
    assert [(image["label"], image["predicted"]) for image in wrong] == [
        (pack.classes[label], pack.classes[1 - label]) for label in labels[:2]
    ]
    assert len(found["unsure"]) == MOST_IMAGES
    assert [(each["accuracy"], each["count"]) for each in found["reliability"]] == [
        (pytest.approx(1 - 2 / len(indices)), len(indices))
    ]
    (pair,) = found["alike"]  # two cells of one module, it seems
    held_out, trained = (image["name"] for image in pair["images"])
    assert held_out in {pack.names[index] for index in pack.indices(pair["split"])}
    assert trained in {pack.names[index] for index in indices}
    assert found["num_alike"] == 1
    picture = Image.open(io.BytesIO(base64.b64decode(wrong[0]["picture"].partition(",")[2])))
    assert max(picture.size) <= 96


def test_answers_that_are_no_numbers_have_classes_but_no_images(pack):
    indices = pack.indices("val")
    predicted = answers(pack.labels[indices], pack.labels[indices])
    predicted.probabilities[:] = np.nan
    found = mistakes_of(predicted, pack=pack, indices=indices, confidence=0.95)
    assert (found["confident"], found["unsure"], found["suspected"], found["reliability"]) == ([], [], [], [])
    assert len(found["per_class"]) == 2
