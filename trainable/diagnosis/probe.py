"""Classifiers on frozen features: what a fine-tuned network has to beat."""

from trainable.diagnosis.features import Features
from trainable.statistics.probe import fit_probe
from trainable.statistics.scores import Evaluation, score


def stage_probe(features: Features, *, stage: str, kind: str = "logreg", c: float = 1.0) -> Evaluation:
    """Validation scores of a probe of one stage; raises UserError for a stage that the backbone does not have."""
    probe = fit_probe(features.of(stage, split="train"), features.labels["train"], kind=kind, c=c)
    probabilities = probe.probabilities(features.of(stage, split="val"), num_classes=len(features.classes))
    return score(probabilities, labels=features.labels["val"], classes=features.classes)
