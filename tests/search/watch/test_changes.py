import threading
import time
from pathlib import Path

import pytest

from search.watch.changes import can_follow, file_system, follow_changes

MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
nas:/export /data nfs4 rw 0 0
/dev/sdb1 /data/fast xfs rw 0 0
bucket /mnt/my\\040bucket fuse.s3fs rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/home/me", "ext4"),
        ("/data", "nfs4"),
        ("/data/images/a", "nfs4"),
        ("/data/fast/images", "xfs"),
        ("/database", "ext4"),
        ("/mnt/my bucket/x", "fuse.s3fs"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_the_nearest_mount(path, kind):
    assert file_system(Path(path), mounts=MOUNTS) == kind


def test_an_address_cannot_be_followed_and_a_folder_of_this_machine_can(tmp_path):
    assert not can_follow("s3://bucket/images")
    assert can_follow(str(tmp_path))


def test_what_is_followed_tells_of_changes_below_it_and_of_nothing_else(tmp_path):
    data, own, space = tmp_path / "data", tmp_path / "data" / "searches", tmp_path / "space.yaml"
    own.mkdir(parents=True)
    space.write_text("a")
    told = threading.Event()

    def happens(action, *, seconds=5.0):
        time.sleep(0.2)
        told.clear()
        action()
        return told.wait(seconds)

    def replace_space():
        (tmp_path / "beside").write_text("b")
        (tmp_path / "beside").replace(space)

    def replace_data():
        data.rename(tmp_path / "old")
        (tmp_path / "new" / "deep").mkdir(parents=True)
        (tmp_path / "new").rename(data)

    with follow_changes([data, space], ignored=[own], poll_seconds=300, changed=told.set):
        assert happens(lambda: (data / "1.png").write_bytes(b"1"))
        assert happens(lambda: (data / "1.png").unlink())
        assert happens(replace_space)
        assert happens(replace_space)
        assert not happens(lambda: (own / "record.json").write_bytes(b"1"), seconds=1.5)
        assert not happens(lambda: (tmp_path / "other.txt").write_bytes(b"1"), seconds=1.5)
        assert happens(replace_data)
        time.sleep(1.5)
        assert happens(lambda: (data / "deep" / "2.png").write_bytes(b"1"))


def test_a_link_and_the_file_that_it_leads_to_are_followed(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "there").mkdir()
    link, file, other = tmp_path / "here" / "space.yaml", tmp_path / "there" / "v1.yaml", tmp_path / "there" / "v2.yaml"
    file.write_text("a")
    other.write_text("a")
    link.symlink_to(file)
    told = threading.Event()

    def happens(action):
        time.sleep(0.2)
        told.clear()
        action()
        return told.wait(5)

    def lead_elsewhere():
        (tmp_path / "new").symlink_to(other)
        (tmp_path / "new").replace(link)

    with follow_changes([link], ignored=[], poll_seconds=300, changed=told.set):
        assert happens(lambda: file.write_text("b"))
        assert happens(lead_elsewhere)
        time.sleep(1.5)
        assert happens(lambda: other.write_text("b"))
