import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from trainable.data.decode import FORMATS
from trainable.data.readers.walk import HEIC_SUFFIXES, SUFFIXES, Walk, image_suffixes
from trainable.errors import UserError


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    return path


def names(root, walk):
    return [f"{folder}/{name}".removeprefix(f"{root}/") for folder, files in walk.images(str(root)) for name in files]


def test_suffixes_are_those_of_every_format_that_is_decoded():
    Image.init()
    of_formats = {suffix for suffix, name in Image.registered_extensions().items() if name in FORMATS}
    heic = set(HEIC_SUFFIXES) if "HEIF" in Image.OPEN else set()
    assert set(image_suffixes()) == of_formats | {".npy"} == set(SUFFIXES) | heic


@pytest.mark.parametrize(
    ("file", "reason"),
    [
        ("a/__MACOSX/._0.png", "__MACOSX"),
        ("a/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg", "@eaDir"),
        ("lost+found/0.png", "lost+found"),
        ("a/.ipynb_checkpoints/0.png", ".ipynb_checkpoints"),
        ("a/thumbnails/0.png", "thumbnails"),
        ("a/Thumbs/0.png", "thumbnails"),
        ("$RECYCLE.BIN/0.png", "$RECYCLE.BIN"),
        ("a/._0.png", "._*"),
        ("a/.0.png", "hidden"),
        ("a/.DS_Store", ".DS_Store"),
        ("a/Thumbs.db", "Thumbs.db"),
        ("a/notes.txt", ".txt"),
        ("a/README", "no suffix"),
    ],
)
def test_what_is_no_image_is_counted_by_its_reason(tmp_path, file, reason):
    touch(tmp_path / file)
    touch(tmp_path / "a" / "photo.JFIF")
    walk = Walk()
    assert names(tmp_path, walk) == ["a/photo.JFIF"]
    assert walk.tally.counts == {reason: 1}
    assert walk.tally.examples == {reason: str(tmp_path / file)}


def test_links_are_followed_once_whatever_loops_they_make(tmp_path):
    for name in ("a/0.png", "b/0.png"):
        touch(tmp_path / "root" / name)
    touch(tmp_path / "far" / "1.png")
    for link, target in (
        ("a/l1", "."),
        ("a/l2", "."),
        ("a/up", ".."),
        ("b/far", "../../far"),
        ("b/again", "../../far"),
    ):
        (tmp_path / "root" / link).symlink_to(target)
    walk = Walk()
    assert sorted(names(tmp_path / "root", walk)) == ["a/0.png", "b/0.png", "b/again/1.png"]
    assert not walk.tally.counts


def test_a_tree_may_be_deeper_than_calls_can_be(tmp_path):
    deepest = tmp_path / Path(*["a"] * 1100)
    subprocess.run(["mkdir", "-p", deepest], check=True)  # Python's own calls itself for each
    touch(deepest / "0.png")
    assert sum(len(files) for _, files in Walk().images(str(tmp_path))) == 1
    subprocess.run(["rm", "-r", tmp_path / "a"], check=True)


def test_a_pipe_is_no_image_and_a_link_to_nowhere_is_one_that_will_be_bad(tmp_path):
    touch(tmp_path / "0.png")
    os.mkfifo(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "3.png").symlink_to("3.png")
    walk = Walk()
    assert names(tmp_path, walk) == ["0.png", "2.png", "3.png"]
    assert walk.tally.counts == {"no regular file": 1}


def test_a_folder_that_may_not_be_listed_is_an_error_and_never_fewer_images(tmp_path):
    touch(tmp_path / "a" / "deep" / "0.png")
    (tmp_path / "a" / "deep").chmod(0o000)
    try:
        if os.getuid() != 0:
            with pytest.raises(UserError, match="may not be listed"):
                names(tmp_path, Walk())
            return
        code = (
            "import os, sys\n"
            "from trainable.data.readers.walk import Walk\n"
            "from trainable.errors import UserError\n"
            "os.setgid(54321); os.setuid(54321)\n"
            "try: list(Walk().images(sys.argv[1]))\n"
            "except UserError as error: print(error)\n"
        )
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(0o755)
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
        assert "deep' may not be listed (Permission denied)" in done.stdout, done.stderr
    finally:
        (tmp_path / "a" / "deep").chmod(0o755)


def test_a_reason_is_text_of_one_line_whatever_a_file_is_called(tmp_path):
    for name in (b"notes.\xff", b"notes.a\nb", b"notes.txt"):
        touch(tmp_path / os.fsdecode(name))
    walk = Walk()
    assert names(tmp_path, walk) == []
    assert dict(walk.tally.counts) == {r".\udcff": 1, r".a\nb": 1, ".txt": 1}
    (finding,) = walk.tally.finding(root=str(tmp_path))
    finding.line().encode()
    assert "\n" not in finding.line()
