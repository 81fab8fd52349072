import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3
from PIL import Image

from trainable.config.trial import DataConfig
from trainable.data.pack import cache_folder, open_pack
from trainable.errors import UserError

ROOT = Path(__file__).parents[3]

OPEN_ELPV = """
import sys
from trainable.config.trial import DataConfig
from trainable.data.input_spec import InputSpec
from trainable.data.pack import open_pack
spec = InputSpec(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bicubic", crop_share=0.875)
print(open_pack(DataConfig(format="elpv", cache=sys.argv[1]), spec).path)
"""


def open_elpv(cache):
    return subprocess.Popen([sys.executable, "-c", OPEN_ELPV, cache], stdout=subprocess.PIPE, text=True, cwd=ROOT)


def files(cache):
    return sorted(path.suffix for path in Path(cache).iterdir())


@pytest.fixture
def given(draw_folder):
    """Six images of two classes in given splits."""
    return draw_folder({f"{split}/{label}": 1 for split in ("train", "val", "test") for label in ("cat", "dog")})


@pytest.fixture
def loose(draw_folder):
    """Forty images of two classes without a split."""
    return draw_folder({"cat": 20, "dog": 20})


def config(root, cache, **fields):
    return DataConfig(path=str(root), cache=cache, **fields)


def test_a_pack_holds_every_image_with_its_label_and_split(given, cache, spec):
    pack = open_pack(config(given, cache), spec)
    assert pack.classes == ("cat", "dog")
    assert pack.counts() == {split: {"cat": 1, "dog": 1} for split in ("train", "val", "test")}
    assert len(pack) == 6
    for split in ("train", "val", "test"):
        for index in pack.indices(split):
            path = given / pack.names[index]
            assert path.parts[-3:-1] == (split, pack.classes[pack.labels[index]])
            resized = Image.open(path).resize((22, 18), Image.Resampling.BILINEAR)  # 24×20 with shorter side 18
            assert np.array_equal(pack.image(index), np.asarray(resized))
            assert int(pack.sample_ids[index]) == int.from_bytes(blake3(path.read_bytes()).digest()[:8], "little")
    assert pack.labels.dtype == np.int64
    assert pack.sample_ids.dtype == np.uint64
    assert pack.groups == pack.domains == [None] * 6


def test_an_image_of_a_pack_cannot_be_written_to(given, cache, spec):
    with pytest.raises(ValueError, match="read-only"):
        open_pack(config(given, cache), spec).image(0)[0] = 0


def test_nothing_depends_on_the_names_but_the_order_of_equal_images(loose, cache, spec):
    before = open_pack(config(loose, cache), spec)
    for number, path in enumerate(sorted(loose.rglob("*.png"))):
        path.rename(path.with_name(f"{(number * 7) % 40:02}.jpg"))
    after = open_pack(config(loose, cache), spec)
    assert after.fingerprint == before.fingerprint
    assert np.array_equal(after.sample_ids, before.sample_ids)
    assert (np.diff(after.sample_ids.astype(object)) > 0).all()
    for split in ("train", "val", "test"):
        assert np.array_equal(after.indices(split), before.indices(split))
    assert all(np.array_equal(after.image(index), before.image(index)) for index in range(40))


def test_the_seeded_cut_follows_its_settings(loose, cache, spec):
    pack = open_pack(config(loose, cache), spec)
    assert pack.counts() == {"train": {"cat": 14, "dog": 14}, "val": {"cat": 3, "dog": 3}, "test": {"cat": 3, "dog": 3}}
    larger = open_pack(config(loose, cache, val_share=0.25), spec)
    assert larger.counts()["val"] == {"cat": 5, "dog": 5}
    other = open_pack(config(loose, cache, split_seed=1), spec)
    assert other.counts() == pack.counts()
    assert set(other.indices("test")) != set(pack.indices("test"))


@pytest.mark.parametrize(("missing", "kept"), [("val", "test"), ("test", "val")])
def test_a_split_that_is_not_given_is_cut_from_train(draw_folder, cache, spec, missing, kept):
    root = draw_folder({"train/cat": 20, "train/dog": 40, f"{kept}/cat": 2, f"{kept}/dog": 3})
    assert open_pack(config(root, cache), spec).counts() == {
        "train": {"cat": 17, "dog": 34},
        missing: {"cat": 3, "dog": 6},
        kept: {"cat": 2, "dog": 3},
    }


def test_equal_images_never_straddle_splits(loose, cache, spec):
    for path in sorted(loose.rglob("*.png"))[::2]:
        for number in range(3):
            shutil.copy(path, path.with_name(f"{path.stem}-{number}.png"))
    for seed in range(5):
        pack = open_pack(config(loose, cache, split_seed=seed), spec)
        assert len(pack) == 100
        ids = [set(pack.sample_ids[pack.indices(split)].tolist()) for split in ("train", "val", "test")]
        assert sum(map(len, ids)) == len(set.union(*ids)) == 40


def test_groups_never_straddle_splits_while_groups_and_domains_are_kept(loose, cache, spec):
    paths = sorted(path.relative_to(loose).as_posix() for path in loose.rglob("*.png"))
    lines = [f"{path},{path[:3]},{path[:3]}{index % 7},{'ab'[index % 2]}" for index, path in enumerate(paths)]
    (loose / "list.csv").write_text("\n".join(["image,label,object,site", *lines]))
    fields = {"group_column": "object", "domain_column": "site"}
    for seed in range(5):
        pack = open_pack(config(loose / "list.csv", cache, split_seed=seed, **fields), spec)
        splits = [{pack.groups[index] for index in pack.indices(split)} for split in ("train", "val", "test")]
        assert sum(map(len, splits)) == len(set.union(*splits)) == 14
        found = zip(pack.names, pack.groups, pack.domains, strict=True)
        assert sorted(found) == sorted((line.split(",")[0], *line.split(",")[2:]) for line in lines)


def test_a_second_open_reads_no_image(given, cache, spec):
    first = open_pack(config(given, cache), spec)
    for path in given.rglob("*.png"):
        status = path.stat()
        path.write_bytes(b"x" * status.st_size)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    second = open_pack(config(given, cache), spec)
    assert second.path == first.path
    assert np.array_equal(second.image(0), first.image(0))


def test_a_changed_file_makes_another_pack_while_a_touched_one_does_not(given, cache, spec, draw_image):
    first = open_pack(config(given, cache), spec)
    path = given / "train" / "cat" / "0.png"
    os.utime(path, ns=(1, 1))
    assert open_pack(config(given, cache), spec).path == first.path
    draw_image(path, number=99)
    changed = open_pack(config(given, cache), spec)
    assert changed.path != first.path
    assert changed.fingerprint != first.fingerprint


def test_a_pack_is_named_by_all_that_determines_its_bytes(loose, cache, spec):
    first = open_pack(config(loose, cache), spec)
    others = [
        open_pack(config(loose, cache), replace(spec, size=20)),
        open_pack(config(loose, cache), replace(spec, interpolation="bicubic")),
        open_pack(config(loose, cache, channels=1), spec),
        open_pack(config(loose, cache, split_seed=1), spec),
        open_pack(config(loose, cache, on_bad_image="skip"), spec),
    ]
    assert {pack.fingerprint for pack in others} == {first.fingerprint}
    assert len({first.path, *(pack.path for pack in others)}) == 6
    same = open_pack(config(loose, cache, workers=3, image_size=64), replace(spec, mean=(0.1, 0.1, 0.1)))
    assert same.path == first.path


def test_a_deleted_pack_is_built_again(given, cache, spec):
    first = open_pack(config(given, cache), spec)
    first.path.unlink()
    assert open_pack(config(given, cache), spec).path == first.path
    assert first.path.is_file()


def test_a_pickled_pack_maps_the_same_file(given, cache, spec):
    pack = open_pack(config(given, cache), spec)
    data = pickle.dumps(pack)
    assert len(data) < 500
    copy = pickle.loads(data)
    assert np.array_equal(copy.labels, pack.labels)
    assert np.array_equal(copy.image(3), pack.image(3))


def test_more_images_than_a_record_batch_keep_their_pixels(draw_folder, cache, spec):
    root = draw_folder({"cat": 100, "dog": 50})
    pack = open_pack(config(root, cache, channels=1), spec)
    assert pa.ipc.open_file(pa.memory_map(str(pack.path))).num_record_batches == 3
    for index in range(150):
        resized = Image.open(root / pack.names[index]).convert("L").resize((22, 18), Image.Resampling.BILINEAR)
        assert np.array_equal(pack.image(index)[..., 0], np.asarray(resized))


def test_five_channels_come_from_arrays(tmp_path, cache, spec):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 18, 18, 5), dtype=np.uint8)
    for number in range(6):
        path = tmp_path / "set" / ("a" if number < 3 else "b") / f"{number}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, pixels[number])
    pack = open_pack(config(tmp_path / "set", cache, channels=5), spec)
    for index, name in enumerate(pack.names):
        assert np.array_equal(pack.image(index), pixels[int(Path(name).stem)])
    with pytest.raises(
        UserError, match=r"6 images that cannot be decoded, such as .*array 18×18×5 of uint8, expected H×W×3"
    ):
        open_pack(config(tmp_path / "set", cache), spec)


@pytest.fixture
def damaged(loose):
    """`loose` with a truncated JPEG, a text and an empty file among the cats."""
    Image.open(loose / "cat" / "0.png").resize((200, 200)).save(loose / "cat" / "cut.jpg")
    data = (loose / "cat" / "cut.jpg").read_bytes()
    (loose / "cat" / "cut.jpg").write_bytes(data[: len(data) // 2])
    (loose / "cat" / "text.png").write_text("no image")
    (loose / "cat" / "empty.png").write_text("")
    return loose


def test_bad_images_end_with_their_names_and_leave_no_file(damaged, cache, spec):
    with pytest.raises(UserError) as caught:
        open_pack(config(damaged, cache), spec)
    message = str(caught.value)
    assert message.startswith("data.path: 3 images that cannot be decoded, such as ")
    assert all(repr(f"cat/{name}") in message for name in ("cut.jpg", "text.png", "empty.png"))
    assert "`data.on_bad_image: skip` leaves them out" in message
    assert "\n" not in message
    assert files(cache) == [".lock"]


def test_bad_images_are_named_and_left_out_where_that_is_asked_for(damaged, cache, spec):
    for _ in range(2):  # built, then mapped
        pack = open_pack(config(damaged, cache, on_bad_image="skip"), spec)
        assert sorted(pack.bad_images) == ["cat/cut.jpg", "cat/empty.png", "cat/text.png"]
        assert len(pack) == len(pack.labels) == len(pack.groups) == 40
        assert Counter(pack.labels.tolist()) == {0: 20, 1: 20}
        for index in range(40):
            resized = Image.open(damaged / pack.names[index]).resize((22, 18), Image.Resampling.BILINEAR)
            assert np.array_equal(pack.image(index), np.asarray(resized))


def test_many_bad_images_are_counted_while_three_are_named(loose, cache, spec):
    for number in range(9):
        (loose / "cat" / f"bad{number}.png").write_text(f"no image {number}")
    with pytest.raises(UserError) as caught:
        open_pack(config(loose, cache), spec)
    assert str(caught.value).startswith("data.path: 9 images that cannot be decoded, such as ")
    assert str(caught.value).count("bad") == 3 + 1  # three names, on_bad_image


def test_a_class_whose_only_image_of_a_split_is_bad_cannot_be_used(given, cache, spec):
    (given / "val" / "dog" / "0.png").write_text("no image")
    with pytest.raises(
        UserError, match=r"^data.path: class 'dog' has no image in val that can be used; take the bad images out"
    ):
        open_pack(config(given, cache, on_bad_image="skip"), spec)


def test_an_unreadable_file_is_a_bad_image(given, cache, spec):
    (given / "val" / "dog" / "1.png").symlink_to(given / "nowhere.png")
    with pytest.raises(UserError, match=r"1 image that cannot be decoded, such as 'val/dog/1.png'"):
        open_pack(config(given, cache), spec)
    assert open_pack(config(given, cache, on_bad_image="skip"), spec).bad_images == ("val/dog/1.png",)


def test_a_class_of_two_images_cannot_be_cut(draw_folder, cache, spec):
    with pytest.raises(
        UserError,
        match=r"^data.path: 1 class with too few images, at least 3 [^\n]*: 'dog' \(2 images\); `data.rare: drop`[^\n]*$",
    ):
        open_pack(config(draw_folder({"cat": 9, "dog": 2}), cache), spec)


@pytest.mark.slow
def test_two_processes_that_build_at_once_make_one_file(cache):
    first, second = open_elpv(cache), open_elpv(cache)
    paths = {first.communicate()[0], second.communicate()[0]}
    assert first.returncode == second.returncode == 0
    assert len(paths) == 1
    assert files(cache) == [".arrow", ".index", ".json", ".lock"]


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_and_the_next_one_is_whole(cache):
    builder = open_elpv(cache)
    deadline = time.monotonic() + 60
    while not list(Path(cache).glob("*.arrow.*.tmp")) and time.monotonic() < deadline:
        time.sleep(0.005)
    builder.send_signal(signal.SIGKILL)
    builder.wait()
    assert files(cache) == [".lock", ".tmp"]
    again = open_elpv(cache)
    path = again.communicate()[0].strip()
    assert files(cache) == [".arrow", ".index", ".json", ".lock"]
    assert pa.ipc.open_file(pa.memory_map(path)).read_all().num_rows == 2624


def test_a_full_disk_is_one_line_that_may_be_tried_again_and_leaves_no_file(loose, cache):
    code = (
        "import resource, signal, sys\n"
        "from trainable.config.trial import DataConfig\n"
        "from trainable.data.input_spec import InputSpec\n"
        "from trainable.data.pack import open_pack\n"
        "from trainable.errors import OutageError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "spec = InputSpec(size=64, mean=(), std=(), interpolation='bilinear', crop_share=0.875)\n"
        "try: open_pack(DataConfig(path=sys.argv[1], cache=sys.argv[2]), spec)\n"
        "except OutageError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(loose), cache], capture_output=True, text=True, cwd=ROOT)
    line = f"data.cache: cannot use {cache} (File too large); free space there, or name another folder\n"
    assert done.stdout == line, done.stderr
    assert files(cache) == [".lock"]


def test_the_cache_folder_is_the_one_named_else_the_systems(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder(DataConfig(cache="~/here")) == tmp_path / "here"
    assert cache_folder(DataConfig()) == tmp_path / ".cache" / "trainable"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder(DataConfig()) == Path("/xdg/trainable")


def test_a_pack_of_private_images_is_for_their_owner_alone(given, cache, spec):
    path = open_pack(config(given, cache), spec).path
    assert [entry.stat().st_mode & 0o077 for entry in (path, path.parent)] == [0, 0]


def open_as(config, spec, *, user):
    """What a process of this user says to a pack that is opened."""
    code = f"""
        import os, pickle, sys
        from trainable.data.pack import open_pack
        from trainable.errors import UserError
        config, spec = pickle.load(sys.stdin.buffer)
        os.setuid({user})
        try:
            open_pack(config, spec)
        except UserError as error:
            print(error)
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, input=pickle.dumps((config, spec)), capture_output=True, cwd=ROOT)
    return done.stdout.decode() + done.stderr.decode()


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
@pytest.mark.parametrize("is_there", [True, False])
def test_a_cache_that_cannot_be_written_to_is_one_line(given, spec, is_there):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        cache = Path(folder) / "cache"
        if is_there:
            cache.mkdir()
        shutil.copytree(given, Path(folder) / "images")
        line = open_as(config(Path(folder) / "images", str(cache)), spec, user=54321)
    assert line == f"data.cache: cannot use {cache} (Permission denied); name a folder that can be written to\n"
