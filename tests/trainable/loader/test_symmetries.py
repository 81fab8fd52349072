import itertools

import pytest
import torch

from trainable.config.trial import AugmentConfig
from trainable.loader.symmetries import symmetries, turned


@pytest.mark.parametrize(
    ("flip", "rotate", "num"),
    [
        ("none", "none", 1),
        ("horizontal", "none", 2),
        ("both", "none", 4),
        ("none", "quarter", 4),
        ("horizontal", "quarter", 8),
        ("both", "quarter", 8),
    ],
)
def test_each_is_another_picture_and_the_first_is_the_image_itself(flip, rotate, num):
    every = symmetries(AugmentConfig(flip=flip, rotate=rotate))
    image = torch.arange(2 * 3 * 16).view(2, 3, 4, 4)
    shown = [turned(image, symmetry) for symmetry in every]
    assert len(shown) == num
    assert torch.equal(shown[0], image)
    assert not any(torch.equal(one, other) for one, other in itertools.combinations(shown, 2))
