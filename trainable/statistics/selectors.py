"""What tells a good network on a target domain whose labels nobody has.

scikit-learn is loaded where it is asked: it takes two seconds, and a search without a target never does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trainable.statistics.arrays import Array, Double, Labels
from trainable.statistics.ranking import SELECTORS
from trainable.statistics.transferability import mmd

if TYPE_CHECKING:
    from sklearn.model_selection import StratifiedKFold
    from sklearn.pipeline import Pipeline

LEAST_IMAGES = 2  # of each sample, one to fit to and one to ask
MAX_IMAGES = 1000  # of each sample; distances between all of two samples are 4 million numbers then
MAX_WIDTH = 256  # of the features a domain classifier sees: its fit after every epoch is to take hundredths of a second
# Inverse L2 strengths for `iwv` and `dev`. With 1 alone, and training samples of 300 images of one distribution of 1280
# features, 300 weights were worth 4 equal ones, (Σw)²/Σw².
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MAX_ITERATIONS = 1000  # some tens are usual
SND_TEMPERATURE = 0.05  # as Saito et al. 2021 have it
MAX_RATIO = 1e6  # of densities; past it a single image says everything, and `dev` is any number
LEAST_PROBABILITY = 1e-12  # of a label; a loss is at most 27.6 nats
WORST = {name: float("-inf") if direction == "maximize" else float("inf") for name, direction in SELECTORS.items()}


@dataclass(frozen=True)
class Outputs:
    """What a network makes of N images: ``features`` N×D, those before its head, and ``probabilities`` N×K."""

    features: Array
    probabilities: Array


def selectors(
    target: Outputs,
    *,
    source: Outputs,
    source_labels: Labels,
    target_train: Array,
    source_train: Array,
    seed: int,
) -> dict[str, float]:
    """Every selector of ``SELECTORS`` by name.

    ``target`` and ``source`` are of held-out images, two at least of each; ``source_labels`` N are the latter's classes.
    ``target_train`` and ``source_train``, features of the images trained on, fit the ratio of densities that `iwv` and
    `dev` weigh with. Of a sample larger than ``MAX_IMAGES`` a random part of so many is taken, the same for one seed. A
    selector that is not a finite number has its worst value, infinite; so have all where any input is not finite, or has
    fewer than two images, of which nothing can be told.
    """
    inputs = (target.features, target.probabilities, source.features, source.probabilities, target_train, source_train)
    if not all(len(array) >= LEAST_IMAGES and np.isfinite(array).all() for array in inputs):
        return dict(WORST)
    on_target, predictions, on_source, confidences, to_target, to_source = (_few(array, seed=seed) for array in inputs)
    labels = source_labels[_rows(len(source_labels), seed=seed)]
    with np.errstate(all="ignore"):
        losses = cross_entropies(confidences, labels=labels)
        ratios = density_ratios(on_source, source=to_source, target=to_target, seed=seed)
        samples = Samples(
            predictions=predictions,
            losses=losses,
            ratios=ratios,
            on_source=on_source,
            on_target=on_target,
            seed=seed,
        )
        values = {name: value(samples) for name, value in FUNCTIONS.items()}
    return {name: value if np.isfinite(value) else WORST[name] for name, value in values.items()}


@dataclass(frozen=True, kw_only=True)
class Samples:
    """What selectors are made of, for M held-out images of the target and N of the source, K classes and D features.

    ``predictions`` M×K and features ``on_target`` M×D; ``losses`` N, density ``ratios`` N and features ``on_source`` N×D.
    """

    predictions: Double
    losses: Double
    ratios: Double
    on_source: Double
    on_target: Double
    seed: int

    def weighted(self, risk: Callable[..., float]) -> float:
        """A risk of the source's losses, weighted to the target; no number where some ratio says everything."""
        return risk(self.losses, weights=self.ratios) if bool(self.ratios.max() < MAX_RATIO) else np.nan


def snd(probabilities: Double) -> float:
    """Soft neighbourhood density of predictions N×K: the more neighbours each has, the better (Saito et al. 2021).

    The mean entropy, nats, of softmax(s/T) over the other N-1 predictions, s their cosine with it. It depends on N, and is
    at its most, log(N-1), where all predictions are alike: a network that tells nothing, or one class only, gets there.
    """
    rows = probabilities / np.linalg.norm(probabilities, axis=1, keepdims=True)
    similarities = rows @ rows.T / SND_TEMPERATURE
    np.fill_diagonal(similarities, -np.inf)
    nearness = np.exp(similarities)
    return float(_entropies(nearness / nearness.sum(axis=1, keepdims=True)).mean())


def entropy(probabilities: Double) -> float:
    """Mean entropy of predictions N×K, nats."""
    return float(_entropies(probabilities).mean())


def infomax(probabilities: Double) -> float:
    """Mutual information of image and prediction N×K, nats: predictions certain each and of all classes together.

    The entropy of the mean prediction less the mean entropy (Bridle et al. 1991; Shi and Sha 2012).
    """
    return float(_entropies(probabilities.mean(axis=0)[None])[0]) - entropy(probabilities)


def bnm(probabilities: Double) -> float:
    """Nuclear norm of predictions N×K over the largest there is, √(N·min(N, K)): certain and diverse (Cui et al. 2020)."""
    count, num_classes = probabilities.shape
    return float(np.linalg.norm(probabilities, ord="nuc") / np.sqrt(count * min(count, num_classes)))


def mcc(probabilities: Double) -> float:
    """Minimum class confusion of predictions N×K (Jin et al. 2020), at temperature 1.

    Of what all images together give to a class, certain ones counting up to twice, the part that the same images give to
    other classes, averaged over classes. A class that no image is given is wholly confused, as it is in the limit.
    """
    weights = 1 + np.exp(-_entropies(probabilities))
    together = probabilities.T @ (weights[:, None] * probabilities)
    return float(1 - np.mean(np.diag(together) / np.maximum(together.sum(axis=1), np.finfo(np.float64).tiny)))


def cross_entropies(probabilities: Double, *, labels: Labels) -> Double:
    """The loss, nats, of each prediction N×K; a label's probability counts as ``LEAST_PROBABILITY`` at least."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], LEAST_PROBABILITY)))


def density_ratios(features: Double, *, source: Double, target: Double, seed: int) -> Double:
    """How many times likelier than on the source each of features N×D is on the target, as far as a linear model can tell.

    n_s/n_t·p/(1-p), p of a logistic regression fitted to tell ``target`` M×D from ``source`` L×D (You et al. 2019). As theirs,
    its strength of regularisation is the one of ``STRENGTHS`` that tells best the half it was not fitted to. Nothing is
    clipped; a ratio beyond float64 is infinite.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV

    chosen = GridSearchCV(
        LogisticRegression(max_iter=MAX_ITERATIONS), {"C": STRENGTHS}, cv=_halves(seed), scoring="neg_log_loss"
    )
    classifier = _on_standardised(chosen, width=features.shape[1], seed=seed)
    classifier.fit(np.concatenate([source, target]), _is_target(source, target))
    return np.asarray(len(source) / len(target) * np.exp(classifier.decision_function(features)))


def iwv(losses: Double, *, weights: Double) -> float:
    """Importance-weighted validation: the source's losses N, averaged with weights N (Sugiyama et al. 2007).

    Σ w·l/Σ w, not their paper's Σ w·l/N: where the domains are far apart all weights on the source are near 0, and so
    were the risk of any network.
    """
    return float((weights * losses).sum() / weights.sum())


def dev(losses: Double, *, weights: Double) -> float:
    """Deep embedded validation: mean(w·l) + η·(mean(w)-1) with η = -Cov(w·l, w)/Var(w) (You et al. 2019).

    The weights' mean is 1 in expectation, so that the second term changes the risk's variance only, and η makes it the
    least: that of w·l times 1-ρ², ρ their correlation. Where all weights are the same, η is 0.
    """
    weighted = weights * losses
    covariance = np.cov(weighted, weights)
    eta = -covariance[0, 1] / covariance[1, 1] if covariance[1, 1] else 0.0
    return float(weighted.mean() + eta * (weights.mean() - 1))


def a_distance(source: Double, target: Double, *, seed: int) -> float:
    """Proxy A-distance 2·(1-2ε) of features N×D and M×D, 0 to 2 (Ben-David et al. 2007).

    ε is the error in telling the domains apart, averaged over both so that their sizes do not matter, of a logistic
    regression fitted to one half and asked about the other. Worse than chance counts as chance.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    is_target = _is_target(source, target)
    regression = LogisticRegression(max_iter=MAX_ITERATIONS, class_weight="balanced")
    classifier = _on_standardised(regression, width=source.shape[1], seed=seed)
    predicted = cross_val_predict(classifier, np.concatenate([source, target]), is_target, cv=_halves(seed))
    error = np.mean([np.mean(predicted[is_target == domain] != domain) for domain in (0, 1)])
    return float(np.clip(2 * (1 - 2 * error), 0, 2))


def _few(array: Array, *, seed: int) -> Double:
    return array[_rows(len(array), seed=seed)].astype(np.float64)


def _rows(count: int, *, seed: int) -> NDArray[np.int64]:
    """At most ``MAX_IMAGES`` of so many rows, in their order."""
    if count <= MAX_IMAGES:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, MAX_IMAGES, replace=False))


def _entropies(probabilities: Double) -> Double:
    """Of each row, nats; 0·log 0 is 0."""
    return np.asarray(-(probabilities * np.log(np.where(probabilities > 0, probabilities, 1))).sum(axis=1))


def _on_standardised(classifier: Any, *, width: int, seed: int) -> "Pipeline":
    """The classifier on features of mean 0 and deviation 1.

    More than ``MAX_WIDTH`` of them are projected onto so many random directions, which keeps the inner products that a
    linear classifier sees to within some 1/√MAX_WIDTH of the rows' lengths.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.random_projection import GaussianRandomProjection

    projection = GaussianRandomProjection(MAX_WIDTH, random_state=seed % 2**32)  # all that scikit-learn takes
    return make_pipeline(StandardScaler(), *([projection] if width > MAX_WIDTH else []), classifier)


def _halves(seed: int) -> "StratifiedKFold":
    from sklearn.model_selection import StratifiedKFold

    return StratifiedKFold(2, shuffle=True, random_state=seed % 2**32)


def _is_target(source: Double, target: Double) -> Labels:
    return np.repeat([0, 1], [len(source), len(target)])


FUNCTIONS: dict[str, Callable[[Samples], float]] = {
    "snd": lambda samples: snd(samples.predictions),
    "entropy": lambda samples: entropy(samples.predictions),
    "infomax": lambda samples: infomax(samples.predictions),
    "bnm": lambda samples: bnm(samples.predictions),
    "mcc": lambda samples: mcc(samples.predictions),
    "iwv": lambda samples: samples.weighted(iwv),
    "dev": lambda samples: samples.weighted(dev),
    "mmd": lambda samples: mmd(samples.on_source, samples.on_target),
    "a_distance": lambda samples: a_distance(samples.on_source, samples.on_target, seed=samples.seed),
}
