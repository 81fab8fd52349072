import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from trainable.atomic import write_beside

WRITE_AND_WAIT = """
import sys
from pathlib import Path
from trainable.atomic import write_beside
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


def test_a_file_may_be_read_by_whom_any_new_file_may_be(tmp_path):
    (tmp_path / "new").touch()
    with write_beside(tmp_path / "page.html"):
        pass
    assert (tmp_path / "page.html").stat().st_mode == (tmp_path / "new").stat().st_mode
