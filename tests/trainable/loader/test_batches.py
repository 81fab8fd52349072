import numpy as np
import pytest
import torch

from trainable.config.trial import AugmentConfig, DataConfig
from trainable.data.pack import open_pack
from trainable.loader.batches import (
    evaluation_batches,
    evaluation_loader,
    normalise,
    num_batches,
    train_loader,
)
from trainable.loader.views import evaluation_view, view

AUGMENT = AugmentConfig(strength="medium", flip="both", rotate="quarter")


@pytest.fixture
def pack(draw_folder, cache, spec):
    """Twenty-eight images to train on, six each to validate and to test with."""
    return open_pack(DataConfig(path=str(draw_folder({"cat": 20, "dog": 20})), cache=cache), spec)


def train_batches(pack, *, epoch, **settings):
    return train_loader(pack, **settings).epoch(epoch)


def equal(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(one, other, strict=True)
    )


def flat(batches):
    """Images and labels in the order they came, whatever the batches."""
    batches = list(batches)
    return torch.cat([batch.images for batch in batches]), torch.cat([batch.labels for batch in batches])


def test_an_epoch_shows_every_training_image_once_and_keeps_the_short_batch(pack, spec):
    plain = AugmentConfig(strength="none")
    batches = list(train_batches(pack, augment=plain, spec=spec, batch_size=8, seed=0, epoch=1))
    assert [len(batch.labels) for batch in batches] == [8, 8, 8, 4]
    assert num_batches(28, batch_size=8) == 4
    assert num_batches(24, batch_size=8) == 3
    images, labels = flat(batches)
    assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
    shown = sorted((image.numpy().tobytes(), int(label)) for image, label in zip(images, labels, strict=True))
    train = pack.indices("train")
    expected = [(evaluation_view(pack.image(i), spec).numpy().tobytes(), int(pack.labels[i])) for i in train]
    assert shown == sorted(expected)


def test_every_image_of_a_batch_is_its_own_view(pack, spec):
    batches = train_batches(pack, augment=AUGMENT, spec=spec, batch_size=8, seed=3, epoch=2)
    images = {image.numpy().tobytes() for image in flat(batches)[0]}
    assert images == {
        view(pack.image(i), config=AUGMENT, spec=spec, seed=3, sample_id=int(pack.sample_ids[i]), number=2)
        .numpy()
        .tobytes()
        for i in pack.indices("train")
    }


def test_the_order_follows_from_seed_and_epoch(pack, spec):
    def order(**change):
        settings = {"seed": 0, "epoch": 1} | change
        plain = AugmentConfig(strength="none")
        return flat(train_batches(pack, augment=plain, spec=spec, batch_size=8, **settings))[0]

    assert torch.equal(order(), order())
    assert not torch.equal(order(epoch=2), order())
    assert not torch.equal(order(seed=1), order())


def test_the_batch_size_changes_neither_order_nor_views(pack, spec):
    def epoch(size):
        return flat(train_batches(pack, augment=AUGMENT, spec=spec, batch_size=size, seed=0, epoch=1))

    images, labels = epoch(28)
    for size in (1, 5, 100):
        assert torch.equal(epoch(size)[0], images)
        assert torch.equal(epoch(size)[1], labels)


def test_evaluation_shows_the_centres_of_a_split_in_the_packs_order(pack, spec):
    for split in ("val", "test"):
        batches = list(evaluation_batches(pack, split, spec=spec, batch_size=4))
        assert [len(batch.labels) for batch in batches] == [4, 2]
        images, labels = flat(batches)
        rows = pack.indices(split)
        assert torch.equal(images, torch.stack([evaluation_view(pack.image(row), spec) for row in rows]))
        assert np.array_equal(labels.numpy(), pack.labels[rows])


def test_global_generators_are_as_they_were(pack, spec):
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    list(train_batches(pack, augment=AUGMENT, spec=spec, batch_size=8, seed=0, epoch=1))
    list(evaluation_batches(pack, "val", spec=spec, batch_size=8))
    assert torch.equal(torch.rand(4), expected)


def test_epochs_of_one_loader_are_those_of_fresh_ones_even_after_a_break(pack, spec):
    settings = {"augment": AUGMENT, "spec": spec, "batch_size": 8, "seed": 0}
    loader = train_loader(pack, **settings)
    early, late = loader.epoch(1), loader.epoch(2)
    next(early)
    assert equal(list(late), list(train_batches(pack, epoch=2, **settings)))
    assert equal(list(loader.epoch(1)), list(train_batches(pack, epoch=1, **settings)))


@pytest.mark.slow
def test_worker_processes_change_nothing(pack, spec):
    settings = {"augment": AUGMENT, "spec": spec, "batch_size": 8, "seed": 0}
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    loader = train_loader(pack, workers=2, **settings)
    next(loader.epoch(9))  # left before its end
    for epoch in (1, 2):
        assert equal(list(loader.epoch(epoch)), list(train_batches(pack, epoch=epoch, **settings)))
    evaluation = evaluation_loader(pack, "val", spec=spec, batch_size=4, workers=2)
    assert equal(list(evaluation.epoch(1)), list(evaluation_batches(pack, "val", spec=spec, batch_size=4)))
    assert torch.equal(torch.rand(4), expected)


def test_normalised_images_have_the_models_mean_and_deviation(spec):
    images = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 3, 1, 1)
    found = normalise(images, spec)  # mean 0.5, deviation 0.25
    torch.testing.assert_close(found, torch.tensor([-2.0, 2.0, -1.2]).view(1, 3, 1, 1))
    assert images.flatten().tolist() == [0, 255, 51]
