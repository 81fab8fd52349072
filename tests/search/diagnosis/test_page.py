import numpy as np
import pytest

from search.diagnosis.page import embedding, embedding_figure
from trainable.diagnosis.features import Features


def clouds(count, *, apart):
    """Wide as a backbone's features, for which scikit-learn starts from a randomised PCA."""
    labels = np.arange(count) % 2
    noise = np.random.default_rng(0).standard_normal((count, 600))
    return (noise + apart * labels[:, None]).astype(np.float32), labels


@pytest.mark.parametrize("count", [5, 40])
def test_neighbours_stay_neighbours_in_the_plot_which_is_the_same_every_time(count):
    values, labels = clouds(count, apart=8.0)
    values[:, 3] = 2.5
    points = embedding(values)
    assert points.shape == (count, 2)
    assert np.isfinite(points).all()
    assert np.array_equal(points, embedding(values))
    if count == 40:
        distances = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(count)
        assert (labels[distances.argmin(axis=1)] == labels).all()


def test_a_plot_of_too_few_images_is_left_out():
    values, labels = clouds(4, apart=1.0)
    split = {"pooled": values}
    assert (
        embedding_figure(Features({"train": split, "val": split}, {"train": labels, "val": labels}, ("a", "b"))) is None
    )
