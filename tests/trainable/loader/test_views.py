import numpy as np
import pytest
import torch

from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.loader.views import evaluation_view, num_views, varies, view, view_of

STRENGTHS = ("none", "light", "medium", "strong")


def make_spec(channels=3, size=16):
    return InputSpec(
        size=size, mean=(0.5,) * channels, std=(0.25,) * channels, interpolation="bilinear", crop_share=0.875
    )


def noise(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels.flags.writeable = False  # as a pack's are
    return pixels


def look(image, *, config=None, seed=0, sample_id=7, number=1):
    spec = make_spec(image.shape[2])
    return view(image, config=config or AugmentConfig(), spec=spec, seed=seed, sample_id=sample_id, number=number)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(16, 16, 0, 0), (18, 25, 1, 4), (40, 19, 12, 1)])
def test_the_evaluation_view_is_the_exact_centre(height, width, top, left):
    image = noise(height, width, 3)
    shown = evaluation_view(image, make_spec())
    assert np.array_equal(shown.numpy(), image[top : top + 16, left : left + 16].transpose(2, 0, 1))
    assert shown.is_contiguous()
    assert torch.equal(look(image, config=AugmentConfig(strength="none", flip="both", rotate="quarter")), shown)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("auto", [None, "none", "randaugment", "trivial", "augmix"])
@pytest.mark.parametrize("erase", [None, 0.0, 1.0])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
def test_every_mix_of_operations_shows_any_number_of_channels(strength, auto, erase, channels):
    image, config = noise(20, 26, channels), AugmentConfig(strength=strength, auto=auto, erase=erase)
    shown = torch.stack([look(image, config=config, number=epoch) for epoch in range(3)])
    assert shown.shape == (3, channels, 16, 16)
    assert shown.dtype == torch.uint8
    if not varies(config, channels=channels):
        assert torch.equal(shown, evaluation_view(image, make_spec(channels)).expand_as(shown))


def test_a_policy_of_colours_leaves_other_channels_as_they_are():
    config = AugmentConfig(strength="none", auto="trivial")
    assert [varies(config, channels=channels) for channels in (1, 2, 3, 4)] == [True, False, True, False]


def test_strengths_draw_different_views():
    image = noise(20, 26, 3)
    shown = {look(image, config=AugmentConfig(strength=strength)).numpy().tobytes() for strength in STRENGTHS}
    assert len(shown) == 4


def corner_positions(config):
    """Where the bright corner of an image is seen over many epochs; a crop of at least half the area keeps it near."""
    image = np.zeros((16, 16, 1), np.uint8)
    image[:8, :8] = 255
    seen = set()
    for epoch in range(60):
        shown = look(image, config=config, number=epoch)[0]
        corners = {
            "top left": shown[0, 0],
            "top right": shown[0, -1],
            "bottom left": shown[-1, 0],
            "bottom right": shown[-1, -1],
        }
        seen |= {name for name, value in corners.items() if value > 200 and sum(map(int, corners.values())) < 500}
    return seen


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"flip": "none"}, {"top left"}),
        ({"flip": "horizontal"}, {"top left", "top right"}),
        ({"flip": "both"}, {"top left", "top right", "bottom left", "bottom right"}),
        ({"flip": "none", "rotate": "quarter"}, {"top left", "top right", "bottom left", "bottom right"}),
    ],
)
def test_flips_and_turns_are_those_of_the_configuration(fields, expected):
    assert corner_positions(AugmentConfig(**fields)) == expected


def test_light_only_moves_pixels_while_medium_changes_colours():
    image = np.full((20, 26, 3), (60, 120, 180), np.uint8)
    expected = torch.tensor([60, 120, 180], dtype=torch.uint8).view(3, 1, 1).expand(3, 16, 16)
    assert torch.equal(look(image, config=AugmentConfig(strength="light")), expected)
    assert not torch.equal(look(image, config=AugmentConfig(strength="medium")), expected)


def test_colours_of_five_channels_are_left_alone():
    image = np.full((20, 26, 5), 60, np.uint8)
    for epoch in range(10):
        assert (look(image, config=AugmentConfig(strength="medium"), number=epoch) == 60).all()


def test_strong_erases_with_the_mean():
    image = np.full((20, 26, 5), 60, np.uint8)
    values = torch.stack([look(image, config=AugmentConfig(strength="strong"), number=epoch) for epoch in range(40)])
    assert set(values.unique().tolist()) == {60, 127}


def test_a_policy_and_erasing_named_take_the_place_of_the_strengths_own():
    image = noise(20, 26, 3)
    light = AugmentConfig(strength="light")
    assert torch.equal(
        look(image, config=AugmentConfig(strength="light", auto="none", erase=0.0)), look(image, config=light)
    )
    erased = look(image, config=AugmentConfig(strength="none", erase=1.0))
    assert not torch.equal(erased, look(image, config=AugmentConfig(strength="none")))


@pytest.mark.parametrize(
    ("flip", "rotate", "count"),
    [
        ("none", "none", 1),
        ("horizontal", "none", 2),
        ("both", "none", 4),
        ("none", "quarter", 4),
        ("horizontal", "quarter", 8),
        ("both", "quarter", 8),
    ],
)
def test_symmetries_show_every_flip_and_turn_once_before_one_comes_again(flip, rotate, count):
    config = AugmentConfig(strength="symmetries", flip=flip, rotate=rotate)
    image = noise(18, 18, 3)
    shown = [look(image, config=config, number=number) for number in range(1, 2 * count + 1)]
    assert len({one.numpy().tobytes() for one in shown[:count]}) == count
    assert all(torch.equal(one, again) for one, again in zip(shown[:count], shown[count:], strict=True))
    centre = sorted(evaluation_view(image, make_spec()).flatten().tolist())
    assert all(sorted(one.flatten().tolist()) == centre for one in shown)
    assert num_views(config, channels=3, begins_behind=0.0) == count


def test_images_go_through_their_symmetries_in_orders_of_their_own():
    config = AugmentConfig(strength="symmetries", flip="both", rotate="quarter")
    first = [look(noise(16, 16, 3), config=config, sample_id=number) for number in range(20)]
    assert 4 < len({one.numpy().tobytes() for one in first}) <= 8


@pytest.mark.parametrize(
    ("fields", "begins_behind", "expected"),
    [
        ({}, 0.49, None),
        ({}, 0.5, 4),
        ({"views": "each_epoch"}, 1.0, None),
        ({"views": 7}, 0.0, 7),
        ({"strength": "none"}, 0.0, 1),
        ({"strength": "none", "views": 5}, 1.0, 1),
        ({"strength": "none", "erase": 0.5}, 1.0, 4),
        ({"strength": "symmetries", "views": 1}, 0.0, 1),
        ({"strength": "symmetries", "views": 9}, 0.0, 2),
        ({"strength": "symmetries", "erase": 0.5}, 0.0, None),
        ({"strength": "symmetries", "flip": "none"}, 0.0, 1),
    ],
    ids=str,
)
def test_the_number_of_views_follows_from_the_configuration_and_the_frozen_work(fields, begins_behind, expected):
    assert num_views(AugmentConfig(**fields), channels=3, begins_behind=begins_behind) == expected


def test_views_come_again_in_turn():
    assert [view_of(epoch, num=3) for epoch in range(1, 8)] == [1, 2, 3, 1, 2, 3, 1]
    assert [view_of(epoch, num=None) for epoch in range(1, 4)] == [1, 2, 3]
