"""What a search is held by, and what is said where its files cannot be read or written."""

import fcntl
import json
import os
import tempfile
from pathlib import Path

import pytest

from search.ledger.lease import HeldError, hold_lock, is_held, is_locked, lease
from search.ledger.refreshes import records_of
from search.space.spec import SearchSpec
from trainable.errors import UserError

NOBODY = 65534


@pytest.fixture
def foreign():
    """A folder with a lock in it that may be read, not written; the test does not run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder, before = Path(name), os.geteuid()
        (folder / "driver.lock").touch(mode=0o444)
        closed = folder / "closed" / "refresh"
        closed.mkdir(parents=True)
        closed.chmod(0)
        folder.chmod(0o555)
        if before == 0:
            os.seteuid(NOBODY)
        try:
            yield folder
        finally:
            os.seteuid(before)
            folder.chmod(0o755)
            closed.chmod(0o755)


def refused(what):
    return pytest.raises(UserError, match=rf"^search.folder: cannot {what} \((Permission denied|Is a|Not a)[^\n]*$")


def test_a_lock_that_may_not_be_written_is_one_line_and_may_be_looked_at(foreign):
    assert not is_held(foreign)
    with refused("write .*/driver.lock"), lease(foreign):
        pass
    with refused("write .*/new/driver.lock"), lease(foreign / "new"):
        pass


def test_a_lock_that_is_held_is_seen_by_somebody_who_may_only_read_it(foreign):
    with (foreign / "driver.lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert is_held(foreign)
    assert not is_held(foreign)


def test_two_who_look_do_not_take_each_other_for_a_holder(tmp_path):
    path = tmp_path / "some.lock"
    path.touch()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_locked(path)


def test_a_lock_that_is_a_folder_or_lies_below_a_file_is_one_line(tmp_path):
    (tmp_path / "driver.lock").mkdir()
    with refused("write .*/driver.lock"), lease(tmp_path):
        pass
    (tmp_path / "file").touch()
    with refused("write .*/file/deep/driver.lock"), lease(tmp_path / "file" / "deep"):
        pass
    with refused("read .*/file/driver.lock"):
        is_held(tmp_path / "file")


def test_a_lease_whose_holder_cannot_be_noted_is_given_back(tmp_path):
    (tmp_path / "driver.json").mkdir()
    with refused("write .*/driver.json"), lease(tmp_path):
        pass
    assert not is_held(tmp_path)


def test_a_second_holder_is_told_what_the_first_one_says(tmp_path):
    path = tmp_path / "deep" / "some.lock"
    with (
        hold_lock(path, refused=str),
        pytest.raises(HeldError, match="^taken$"),
        hold_lock(path, refused=lambda: "taken"),
    ):
        pass


def test_records_of_refreshes_that_may_not_be_read_are_one_line(foreign):
    def records(name):
        search = {"name": name, "trials": 1, "folder": str(foreign)}
        scheduler, vary = {"min_epochs": 1, "max_epochs": 1}, {"optimizer.lr": {"log": [1e-4, 1e-1]}}
        return records_of(SearchSpec.model_validate({"search": search, "scheduler": scheduler, "vary": vary}))

    assert records("never").all() == []
    with refused("read .*/closed/refresh"):
        records("closed")


def test_who_drives_a_search_is_written_through_no_link_and_for_its_owner_alone(tmp_path):
    folder, victim = tmp_path / "searches" / "cells", tmp_path / "victim"
    victim.write_text("old")
    with lease(folder):
        pass
    (folder / "driver.json").unlink()
    (folder / "driver.json").symlink_to(victim)
    with lease(folder):
        assert json.loads((folder / "driver.json").read_text())["pid"] == os.getpid()
    assert victim.read_text() == "old"
    assert [path.stat().st_mode & 0o077 for path in (folder, folder.parent, folder / "driver.json")] == [0, 0, 0]
