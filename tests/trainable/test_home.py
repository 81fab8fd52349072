import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

import pytest

from trainable.home import ensure_home, expand_home, expand_words

NOBODY = 54321  # has no entry among the users


@pytest.fixture
def home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("~/images", "/home/me/images"),
        ("~", "/home/me"),
        ("sqlite:///~/runs.db", "sqlite:////home/me/runs.db"),
        ("--out=~/page.html", "--out=/home/me/page.html"),
        ("--uri=sqlite:///~/runs.db", "--uri=sqlite:////home/me/runs.db"),
        ("images/~old", "images/~old"),
        ("~nobody-of-this-name/images", "~nobody-of-this-name/images"),
        ("s3://bucket/~x", "s3://bucket/~x"),
        ("optimizer.lr=~", "optimizer.lr=~"),
    ],
)
def test_a_tilde_stands_for_the_home_where_a_path_begins(home, text, expanded):
    assert expand_home(text) == expanded


def test_every_word_of_a_command_is_expanded(home):
    assert expand_words(["run", "~/space.yaml", "--data=~/images"]) == [
        "run",
        "/home/me/space.yaml",
        "--data=/home/me/images",
    ]


def test_a_home_that_there_is_stays(home):
    ensure_home()
    assert os.environ["HOME"] == "/home/me"


@pytest.fixture
def temporary():
    """A folder for temporary files that another user reaches too, which pytest's own are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def home_of_nobody(temporary):
    """The home of a user that has none, after :func:`ensure_home` in a process of his."""
    code = f"""
        import os, tempfile
        from trainable.home import ensure_home
        os.setuid({NOBODY})
        os.environ.pop("HOME", None)
        ensure_home()
        print(os.environ["HOME"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    return Path(subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.strip())


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_user_without_a_home_gets_one_of_his_own_and_the_same_again(temporary):
    home = home_of_nobody(temporary)
    assert home_of_nobody(temporary) == home == temporary / f"home-of-{NOBODY}"
    assert home.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
def test_a_folder_that_somebody_else_laid_there_is_not_taken_for_his_home(temporary):
    laid = temporary / f"home-of-{NOBODY}"
    laid.mkdir(mode=0o777)
    home = home_of_nobody(temporary)
    assert home != laid
    assert home.stat().st_uid == NOBODY
