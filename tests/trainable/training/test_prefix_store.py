import copy
import multiprocessing
import signal
import time
from contextlib import suppress

import numpy as np
import pytest
import torch

from trainable.config.trial import AugmentConfig, TrainConfig
from trainable.data.pack import open_pack
from trainable.loader.batches import evaluation_batches, normalise
from trainable.loader.views import evaluation_view
from trainable.model.backbone import input_spec
from trainable.model.network import create_network
from trainable.model.prefix_cut import find_cut, prefix_output
from trainable.training.prefix_store import PrefixStore, StoredViews, TrainingView, fits, prefix_digest, view_key

ROWS = np.arange(3, 73, 2)  # 35 rows: a whole forward pass and three rows
SHAPE = (4, 5)
FILE_BYTES = 4 * 35 * 20 + 128
MANY = 10 * FILE_BYTES
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__])  # torch is imported once for all of them


def numbers(rows):
    """Twenty numbers a row, none of them those of another row."""
    return (20 * torch.from_numpy(rows).view(-1, 1) + torch.arange(20)).float().view(-1, *SHAPE)


class Counted:
    def __init__(self):
        self.asked = []

    def __call__(self, rows):
        assert not torch.is_grad_enabled()
        self.asked.append(rows)
        return numbers(rows)


def opened(store, key, compute=numbers, *, rows=ROWS, shape=SHAPE):
    return store.open({"of": key}, rows=rows, shape=shape, compute=compute)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache/prefix"


@pytest.fixture
def store(folder):
    return PrefixStore(folder, limit_bytes=MANY)


def test_what_is_stored_is_computed_once_in_passes_of_one_size(store, folder):
    compute = Counted()
    for one in (store, store, PrefixStore(folder, limit_bytes=MANY)):
        stored = opened(one, "a", compute)
        assert torch.equal(stored.rows(ROWS), numbers(ROWS))
    assert [len(rows) for rows in compute.asked] == [32, 32]
    assert np.array_equal(compute.asked[0], ROWS[:32])
    assert set(compute.asked[1]) == set(ROWS[32:])


def test_rows_come_in_the_order_asked_for_as_often_as_asked_for(store):
    wanted = np.array([71, 3, 3, 41])
    assert torch.equal(opened(store, "a").rows(wanted), numbers(wanted))


def test_a_copy_is_given_that_may_be_overwritten(store):
    stored = opened(store, "a")
    stored.rows(ROWS).zero_()
    assert torch.equal(stored.rows(ROWS), numbers(ROWS))


def test_a_row_that_is_not_held_is_no_other_row(store):
    with pytest.raises(AssertionError):
        opened(store, "a").rows(np.array([4]))


@pytest.mark.parametrize("changed", [{"key": "b"}, {"rows": ROWS[:-1]}, {"shape": (5, 4)}])
def test_other_keys_rows_and_shapes_are_other_files(store, folder, changed):
    opened(store, "a")
    arguments = {"key": "a"} | changed
    opened(
        store, arguments.pop("key"), lambda rows: numbers(rows).reshape(-1, *changed.get("shape", SHAPE)), **arguments
    )
    assert len(list(folder.glob("*.npy"))) == 2


def test_a_failed_computation_leaves_nothing(store, folder):
    def fail(rows):
        if rows[0] > ROWS[0]:
            raise RuntimeError("no more")
        return numbers(rows)

    with pytest.raises(RuntimeError, match="no more"):
        opened(store, "a", fail)
    assert not list(folder.glob("*.npy")) + list(folder.glob("*.tmp"))
    assert torch.equal(opened(store, "a").rows(ROWS), numbers(ROWS))


def test_a_file_that_vanished_is_computed_again_and_who_had_it_reads_on(store, folder):
    stored = opened(store, "a")
    for path in folder.glob("*.npy"):
        path.unlink()
    compute = Counted()
    assert torch.equal(opened(store, "a", compute).rows(ROWS), stored.rows(ROWS))
    assert len(compute.asked) == 2


def used_bytes(folder):
    sizes = []
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            sizes.append(0 if path.suffix == ".lock" else path.stat().st_size)
    return sum(sizes)


def test_the_least_recently_used_go_before_the_limit_is_passed(folder):
    store = PrefixStore(folder, limit_bytes=3 * FILE_BYTES)
    taken = []

    def watched(rows):
        taken.append(used_bytes(folder))
        return numbers(rows)

    for key in ("a", "b", "c", "a", "d", "e"):  # d takes the place of b, e that of c
        opened(store, key, watched)
    assert max(taken) == used_bytes(folder) == 3 * FILE_BYTES
    compute = Counted()
    for key in ("e", "d", "a"):
        opened(store, key, compute)
    assert not compute.asked
    opened(store, "b", compute)
    assert compute.asked


@pytest.mark.parametrize(
    ("num_images", "shape", "limit_bytes", "fit"),
    [(100, (10,), 16000, True), (101, (10,), 16000, False), (10, (5, 2, 10), 16000, True), (1, (), 15, False)],
)
def test_a_view_fits_up_to_a_quarter_of_the_limit(num_images, shape, limit_bytes, fit):
    assert fits(num_images, shape=shape, limit_bytes=limit_bytes) is fit


def write_slowly(folder, sign, seconds, key):
    def compute(rows):
        if rows[0] > ROWS[0]:
            sign.touch()
            time.sleep(seconds)
        return numbers(rows)

    stored = opened(PrefixStore(folder, limit_bytes=MANY), key, compute)
    assert torch.equal(stored.rows(ROWS), numbers(ROWS))


def start_writer(folder, sign, *, seconds, key="a"):
    """A process that stands still in the middle of a file; ``sign`` is there when it does."""
    writer = processes.Process(target=write_slowly, args=(folder, sign, seconds, key))
    writer.start()
    while not sign.exists():
        assert writer.is_alive()
        time.sleep(0.01)
    return writer


def test_a_killed_writer_leaves_no_half_file_and_nothing_that_stays(store, folder, tmp_path):
    for key in ("a", "b"):
        writer = start_writer(folder, tmp_path / key, seconds=60, key=key)
        writer.kill()
        writer.join()
        assert writer.exitcode == -signal.SIGKILL
    assert len(list(folder.glob("*.tmp"))) == 1  # the second has deleted what the first left
    assert torch.equal(opened(store, "a").rows(ROWS), numbers(ROWS))
    assert not list(folder.glob("*.tmp"))
    assert used_bytes(folder) == FILE_BYTES


def test_who_comes_while_another_fills_waits_and_computes_nothing(store, folder, tmp_path):
    writer = start_writer(folder, tmp_path / "sign", seconds=0.5)
    compute = Counted()
    assert torch.equal(opened(store, "a", compute).rows(ROWS), numbers(ROWS))
    assert not compute.asked
    writer.join()
    assert writer.exitcode == 0


def test_a_file_being_filled_counts_and_stays_while_others_are_made_room_for(folder, tmp_path):
    writer = start_writer(folder, tmp_path / "sign", seconds=1)
    store = PrefixStore(folder, limit_bytes=2 * FILE_BYTES)
    opened(store, "b")
    opened(store, "c")
    assert used_bytes(folder) == 2 * FILE_BYTES
    writer.join()
    assert writer.exitcode == 0


def open_many(folder, keys):
    store = PrefixStore(folder, limit_bytes=4 * FILE_BYTES)
    return all(torch.equal(opened(store, key, numbers).rows(ROWS), numbers(ROWS)) for key in keys)


def test_processes_that_evict_each_others_files_all_read_what_is_right(folder):
    keys = [[(start + step * number) % 9 for number in range(60)] for start, step in ((0, 1), (3, 2), (5, 4))]
    with processes.Pool(3) as pool:
        assert pool.starmap(open_many, [(folder, one) for one in keys]) == [True] * 3
    assert used_bytes(folder) <= 4 * FILE_BYTES


@pytest.fixture
def trial(make_config):
    """Everything a key is made of, and the cut of a network that is frozen up to its middle."""
    config = make_config(freeze={"depth": 0.5})
    spec = input_spec(config.model, image_size=32, channels=3)
    network = create_network(config, spec=spec, num_classes=2)
    cut = find_cut(
        network.backbone, plan=network.plan, frozen=network.plan.frozen(0.5), images=torch.randn(3, 3, 32, 32)
    )
    return network, cut, spec, open_pack(config.data, spec)


def test_the_digest_follows_the_weights_and_statistics_of_the_prefix_alone(trial):
    network, cut, _, _ = trial
    found = {prefix_digest(network.backbone, cut=cut)}
    for name in ("layer1.0.conv1.weight", "layer1.0.bn1.running_mean", "layer1.0.bn1.num_batches_tracked"):
        changed = copy.deepcopy(network.backbone)
        with torch.no_grad():
            changed.state_dict()[name].add_(1)
        found.add(prefix_digest(changed, cut=cut))
    assert len(found) == 4
    assert cut.entry == "layer2"
    with torch.no_grad():
        for module in (network.backbone.layer2, network.backbone.layer4):
            for tensor in module.state_dict().values():
                tensor.add_(1)
    network = network.to(memory_format=torch.channels_last)
    assert prefix_digest(network.backbone, cut=cut) in found


def test_every_part_of_a_view_has_its_own_key(trial):
    network, cut, spec, pack = trial
    light, strong = AugmentConfig(), AugmentConfig(strength="strong")

    def key(view, **changed):
        given = {"cut": cut, "architecture": "resnet10t", "spec": spec, "pack": pack, "train": TrainConfig()} | changed
        return view_key(network.backbone, view=view, **given)

    plain = key(TrainingView(light, seed=1, epoch=1))
    views = [
        None,
        TrainingView(light, seed=2, epoch=1),
        TrainingView(light, seed=1, epoch=2),
        TrainingView(strong, 1, 1),
    ]
    others = [key(view) for view in views]
    others += [
        key(TrainingView(light, 1, 1), train=TrainConfig(**{n: v}))
        for n, v in {"amp": "bf16", "channels_last": True}.items()
    ]
    assert plain not in others
    assert len({str(other) for other in others}) == 6
    # Neither the images of a batch nor how they are mixed changes one of them.
    assert plain == key(TrainingView(AugmentConfig(mixup=0.2), 1, 1), train=TrainConfig(batch_size=7))


def test_the_batches_are_those_of_the_loader_with_outputs_for_images(trial, store):
    network, cut, spec, pack = trial
    network.eval()
    rows = pack.indices("val")

    def compute(wanted):
        images = torch.stack([evaluation_view(pack.image(row), spec) for row in wanted])
        return prefix_output(network.backbone, normalise(images, spec), cut=cut)

    key = view_key(
        network.backbone, cut=cut, architecture="resnet10t", spec=spec, pack=pack, train=TrainConfig(), view=None
    )
    stored = store.open(key, rows=rows, shape=cut.shape, compute=compute)
    views = StoredViews(lambda _epoch: stored, labels=pack.labels)
    for images, labels in evaluation_batches(pack, "val", spec=spec, batch_size=5):
        outputs = views[0, rows[: len(labels)]]
        rows = rows[len(labels) :]
        assert torch.equal(outputs.labels, labels)
        with torch.no_grad():
            live = prefix_output(network.backbone, normalise(images, spec), cut=cut)
        # A thread that is alone computes the convolutions of fewer than 16 images in another order.
        torch.testing.assert_close(outputs.images, live, rtol=1e-5, atol=1e-5)
    assert not len(rows)


def test_an_epochs_outputs_are_opened_once(store):
    asked = []

    def open_view(epoch):
        asked.append(epoch)
        return opened(store, epoch)

    views = StoredViews(open_view, labels=np.arange(100))
    for epoch in (1, 1, 1, 2, 2):
        assert torch.equal(views[epoch, ROWS[2:4]].images, numbers(ROWS[2:4]))
    assert asked == [1, 2]
