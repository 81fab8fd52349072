import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from trainable.loader.crops import (
    INTERPOLATION,
    Boxes,
    centres,
    cut,
    draw_boxes,
    draw_crops,
    resize_together,
    resized,
    send,
    sizes_of,
)
from trainable.loader.draws import draws_for

CPU = torch.device("cpu")


def noise(*shape, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    pixels.flags.writeable = False  # as a pack's are
    return pixels


def parts(channels=3):
    sizes = [(20, 31), (16, 16), (9, 40), (33, 5), (1, 1), (64, 48)]
    return [torch.from_numpy(noise(channels, *size, seed=size[0]).copy()) for size in sizes]


@pytest.mark.parametrize("interpolation", list(INTERPOLATION))
@pytest.mark.parametrize("channels", [1, 3, 5])
def test_all_at_once_are_as_one_after_the_other_within_a_step(interpolation, channels):
    mode = INTERPOLATION[interpolation]
    together = resize_together(parts(channels), size=16, mode=mode)
    each = resized(parts(channels), size=16, interpolation=interpolation)
    assert together.shape == each.shape == (6, channels, 16, 16)
    assert together.dtype == each.dtype == torch.uint8
    assert (together.int() - each.int()).abs().max() <= 1  # a CPU's weights are whole numbers
    if interpolation == "nearest":
        assert torch.equal(together, each)


def test_one_after_the_other_is_torchvisions_resize():
    each = resized(parts(), size=24, interpolation="bicubic")
    for shown, part in zip(each, parts(), strict=True):
        expected = functional.resize(part, [24, 24], interpolation=INTERPOLATION["bicubic"], antialias=True)
        assert torch.equal(shown, expected)


def test_images_at_once_do_not_know_each_other():
    mode = INTERPOLATION["bilinear"]
    together = resize_together(parts(), size=16, mode=mode)
    for shown, part in zip(together, parts(), strict=True):
        alone = resize_together([part], size=16, mode=mode)[0]
        assert (shown.int() - alone.int()).abs().max() <= 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("interpolation", list(INTERPOLATION))
def test_a_gpu_gives_what_a_cpu_does_within_a_step(interpolation):
    on_gpu = resized([part.cuda() for part in parts()], size=16, interpolation=interpolation)
    on_cpu = resized(parts(), size=16, interpolation=interpolation)
    assert (on_gpu.cpu().int() - on_cpu.int()).abs().max() <= 1


def test_crops_lie_inside_their_images_with_the_area_and_shape_that_they_may_have():
    rng = np.random.default_rng(0)
    sizes = (rng.integers(30, 90, 4000), rng.integers(30, 90, 4000))
    boxes = draw_crops(draws_for(range(4000), seed=0, number=1), sizes=sizes, smallest=0.25)
    assert ((boxes.top >= 0) & (boxes.top + boxes.height <= sizes[0])).all()
    assert ((boxes.left >= 0) & (boxes.left + boxes.width <= sizes[1])).all()
    ratio, share = boxes.width / boxes.height, boxes.width * boxes.height / (sizes[0] * sizes[1])
    assert ratio.min() > 0.75 * 0.94  # sides are whole pixels
    assert ratio.max() < 4 / 3 * 1.06
    assert share.min() > 0.23
    assert np.quantile(share, 0.05) < 0.35
    assert np.quantile(share, 0.95) > 0.7
    assert (boxes.top > 0).mean() > 0.8


def test_an_image_too_long_for_any_crop_gives_its_centre():
    sizes = (np.array([10, 400]), np.array([400, 10]))
    boxes = draw_crops(draws_for([1, 2], seed=0, number=1), sizes=sizes, smallest=0.9)
    assert [side.tolist() for side in boxes] == [[0, 193], [193, 0], [10, 13], [13, 10]]


def test_where_no_box_is_found_it_has_no_height():
    sizes = (np.array([1]), np.array([50]))
    draws = draws_for([1], seed=0, number=1)
    boxes = draw_boxes(draws, "erased box", sizes=sizes, share=(0.9, 0.95), ratio=(1.0, 1.01))
    assert boxes.height.tolist() == [0]


def test_what_is_cut_is_the_box_of_arrays_and_of_tensors_alike():
    images = [noise(20, 26, 3), noise(18, 17, 3, seed=1)]
    boxes = Boxes(*np.array([[1, 0], [2, 3], [10, 18], [12, 9]]))
    cuts = cut(images, boxes, device=CPU)
    again = cut([torch.from_numpy(image.copy()) for image in images], boxes, device=CPU)
    for number, (one, other) in enumerate(zip(cuts, again, strict=True)):
        top, left, height, width = (int(side[number]) for side in boxes)
        expected = images[number][top : top + height, left : left + width].transpose(2, 0, 1)
        assert np.array_equal(one.numpy(), expected)
        assert torch.equal(one, other)
    assert [side.tolist() for side in boxes.of(np.array([1]))] == [[0], [3], [18], [9]]
    assert [side.tolist() for side in centres(sizes_of(images), size=16)] == [[2, 1], [5, 0], [16, 16], [16, 16]]


def test_arrays_are_sent_as_they_are_in_one_copy():
    arrays = [noise(5, 7, 3)[1:4], noise(4, 4, 3, seed=2)[:, ::-1], noise(1, 1, 3)]
    sent = send(arrays, device=CPU)
    assert all(np.array_equal(one.numpy(), array) for one, array in zip(sent, arrays, strict=True))
    assert len({one.untyped_storage().data_ptr() for one in sent}) == 1
