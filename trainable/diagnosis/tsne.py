"""Lays the images of both domains out in the plane, before and after a training."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trainable.config.trial import TrialConfig
from trainable.training.checkpoint import load_scored, read_state
from trainable.training.measure import Measurer
from trainable.training.setup import Setup, set_up

MOST_IMAGES = 400  # of each domain: enough to see, a few seconds to lay out
WIDTH = 50  # of the features that t-SNE sees, as van der Maaten & Hinton (2008) have it


def domain_picture(config: TrialConfig, *, checkpoint: Path) -> dict[str, list[object]] | None:
    """Points of held-out images ``before`` and ``after`` the training that ``checkpoint`` holds, their ``domains``, ``labels``.

    Validation images of the source have the name of their class, those of the target none. None where the features are all
    the same or no numbers, as those of a collapsed network. Raises UserError for data or weights that cannot be used.
    """
    setup, epoch = set_up(config), read_state(checkpoint)["epoch"]
    domains, labels, before = _features(setup, epoch=epoch)
    load_scored(checkpoint, network=setup.network, moved=setup.moved)
    after = _features(setup, epoch=epoch)[2]
    if not all(np.isfinite(features).all() and np.ptp(features, axis=0).any() for features in (before, after)):
        return None
    points = {"before": _laid_out(before, seed=config.seed), "after": _laid_out(after, seed=config.seed)}
    return {"domains": domains, "labels": labels, **{name: rows.round(3).tolist() for name, rows in points.items()}}


def _features(setup: Setup, *, epoch: int) -> tuple[list[object], list[object], NDArray[np.float32]]:
    measurer = Measurer(config=setup.config, inputs=setup.inputs)
    source = measurer.predict(setup.network, "val", epoch=epoch, limit=MOST_IMAGES)
    target = measurer.predict(setup.network, "target_val", epoch=epoch, limit=MOST_IMAGES)
    names: list[object] = [setup.pack.classes[label] for label in source.labels]
    domains: list[object] = [*["source"] * len(names), *["target"] * len(target.features)]
    return domains, [*names, *[""] * len(target.features)], np.concatenate([source.features, target.features])


def _laid_out(features: NDArray[np.float32], *, seed: int) -> NDArray[np.float32]:
    """t-SNE (van der Maaten & Hinton 2008) of features N×F, N×2; its perplexity at most a third of the images."""
    from sklearn.decomposition import PCA  # takes two seconds to load, and is needed once, at a search's end
    from sklearn.manifold import TSNE

    count, width = features.shape
    seed %= 2**32  # what numpy takes
    narrow = PCA(min(WIDTH, count, width), random_state=seed).fit_transform(features)
    perplexity = min(30.0, (count - 1) / 3)
    points = TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(narrow)
    return np.asarray(points, dtype=np.float32)
