import multiprocessing
import os
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from trainable import fit
from trainable.config.trial import TrialConfig
from trainable.errors import UserError
from trainable.prefix import prefixes
from trainable.prefix.store import Store

torch.set_num_threads(1)
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__])


@pytest.fixture
def config(make_config):
    def make(depth=0.5, *, epochs=2, **data):
        return make_config(freeze={"depth": depth}, data=data, train={"epochs": epochs}, augment={"views": 2})

    return make


@pytest.fixture(autouse=True)
def nothing_open():
    prefixes._opened.clear()


def told(config, **options):
    """All that the epochs of a trial say but for its costs."""
    return [
        {name: value for name, value in epoch.metrics.items() if not name.startswith("usage/")}
        for epoch in fit(config, **options)
    ]


def usage(config):
    return [
        {name: value for name, value in epoch.metrics.items() if name.startswith("usage/prefix_")}
        for epoch in fit(config)
    ]


def blocks(cache):
    return sorted(Path(cache, "prefix").glob("*.block"))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("depth", [0.5, 1.0])
def test_results_are_those_without_a_store_to_the_bit(config, cache, depth, channels_last):
    trial = config(depth)
    trial = trial.model_copy(update={"train": trial.train.model_copy(update={"channels_last": channels_last})})
    off = trial.model_copy(update={"data": trial.data.model_copy(update={"prefix_gb": 0.0})})
    live = told(off)
    assert not blocks(cache)
    first = told(trial)
    assert blocks(cache)
    prefixes._opened.clear()
    assert live == first == told(trial)
    for path in blocks(cache)[::2]:
        path.unlink()
    prefixes._opened.clear()
    assert told(trial) == live


NEEDS_PEFT = pytest.mark.skipif(find_spec("peft") is None, reason="peft is not installed")


@pytest.mark.parametrize(
    ("strategy", "model"),
    [
        pytest.param("lora", "test_resnet", marks=NEEDS_PEFT),
        pytest.param("dora", "test_resnet", marks=NEEDS_PEFT),
        ("adapter", "test_resnet"),
        ("prompt", "test_vit"),
    ],
)
def test_light_adapters_are_trained_behind_a_store_as_without_one_to_the_bit(strategy, model, make_config, cache):
    sections = {
        "model": {"name": model},
        "finetune": {"strategy": strategy, "rank": 2, "bottleneck": 8, "beside": "norms"},
        "freeze": {"depth": 0.5},
        "train": {"epochs": 2},
        "augment": {"views": 2},
    }
    live = told(make_config(**sections, data={"prefix_gb": 0.0}))
    assert not blocks(cache)
    first = told(make_config(**sections))
    assert blocks(cache)
    prefixes._opened.clear()
    assert live == first == told(make_config(**sections))
    kept = blocks(cache)
    told(make_config(**sections | {"finetune": {"strategy": "partial"}}))
    assert blocks(cache) == kept  # what lies below an adapter is what lies below a layer that trains


def test_what_is_kept_is_not_computed_again(config):
    filled, read = usage(config()), usage(config())
    assert all(epoch["usage/prefix_seconds"] > 0 for epoch in filled)
    assert all(epoch["usage/prefix_seconds"] == 0 for epoch in read)
    assert all(epoch["usage/prefix_saved_seconds"] > 0 for epoch in read)


def test_float32_is_kept_where_it_is_asked_for(config, cache):
    half = told(config())
    sizes = [path.stat().st_size for path in blocks(cache)]
    whole = told(config(prefix_dtype="float32"))
    larger = [path.stat().st_size for path in blocks(cache)]
    assert sum(larger) > 2.5 * sum(sizes)
    assert half != whole
    for one, other in zip(half, whole, strict=True):
        assert one == pytest.approx(other, rel=2e-2, abs=2e-2)


def test_a_deeper_cut_goes_on_from_a_kept_one(config, monkeypatch):
    told(config(0.5))
    started = []
    before = prefixes.Source.go_on
    monkeypatch.setattr(
        prefixes.Source, "go_on", lambda self, block, *, done: started.append(done) or before(self, block, done=done)
    )
    deep = told(config(1.0))
    assert started
    assert set(started) == {2}  # of the five units of this network half are frozen first
    prefixes._opened.clear()
    assert told(config(1.0, prefix_gb=0.0)) == deep


def test_what_other_depths_will_ask_for_is_kept_on_the_way_to_a_deeper_cut(config, cache):
    live = told(config(1.0, prefix_gb=0.0)), told(config(0.5, prefix_gb=0.0))
    alone = told(config(1.0))
    of_one = len(blocks(cache))
    shutil.rmtree(Path(cache) / "prefix")
    prefixes._opened.clear()
    deep = told(config(1.0), depths=[0, 0.5, 1.0])
    assert len(blocks(cache)) == 2 * of_one
    before = blocks(cache)
    shallow = told(config(0.5))
    assert blocks(cache) == before
    assert (deep, shallow) == live
    assert alone == deep


def test_what_is_not_worth_keeping_on_the_way_is_tried_once(config, cache, monkeypatch):
    monkeypatch.setattr(prefixes, "BLOCK_SIZE", 4)
    monkeypatch.setattr(prefixes._Filling, "_is_worth_it", lambda self, _block: len(self.names) > 2)
    passed = []
    before = prefixes.Source.compute
    monkeypatch.setattr(
        prefixes.Source, "compute", lambda self, rows: passed.append(len(self.links)) or before(self, rows)
    )
    told(config(1.0), depths=[0.5])
    assert passed.count(2) == 1
    assert passed.count(5) > 5
    assert blocks(cache)


def test_every_view_comes_again_after_so_many_epochs(config, cache):
    told(config(epochs=2))
    after_two = blocks(cache)
    told(config(epochs=5))
    assert blocks(cache) == after_two


def test_what_finds_no_room_is_computed_anew(config, cache):
    kept = told(config())
    shutil.rmtree(Path(cache) / "prefix")
    prefixes._opened.clear()
    assert told(config(prefix_gb=1e-6)) == kept
    assert not blocks(cache)


def test_what_takes_longer_to_read_than_to_compute_is_not_kept(config, cache, monkeypatch):
    monkeypatch.setattr(prefixes, "READ_BYTES_PER_MS", 1.0)
    told(config())
    assert not blocks(cache)


def test_a_full_disk_is_said_once_and_ends_nothing(config, cache, monkeypatch, caplog):
    kept = told(config())
    shutil.rmtree(Path(cache) / "prefix")
    prefixes._opened.clear()

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Store, "save", full)
    assert told(config()) == kept
    lines = [record.message for record in caplog.records if "No space left" in record.message]
    assert len(lines) == 1
    assert "data.cache: cannot use" in lines[0]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_is_one_line(config, cache):
    told(config(prefix_gb=0.0))
    Path(cache).chmod(0o500)
    try:
        with pytest.raises(UserError, match=r"^data\.cache: cannot use .*prefix"):
            told(config())
    finally:
        Path(cache).chmod(0o700)


def test_a_file_in_the_folders_place_is_one_line(config, cache):
    told(config(prefix_gb=0.0))
    Path(cache, "prefix").write_text("")
    with pytest.raises(UserError, match=r"^data\.cache: cannot use .*prefix"):
        told(config())


def fill_slowly(settings, sign):
    torch.set_num_threads(1)
    compute = prefixes.Source.compute

    def slow(self, rows):
        if Path(sign).exists():
            time.sleep(30)
        Path(sign).touch()
        return compute(self, rows)

    prefixes.Source.compute = slow
    prefixes.BLOCK_SIZE = 8
    list(fit(TrialConfig.model_validate(settings)))


def test_what_a_killed_one_finished_counts(config, cache, tmp_path, monkeypatch):
    trial, sign = config(), tmp_path / "sign"
    monkeypatch.setattr(prefixes, "BLOCK_SIZE", 8)
    writer = processes.Process(target=fill_slowly, args=(trial.model_dump(mode="json"), str(sign)))
    writer.start()
    while not (sign.exists() and blocks(cache)):
        assert writer.is_alive()
        time.sleep(0.01)
    writer.kill()
    writer.join()
    assert writer.exitcode == -signal.SIGKILL
    finished = {path: path.stat().st_ino for path in blocks(cache)}
    assert len(finished) == 1
    after = told(trial)
    assert {path: path.stat().st_ino for path in finished} == finished
    assert not list(Path(cache, "prefix").glob("*.tmp"))
    assert after == told(config(prefix_gb=0.0))


def fill(settings, results):
    torch.set_num_threads(1)
    prefixes.BLOCK_SIZE = 2
    computing = [epoch.metrics["usage/prefix_seconds"] for epoch in fit(TrialConfig.model_validate(settings))]
    results.put(sum(computing))


def test_all_who_wait_for_a_view_compute_parts_of_it(config, cache):
    results = processes.Queue()
    settings = config(1.0, epochs=2, image_size=96).model_dump(mode="json")
    fillers = [processes.Process(target=fill, args=(settings, results)) for _ in range(2)]
    for filler in fillers:
        filler.start()
    spent = [results.get(timeout=120) for _ in fillers]
    for filler in fillers:
        filler.join()
        assert filler.exitcode == 0
    assert len(blocks(cache)) == len({path.name for path in blocks(cache)})
    assert min(spent) > 0


def test_a_backbone_whose_links_are_wrong_is_computed_anew(config, monkeypatch, caplog):
    monkeypatch.setattr(prefixes, "agrees", lambda *_: False)
    prefixes._tried.clear()
    try:
        assert all("usage/prefix_seconds" in epoch and epoch["usage/prefix_seconds"] == 0 for epoch in usage(config()))
        assert "are computed anew" in caplog.text
    finally:
        prefixes._tried.clear()


def test_on_the_way_to_a_deep_cut_what_others_ask_for_is_kept_too(config, cache):
    told(config(0.5, epochs=1))
    for path in blocks(cache):
        path.unlink()
    prefixes._opened.clear()
    told(config(1.0, epochs=1))
    prefixes._opened.clear()
    (epoch,) = usage(config(0.5, epochs=1))
    assert epoch["usage/prefix_seconds"] == 0
    assert epoch["usage/prefix_saved_seconds"] > 0
