import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainable.atomic import make_private_folder, write_beside

WRITE_AND_WAIT = """
import sys
from pathlib import Path
from trainable.atomic import make_private_folder, write_beside
with write_beside(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    print("at work", flush=True)
    sys.stdin.read()
"""


def start_writer(path):
    """A process in the middle of a file, which it ends when its input does."""
    command = [sys.executable, "-c", WRITE_AND_WAIT, str(path)]
    writer = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "at work\n"
    return writer


def test_several_who_write_one_file_at_once_each_write_a_whole_one(tmp_path):
    path = tmp_path / "page.html"

    def write(number):
        content = f"{number}".encode() * 10_000
        with write_beside(path) as file:
            for start in range(0, len(content), 1000):
                file.write(content[start : start + 1000])
        return content

    with ThreadPoolExecutor(8) as pool:
        written = list(pool.map(write, range(200)))
    assert path.read_bytes() in written
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_of_two_writers_to_end_stays(tmp_path):
    path = tmp_path / "page.html"
    with write_beside(path) as first:
        first.write(b"first")
        with write_beside(path) as second:
            second.write(b"second")
        assert path.read_bytes() == b"second"
    assert path.read_bytes() == b"first"


def test_a_block_that_fails_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "page.html"
    path.write_bytes(b"old")

    def fail():
        with write_beside(path) as file:
            file.write(b"half")
            raise ValueError("no")

    with pytest.raises(ValueError, match="^no$"):
        fail()
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["page.html", "of [0-9] images.html"])
def test_what_a_killed_writer_left_is_deleted_by_the_next_and_what_is_at_work_is_not(tmp_path, name):
    path = tmp_path / name
    killed, at_work = start_writer(path), start_writer(path)
    killed.kill()
    killed.communicate()
    (tmp_path / f"{name}.tmp").touch()  # somebody else's
    assert len(list(tmp_path.iterdir())) == 3
    with write_beside(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert len(list(tmp_path.iterdir())) == 3  # the page, somebody else's file, that of the one at work
    at_work.communicate()
    assert path.read_bytes() == b"half"
    assert sorted(one.name for one in tmp_path.iterdir()) == [name, f"{name}.tmp"]


def test_a_file_may_be_read_by_whom_any_new_file_of_an_open_folder_may_be(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "new").touch()
    with write_beside(tmp_path / "page.html"):
        pass
    assert (tmp_path / "page.html").stat().st_mode == (tmp_path / "new").stat().st_mode


def test_a_file_of_a_private_folder_is_private_wherever_it_is_moved(tmp_path):
    folder = tmp_path / "searches" / "cells"
    make_private_folder(folder)
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder.parent)] == [0o700, 0o700]
    with write_beside(folder / "search.json"):
        pass
    assert stat.S_IMODE((folder / "search.json").stat().st_mode) == 0o600
    folder.chmod(0o750)
    make_private_folder(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750  # its owner's choice


def test_no_link_that_somebody_planted_is_written_through(tmp_path):
    victim, page = tmp_path / "victim", tmp_path / "page.html"
    victim.write_bytes(b"old")
    for name in ("page.html", "page.html.tmp", "page.html.0123abcd.tmp"):
        (tmp_path / name).symlink_to(victim)
    with write_beside(page) as file:
        file.write(b"new")
    assert victim.read_bytes() == b"old"
    assert page.read_bytes() == b"new"
    assert not page.is_symlink()


def test_a_pipe_that_somebody_planted_as_a_leftover_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "page.html.0123abcd.tmp")
    with write_beside(tmp_path / "page.html") as file:
        file.write(b"new")
    assert (tmp_path / "page.html").read_bytes() == b"new"
