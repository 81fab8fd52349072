import numpy as np
import pytest
import torch

from trainable.config.trial import AugmentConfig
from trainable.data.input_spec import InputSpec
from trainable.loader.views import evaluation_view, view, views

STRENGTHS = ("none", "light", "medium", "strong")
VARIED = STRENGTHS[1:]


def make_spec(channels=3, size=16):
    return InputSpec(size, (0.5,) * channels, (0.25,) * channels, "bilinear", 0.875)


def noise(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels.flags.writeable = False  # as a pack's are
    return pixels


def look(image, *, config=None, seed=0, sample_id=7, epoch=1):
    spec = make_spec(image.shape[2])
    return view(image, config=config or AugmentConfig(), spec=spec, seed=seed, sample_id=sample_id, epoch=epoch)


@pytest.mark.parametrize(("height", "width", "top", "left"), [(16, 16, 0, 0), (18, 25, 1, 4), (40, 19, 12, 1)])
def test_the_evaluation_view_is_the_exact_centre(height, width, top, left):
    image = noise(height, width, 3)
    shown = evaluation_view(image, make_spec())
    assert np.array_equal(shown.numpy(), image[top : top + 16, left : left + 16].transpose(2, 0, 1))
    assert shown.is_contiguous()
    assert torch.equal(look(image, config=AugmentConfig(strength="none", flip="both", rotate="quarter")), shown)


@pytest.mark.parametrize("strength", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_every_strength_shows_any_number_of_channels_in_the_right_size(strength, channels):
    image = noise(20, 26, channels)
    config = AugmentConfig(strength=strength, flip="both", rotate="quarter")
    for epoch in range(20):
        shown = look(image, config=config, epoch=epoch)
        assert shown.shape == (channels, 16, 16)
        assert shown.dtype == torch.uint8


@pytest.mark.parametrize("strength", VARIED)
def test_a_view_follows_from_seed_sample_epoch_and_strength_alone(strength):
    image, config = noise(20, 26, 3), AugmentConfig(strength=strength)
    first = look(image, config=config)
    torch.rand(3)
    look(noise(30, 30, 3, seed=1), config=config, sample_id=3)
    assert torch.equal(look(image, config=config), first)
    for change in ({"seed": 1}, {"sample_id": 8}, {"epoch": 2}):
        assert not torch.equal(look(image, config=config, **change), first)


def test_strengths_draw_different_views():
    image = noise(20, 26, 3)
    shown = {look(image, config=AugmentConfig(strength=strength)).numpy().tobytes() for strength in STRENGTHS}
    assert len(shown) == 4


@pytest.mark.parametrize("strength", STRENGTHS)
def test_views_do_not_depend_on_their_batch(strength):
    images = [noise(20, 20 + number, 3, seed=number) for number in range(7)]
    config, spec = AugmentConfig(strength=strength, rotate="quarter"), make_spec()
    together = views(images, config=config, spec=spec, seed=3, sample_ids=range(7), epoch=2)
    for number in reversed(range(7)):
        alone = view(images[number], config=config, spec=spec, seed=3, sample_id=number, epoch=2)
        assert torch.equal(together[number], alone)


@pytest.mark.parametrize("strength", STRENGTHS)
def test_the_global_generator_is_as_it_was(strength):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    look(noise(20, 26, 3), config=AugmentConfig(strength=strength, flip="both", rotate="quarter"))
    assert torch.equal(torch.rand(4), expected)


def corner_positions(config):
    """Where the bright corner of an image is seen over many epochs; a crop of at least half the area keeps it near."""
    image = np.zeros((16, 16, 1), np.uint8)
    image[:8, :8] = 255
    seen = set()
    for epoch in range(60):
        shown = look(image, config=config, epoch=epoch)[0]
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
        assert (look(image, config=AugmentConfig(strength="medium"), epoch=epoch) == 60).all()


def test_strong_erases_with_the_mean():
    image = np.full((20, 26, 5), 60, np.uint8)
    values = torch.stack([look(image, config=AugmentConfig(strength="strong"), epoch=epoch) for epoch in range(40)])
    assert set(values.unique().tolist()) == {60, 127}


def test_views_of_an_unwritable_image_do_not_touch_it():
    image = noise(20, 26, 3)
    before = image.copy()
    for epoch in range(10):
        look(image, config=AugmentConfig(strength="strong"), epoch=epoch)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("auto", ["randaugment", "trivial", "augmix"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_policy_changes_an_image_by_seed_alone(auto, channels):
    config = AugmentConfig(strength="none", auto=auto, auto_magnitude=30)
    image = noise(20, 26, channels)
    plain = look(image, config=AugmentConfig(strength="none"))
    shown = [look(image, config=config, sample_id=number) for number in range(8)]
    assert any(not torch.equal(one, plain) for one in shown)
    assert torch.equal(look(image, config=config, sample_id=3), shown[3])
    assert {(one.dtype, tuple(one.shape)) for one in shown} == {(torch.uint8, (channels, 16, 16))}


def test_a_policy_and_erasing_named_take_the_place_of_the_strengths_own():
    image = noise(20, 26, 3)
    light = AugmentConfig(strength="light")
    assert torch.equal(
        look(image, config=AugmentConfig(strength="light", auto="none", erase=0.0)), look(image, config=light)
    )
    erased = look(image, config=AugmentConfig(strength="none", erase=1.0))
    assert not torch.equal(erased, look(image, config=AugmentConfig(strength="none")))
