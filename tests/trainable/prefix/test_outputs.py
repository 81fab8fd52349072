from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from trainable.prefix.outputs import BLOCK_SIZE, FILL_SIZES, IN_MEMORY, Kept, Outputs, Source, Spent, fill_size, resting
from trainable.prefix.store import block_of

ROWS = np.arange(3, 303, 2)  # 150 rows: two blocks and a part of one


class Doubled(nn.Module):
    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, images):
        assert not torch.is_grad_enabled()
        assert not self.training
        self.sizes.append(len(images))
        return 2 * images


def images(rows):
    """Ten numbers a row, none of them those of another row, none of float16's."""
    return (torch.from_numpy(rows).view(-1, 1) + torch.arange(10) / 10).float()


def source_of(*links, half=True):
    return Source(links=links or (Doubled(),), images=images, half=half, autocast=nullcontext)


def kept(source):
    starts = range(0, len(ROWS), BLOCK_SIZE)
    return Kept(
        [
            block_of(source.compute(ROWS[start : start + BLOCK_SIZE]), half=source.half, milliseconds=3.0)
            for start in starts
        ]
    )


def expected(rows, *, half=True):
    return (2 * images(rows)).half().float() if half else 2 * images(rows)


@pytest.mark.parametrize("half", [True, False])
def test_every_pass_has_the_same_size_whatever_is_asked_for(half):
    link = Doubled()
    assert torch.equal(source_of(link, half=half).compute(ROWS[:70]), expected(ROWS[:70], half=half))
    assert link.sizes == [FILL_SIZES["cpu"]] * 3
    assert link.training


def test_a_pass_on_a_gpu_is_a_block():
    assert FILL_SIZES["cuda"] == BLOCK_SIZE
    assert fill_size(torch.device("cuda", 0)) == BLOCK_SIZE


def test_going_on_from_a_block_gives_what_going_all_the_way_does():
    source = source_of(Doubled(), Doubled())
    whole = source.compute(ROWS[:BLOCK_SIZE])
    base = block_of(source_of(Doubled()).compute(ROWS[:BLOCK_SIZE]), half=True, milliseconds=1.0)
    assert torch.equal(source.go_on(base, done=1), whole)


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("is_kept", [True, False])
def test_requests_are_answered_alike_from_what_is_kept_and_by_computing(is_kept, in_memory, monkeypatch):
    if not in_memory:
        monkeypatch.setattr("trainable.prefix.outputs.IN_MEMORY", 0)
    source, spent = source_of(), Spent()
    outputs = Outputs(ROWS, source=source, spent=spent, kept=kept(source) if is_kept else None)
    order = np.random.default_rng(0).permutation(ROWS)
    requests = [order[start : start + 7] for start in range(0, 140, 7)] + [order[140:], order[:3]]
    found = list(outputs.batches(requests))
    assert [len(one) for one in found] == [len(one) for one in requests]
    assert torch.equal(torch.cat(found), expected(np.concatenate(requests)))
    assert (spent.computing > 0) == (not is_kept)
    assert spent.saved == pytest.approx(3e-3 * 153 if is_kept else 0.0)


def test_what_is_kept_is_held_on_a_gpu_where_it_fits_beside_others(monkeypatch):
    """A device of torch's that computes nothing stands for the GPU; it has room for a share of 100,000 bytes."""
    monkeypatch.setattr("trainable.prefix.outputs.free_bytes", lambda device: 100_000)
    blocks = [block_of(torch.zeros(64, 100), half=True, milliseconds=1.0)]  # 12,800 bytes
    gpu = torch.device("meta")
    assert Kept(blocks, device=gpu).held_bytes == 12_800
    assert Kept(blocks, device=gpu, held_bytes=9_000).held_bytes == 12_800
    assert Kept(blocks, device=gpu, held_bytes=9_200).held_bytes == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_what_a_gpu_holds_is_what_was_kept():
    blocks = [block_of(images(ROWS[:64]), half=True, milliseconds=1.0)]
    rows = np.array([5, 0, 63, 5])
    held = Kept(blocks, device=torch.device("cuda")).at(rows)
    assert held.device.type == "cuda"
    assert torch.equal(held.cpu(), Kept(blocks).at(rows))


def test_computing_makes_as_few_passes_as_there_are_images():
    link = Doubled()
    outputs = Outputs(ROWS, source=source_of(link), spent=Spent())
    list(outputs.batches([ROWS[start : start + 7] for start in range(0, 64, 7)]))
    assert len(link.sizes) == 3  # 70 rows, and no pass for each batch of seven


def test_nothing_asked_for_computes_nothing():
    assert not list(Outputs(ROWS, source=source_of(), spent=Spent()).batches([]))


def test_what_half_precision_cannot_hold_is_its_largest_number_and_no_infinity():
    large = Source(links=(nn.Identity(),), images=lambda rows: images(rows) * 1e6, half=True, autocast=nullcontext)
    assert large.compute(ROWS[:5]).max() == 65504


def test_modules_rest_inside_and_are_as_before_after():
    inner = nn.Sequential(nn.Dropout(), nn.Sequential(nn.Dropout()))
    inner[1].eval()
    with resting([inner]):
        assert not any(module.training for module in inner.modules())
    assert [module.training for module in inner.modules()] == [True, True, False, False]


def test_what_is_in_memory_is_bounded():
    assert IN_MEMORY <= 64e6
