"""What is asked of a file is the same on a disk and behind an address."""

import os
import zipfile

import pytest

from trainable.data.storage import exists, file_in, file_state, files_below, is_folder
from trainable.errors import UserError


@pytest.fixture
def folder(tmp_path):
    for name in ("a.txt", "b/c.txt", "b/d/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
        os.utime(tmp_path / name, ns=(0, 1_700_000_000_500_000_000))
    return tmp_path


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_a_folder_is_listed_with_the_states_of_its_files(folder, scheme):
    there = f"{scheme}{folder}"
    assert sorted(files_below(there)) == ["a.txt", "b/c.txt", "b/d/e.txt"]
    for name in files_below(there):
        state = file_state(file_in(there, name))
        assert state is not None
        assert state.size == len(name)
        assert abs(state.mtime_ns - 1_700_000_000_500_000_000) < 1000  # a date behind an address has microseconds
    assert file_state(file_in(there, "none")) is None
    assert [exists(file_in(there, name)) for name in ("a.txt", "b", "none")] == [True, True, False]
    assert [is_folder(file_in(there, name)) for name in ("a.txt", "b", "none")] == [False, True, False]


def test_a_file_of_which_no_change_could_be_told_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(UserError, match=r"^data.path: 'zip://[^\n]*; the files there have no date of change[^\n]*$"):
        file_state(f"zip://a.txt::file://{tmp_path / 'a.zip'}")
