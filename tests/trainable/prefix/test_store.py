import errno
import multiprocessing
import os
import time

import numpy as np
import pytest
import torch

from trainable.prefix.store import HEADER_BYTES, Store, block_of, free_share

SIZE = HEADER_BYTES + 4 * 10 * 2  # of a block of four images
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__])


def block(number, *, milliseconds=1.0):
    return block_of(torch.full((4, 10), float(number)), half=True, milliseconds=milliseconds)


@pytest.fixture
def store(tmp_path):
    tmp_path.joinpath("prefix").mkdir()
    return Store(folder=tmp_path / "prefix", limit_bytes=3 * SIZE)


def used_bytes(store):
    return sum(path.stat().st_size for path in store.folder.iterdir() if path.suffix != ".lock")


def content(store, name):
    found = store.load(name)
    return None if found is None else float(found.values[0, 0])


def fresh(store):
    """Another process's store of the same folder."""
    return Store(folder=store.folder, limit_bytes=store.limit_bytes)


@pytest.mark.parametrize("half", [True, False])
@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_outputs_come_back_in_value_type_and_memory_layout(store, half, form):
    outputs = torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0)).half().float()
    outputs = outputs.contiguous(memory_format=form)
    assert store.save("a-0", block_of(outputs, half=half, milliseconds=2.5))
    found = fresh(store).load("a-0")
    assert found.values.itemsize == (2 if half else 4)
    assert found.milliseconds == 2.5
    wanted = np.array([2, 0, 2])
    assert torch.equal(found.outputs(wanted), outputs[wanted])
    assert found.outputs(wanted).stride() == outputs[wanted].contiguous(memory_format=form).stride()


def test_brain_floats_come_back_as_they_were(store):
    outputs = torch.randn(4, 7).bfloat16()
    store.save("a-0", block_of(outputs, half=True, milliseconds=1.0))
    assert torch.equal(store.load("a-0").outputs(np.arange(4)), outputs)


def shorten(path):
    os.truncate(path, SIZE - 1)


def turn_a_bit(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def write_other_things(path):
    path.write_bytes(b"something else altogether" * 100)


def write_another_header(path):
    path.write_bytes(b"[1, 2]".ljust(SIZE))


@pytest.mark.parametrize("harm", [shorten, turn_a_bit, write_other_things, write_another_header])
def test_a_file_that_is_not_whole_is_not_there(store, harm):
    store.save("a-0", block(1))
    harm(store.folder / "a-0.block")
    assert fresh(store).load("a-0") is None
    assert fresh(store).save("a-0", block(1))
    assert content(fresh(store), "a-0") == 1


def test_what_saves_least_time_for_its_bytes_goes_first(store):
    for name, milliseconds in (("a", 2.0), ("b", 1.0), ("c", 3.0)):
        store.save(f"{name}-0", block(1, milliseconds=milliseconds))
    assert store.save("d-0", block(4, milliseconds=1.5))
    assert [content(store, f"{name}-0") for name in "abcd"] == [1, None, 1, 4]
    assert used_bytes(store) == 3 * SIZE
    assert not store.save("e-0", block(5, milliseconds=1.0))
    assert content(store, "e-0") is None
    assert not list(store.folder.glob("*.tmp"))


def test_what_nobody_used_for_long_is_worth_less(store):
    for name, milliseconds in (("a", 4.0), ("b", 2.0), ("c", 2.0)):
        store.save(f"{name}-0", block(1, milliseconds=milliseconds))
    os.utime(store.folder / "a-0.block", times=(time.time() - 10 * 3600,) * 2)
    assert store.save("d-0", block(4, milliseconds=1.0))
    assert [content(store, f"{name}-0") for name in "abcd"] == [None, 1, 1, 4]


def test_a_view_goes_as_a_whole_and_never_for_a_block_of_its_own(store):
    for name in ("a-0", "a-1", "b-0"):
        store.save(name, block(1))
    assert store.save("b-1", block(2, milliseconds=2.0))
    assert [content(store, name) for name in ("a-0", "a-1", "b-0", "b-1")] == [None, None, 1, 2]
    assert store.save("b-2", block(2))
    assert not store.save("b-3", block(2, milliseconds=9.0))


def test_whoever_has_a_block_mapped_reads_on_when_it_is_gone(store):
    store.save("a-0", block(7))
    held = store.load("a-0")
    (store.folder / "a-0.block").unlink()
    assert float(held.values[3, 9]) == 7
    assert fresh(store).load("a-0") is None


def test_a_claimed_block_is_another_processes_until_that_ends(store):
    ready, go_on = processes.Event(), processes.Event()
    holder = processes.Process(target=hold, args=(store.folder, ready, go_on))
    holder.start()
    assert ready.wait(60)
    with store.claimed("a-0", wait=False) as is_mine:
        assert not is_mine
    holder.kill()
    holder.join()
    with store.claimed("a-0", wait=True) as is_mine:
        assert is_mine


def hold(folder, ready, go_on):
    with Store(folder=folder, limit_bytes=1).claimed("a-0", wait=True):
        ready.set()
        go_on.wait(60)


def save_many(folder, limit_bytes, start):
    store = Store(folder=folder, limit_bytes=limit_bytes)
    most = 0
    for number in range(40):
        name = f"v{(start + number * 7) % 11}-{start}"
        store.save(name, block(number, milliseconds=1.0 + number % 5))
        most = max(most, used_bytes_now(folder))
    return most


def used_bytes_now(folder):
    total = 0
    for path in folder.iterdir():
        try:
            total += path.stat().st_size if path.suffix != ".lock" else 0
        except FileNotFoundError:
            continue
    return total


def test_the_limit_holds_but_for_the_blocks_being_written(store):
    with processes.Pool(3) as pool:
        most = pool.starmap(save_many, [(store.folder, store.limit_bytes, start) for start in range(3)])
    assert max(most) <= store.limit_bytes + 3 * SIZE
    assert used_bytes(store) <= store.limit_bytes


def test_a_full_disk_leaves_nothing_behind(store, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.save("a-0", block(1))
    assert used_bytes(store) == 0


def test_without_a_limit_it_is_a_fifth_of_what_is_free(tmp_path):
    disk = os.statvfs(tmp_path)
    assert free_share(tmp_path / "not" / "there") == pytest.approx(0.2 * disk.f_bavail * disk.f_frsize, rel=0.05)
