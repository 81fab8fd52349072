"""Classifiers on frozen features: what a fine-tuned network has to beat."""

from trainable.config.trial import TrialConfig
from trainable.diagnosis.features import POOLED, Features, frozen_features
from trainable.statistics.probe import fit_probe
from trainable.statistics.scores import Evaluation, score


def linear_probe(config: TrialConfig) -> Evaluation:
    """Validation scores of an untuned logistic regression on standardised pooled features.

    The features are those of the pretrained backbone for the evaluation view of each training image; classes weigh
    the same.
    """
    return stage_probe(frozen_features(config), stage=POOLED)


def stage_probe(features: Features, *, stage: str, kind: str = "logreg", c: float = 1.0) -> Evaluation:
    """Validation scores of a probe of one stage; raises UserError for a stage that the backbone does not have."""
    probe = fit_probe(features.of(stage, split="train"), features.labels["train"], kind=kind, c=c)
    probabilities = probe.probabilities(features.of(stage, split="val"), num_classes=len(features.classes))
    return score(probabilities, labels=features.labels["val"], classes=features.classes)
