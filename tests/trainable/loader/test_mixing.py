import pytest
import torch

from trainable.config.trial import AugmentConfig
from trainable.loader.mixing import mix

MIXING = [AugmentConfig(mixup=0.4), AugmentConfig(cutmix=1.0), AugmentConfig(mixup=0.4, cutmix=1.0)]


def constant_images(labels):
    """Every image is filled with its label, so that a mixed pixel tells the shares."""
    return labels.float().view(-1, 1, 1, 1).expand(-1, 3, 8, 8).contiguous()


def run(labels, config, *, step=0, epoch=1, seed=0):
    labels = torch.as_tensor(labels)
    return mix(constant_images(labels), labels, config=config, num_classes=4, seed=seed, epoch=epoch, step=step)


def test_without_mixing_images_and_labels_stay_what_they_are():
    labels = torch.tensor([0, 3, 1])
    images = constant_images(labels)
    mixed, targets = mix(images, labels, config=AugmentConfig(), num_classes=4, seed=0, epoch=1, step=0)
    assert mixed is images
    assert targets is labels


@pytest.mark.parametrize("config", MIXING)
@pytest.mark.parametrize("labels", [[2], [0, 1], [3, 1, 2], [0, 1, 2, 3, 3]])
def test_targets_of_any_batch_size_are_shares_that_sum_to_one(config, labels):
    for step in range(10):
        images, targets = run(labels, config, step=step)
        assert images.shape == (len(labels), 3, 8, 8)
        assert targets.shape == (len(labels), 4)
        assert targets.dtype == torch.float32
        torch.testing.assert_close(targets.sum(1), torch.ones(len(labels)))
        assert (targets >= 0).all()


@pytest.mark.parametrize("config", MIXING)
def test_the_mean_pixel_has_the_share_that_the_target_says(config):
    for step in range(10):
        images, targets = run([3, 1, 2], config, step=step)
        torch.testing.assert_close(images.mean((1, 2, 3)), targets @ torch.arange(4.0))


@pytest.mark.parametrize("config", MIXING)
def test_a_single_image_is_mixed_with_itself(config):
    images, targets = run([2], config)
    torch.testing.assert_close(images, torch.full((1, 3, 8, 8), 2.0))
    torch.testing.assert_close(targets, torch.tensor([[0.0, 0, 1, 0]]))


def test_mixup_blends_and_cutmix_pastes():
    blended, _ = run([0, 3], AugmentConfig(mixup=1.0))
    assert all(len(image.unique()) == 1 and image.max() % 3 != 0 for image in blended)
    pasted = torch.stack([run([0, 3], AugmentConfig(cutmix=1.0), step=step)[0] for step in range(10)])
    assert set(pasted.unique().tolist()) == {0.0, 3.0}


def test_with_both_on_each_is_chosen_about_as_often():
    num_blended = sum(bool((run([0, 3], MIXING[2], step=step)[0] % 3 != 0).any()) for step in range(100))
    assert 30 < num_blended < 70  # 50 ± 4 standard deviations


def test_a_batch_that_is_not_chosen_has_one_hot_targets():
    config = AugmentConfig(mixup=1.0, mix_probability=0.0)
    images, targets = run([1, 3], config)
    assert torch.equal(images, constant_images(torch.tensor([1, 3])))
    assert torch.equal(targets, torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1]]))
    half = AugmentConfig(mixup=1.0, mix_probability=0.5)
    num_left_alone = sum(bool((run([1, 3], half, step=step)[1] == targets).all()) for step in range(100))
    assert 30 < num_left_alone < 70  # 50 ± 4 standard deviations


@pytest.mark.parametrize("config", MIXING)
def test_mixing_follows_from_seed_epoch_and_step_alone(config):
    first = run([0, 1, 2], config)
    torch.rand(5)
    again = run([0, 1, 2], config)
    assert torch.equal(again[0], first[0])
    assert torch.equal(again[1], first[1])
    for change in ({"seed": 1}, {"epoch": 2}, {"step": 1}):
        assert not torch.equal(run([0, 1, 2], config, **change)[1], first[1])


@pytest.mark.parametrize("config", MIXING)
def test_the_global_generator_is_as_it_was_while_inputs_stay(config):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    labels = torch.tensor([0, 1, 2])
    images = constant_images(labels)
    before = images.clone()
    mix(images, labels, config=config, num_classes=4, seed=0, epoch=1, step=0)
    assert torch.equal(torch.rand(4), expected)
    assert torch.equal(images, before)
    assert labels.tolist() == [0, 1, 2]


def test_mixing_ends_with_its_last_epoch():
    config = AugmentConfig(mixup=0.4, mix_until=2)
    images, labels = torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 0, 1])
    options = {"config": config, "num_classes": 2, "seed": 0, "step": 0}
    assert mix(images, labels, epoch=2, **options)[1].shape == (4, 2)
    after, targets = mix(images, labels, epoch=3, **options)
    assert torch.equal(after, images)
    assert torch.equal(targets, labels)
