"""Which images held out look all but like training images: real cells, copies of them, and grey ones."""

import io

import numpy as np
import pytest
from PIL import Image

from trainable.diagnosis import alike
from trainable.diagnosis.alike import alike_across_splits


class Images:
    """Pixels by split, as a pack has them."""

    def __init__(self, **splits):
        self._pixels = [pixels for each in splits.values() for pixels in each]
        ends = np.cumsum([len(each) for each in splits.values()])
        self._rows = {
            name: np.arange(end - len(each), end) for (name, each), end in zip(splits.items(), ends, strict=True)
        }

    def indices(self, split):
        return self._rows.get(split, np.arange(0))

    def image(self, index):
        return self._pixels[index]


@pytest.fixture(scope="module")
def pixels():
    """Thirty pictures that share nothing: smoothed noise in colours."""
    chance = np.random.default_rng(0)
    coarse = chance.integers(0, 255, (30, 6, 6, 3)).astype(np.uint8)
    return [np.asarray(Image.fromarray(each).resize((64, 64), Image.Resampling.BICUBIC)) for each in coarse]


def encoded(image, *, side):
    """The same picture smaller, brighter and as a poor JPEG."""
    file = io.BytesIO()
    Image.fromarray(image).resize((side, side)).point(lambda level: min(255, level + 20)).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file).resize(image.shape[:2]))


def test_a_picture_that_was_made_smaller_and_saved_again_is_found_with_its_twin(pixels):
    pack = Images(train=pixels[:20], val=[encoded(pixels[3], side=40), *pixels[20:25]], test=[pixels[7], *pixels[25:]])
    found = alike_across_splits(pack)
    assert [(pair.held_out, pair.trained) for pair in found] == [(26, 7), (20, 3)]  # the likest first
    assert found[0].similarity == pytest.approx(1.0, abs=1e-5)
    assert 0.95 < found[1].similarity < 1


def test_what_all_images_share_makes_none_alike(pixels):
    chance = np.random.default_rng(1)
    noisy = [np.clip(pixels[0] + chance.normal(0, 6, (64, 64, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    assert alike_across_splits(Images(train=noisy[:20], val=noisy[20:], test=[])) == []


def test_pictures_that_show_nothing_are_alike_to_none(pixels):
    grey = [np.full((64, 64, 3), level, np.uint8) for level in range(30)]
    assert alike_across_splits(Images(train=[*grey[:10], *pixels[:10]], val=grey[10:], test=[])) == []


def test_too_few_to_compare_and_nothing_held_out_give_nothing(pixels):
    assert alike_across_splits(Images(train=pixels[:5], val=pixels[:5], test=[])) == []
    assert alike_across_splits(Images(train=pixels, val=[], test=[])) == []


def test_of_very_many_some_are_looked_at(pixels, monkeypatch):
    monkeypatch.setattr(alike, "MOST", 15)
    assert len(alike_across_splits(Images(train=pixels, val=pixels, test=[]))) == 15


def test_grey_images_and_those_of_many_channels_are_compared_too(pixels):
    for kept in ([0], [0, 1, 2, 0]):
        shown = [image[:, :, kept] for image in pixels]
        found = alike_across_splits(Images(train=shown[:20], val=shown[3:4], test=shown[20:]))
        assert [(pair.held_out, pair.trained) for pair in found] == [(20, 3)]
