"""What a network gets wrong on its validation images: by class, in pairs of classes, and as images to look at."""

import base64
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainable.data.pack import Pack
from trainable.data.thumbnails import thumbnail
from trainable.diagnosis.alike import alike_across_splits
from trainable.masking import masked_address
from trainable.statistics.comparison import wilson
from trainable.statistics.mistakes import (
    clustered,
    least_sure,
    most_confident_mistakes,
    most_confused,
    suspected_labels,
)
from trainable.statistics.scores import reliability, score
from trainable.training.evaluate import Predicted

MOST_CLASSES = 30  # of a confusion that is shown: those that are confused most
MOST_IMAGES = 12  # of each kind
MOST_PAIRS = 6


def mistakes_of(predicted: Predicted, *, pack: Pack, indices: NDArray[np.int64], confidence: float) -> dict[str, Any]:
    """What a network's answers to the labelled images ``indices`` of a pack say, in their order; plain data.

    ``per_class`` has of each class that occurs recall, with Wilson's interval at ``confidence``, precision and count, the worst
    recall first; ``confusion`` the counts of ``classes`` (rows are true), in an order that puts together what is
    confused, and ``num_classes`` of which these are those with most mistakes. ``confident``, ``unsure`` and ``suspected`` are
    images: name, true and predicted class with their probabilities, and a small picture as a `data:` address. Where the
    answers are no numbers there are no such images. ``reliability`` has the share of right answers by how sure they are;
    ``alike`` pairs of images, one held out and one trained on, that look all but alike.
    """
    probabilities, labels = predicted.probabilities, predicted.labels
    evaluation = score(probabilities, labels=labels, classes=pack.classes)
    confusion = np.asarray(evaluation.confusion)
    document: dict[str, Any] = {
        "num_images": len(labels),
        "per_class": _per_class(evaluation.per_class, confidence=confidence),
        "confusion": _confusion(confusion, classes=pack.classes),
    }
    document |= _alike(pack)
    if not np.isfinite(probabilities).all():
        return document | {"confident": [], "unsure": [], "suspected": [], "reliability": []}
    document["reliability"] = [asdict(each) for each in reliability(probabilities, labels=labels)]
    chosen = {
        "confident": most_confident_mistakes(probabilities, labels=labels),
        "unsure": least_sure(probabilities),
        "suspected": suspected_labels(probabilities, labels=labels),
    }
    counts = {f"num_{kind}": len(chosen[kind]) for kind in ("confident", "suspected")}
    shown = {
        kind: [
            _image(predicted, place=int(place), pack=pack, index=int(indices[place])) for place in places[:MOST_IMAGES]
        ]
        for kind, places in chosen.items()
    }
    return document | counts | shown


def _per_class(scores: dict[str, dict[str, float]], *, confidence: float) -> list[dict[str, Any]]:
    rows = []
    for name, found in scores.items():
        count = int(found["count"])
        if count:
            bounds = wilson(round(found["recall"] * count), of=count, confidence=confidence)
            interval = {"recall_low": bounds.low, "recall_high": bounds.high}
            rows.append(
                {"class": name, "recall": found["recall"], **interval, "precision": found["precision"], "count": count}
            )
    return sorted(rows, key=lambda row: (row["recall"], row["class"]))


def _confusion(confusion: NDArray[np.int64], *, classes: Sequence[str]) -> dict[str, Any]:
    kept = most_confused(confusion, limit=MOST_CLASSES)
    order = kept[clustered(confusion[np.ix_(kept, kept)])]
    return {
        "classes": [classes[index] for index in order],
        "counts": confusion[np.ix_(order, order)].tolist(),
        "num_classes": len(classes),
    }


def _alike(pack: Pack) -> dict[str, Any]:
    pairs = alike_across_splits(pack)
    splits = {int(index): split for split in ("val", "test") for index in pack.indices(split)}
    shown = [
        {
            "similarity": pair.similarity,
            "split": splits[pair.held_out],
            "images": [_named(pack, index=index) for index in (pair.held_out, pair.trained)],
        }
        for pair in pairs[:MOST_PAIRS]
    ]
    return {"alike": shown, "num_alike": len(pairs)}


def _image(predicted: Predicted, *, place: int, pack: Pack, index: int) -> dict[str, Any]:
    probabilities = predicted.probabilities[place]
    chosen = int(probabilities.argmax())
    return {
        **_named(pack, index=index),
        "predicted": pack.classes[chosen],
        "probability": float(probabilities[chosen]),
        "of_label": float(probabilities[int(predicted.labels[place])]),
    }


def _named(pack: Pack, *, index: int) -> dict[str, Any]:
    picture = base64.b64encode(thumbnail(pack.image(index))).decode()
    return {
        "name": masked_address(str(pack.names[index])),
        "label": pack.classes[int(pack.labels[index])],
        "picture": f"data:image/jpeg;base64,{picture}",
    }
