import numpy as np
import pytest
import torch

from trainable.data.pack import open_pack
from trainable.loader import held
from trainable.loader.held import HeldImages, fits_on_device, free_bytes, hold
from trainable.model.backbone import input_spec

CPU = torch.device("cpu")


@pytest.fixture
def pack(make_config):
    config = make_config()
    return open_pack(config.data, input_spec(config.model, image_size=32, channels=3))


@pytest.mark.parametrize(
    ("num_bytes", "held_bytes", "expected"),
    [(200, 0, True), (201, 0, False), (100, 125, True), (101, 125, False), (1, 300, False), (0, 0, True)],
)
def test_what_fits_is_a_share_of_what_was_free_before_anything_of_its_kind(num_bytes, held_bytes, expected):
    found = fits_on_device(num_bytes, free_bytes=1000, share=0.2, held_bytes=held_bytes)
    assert found is expected


def test_images_are_those_of_the_pack_whatever_their_shapes_and_the_size_of_a_copy(pack, monkeypatch):
    for copied_bytes in (1, 10_000, 64_000_000):
        monkeypatch.setattr(held, "COPIED_BYTES", copied_bytes)
        images = HeldImages(pack, CPU)
        assert all(np.array_equal(images.image(row).numpy(), pack.image(row)) for row in range(len(pack)))
        assert images.num_bytes == sum(pack.image(row).nbytes for row in range(len(pack)))


def test_a_cpu_holds_nothing_for_files_are_mapped_there(pack):
    assert hold(pack, CPU) is None
    assert free_bytes(CPU) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_holds_a_pack_once_for_all_trials_of_a_process(pack):
    device = torch.device("cuda")
    assert free_bytes(device) > 0
    images = hold(pack, device)
    assert hold(pack, device) is images
    assert torch.equal(images.image(3).cpu(), torch.from_numpy(pack.image(3).copy()))
