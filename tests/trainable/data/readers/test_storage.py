"""What is asked of a file is the same on a disk and behind an address."""

import os
import socket

import fsspec
import pytest

from trainable.config.trial import DataConfig
from trainable.data.readers.read import read_source
from trainable.data.readers.storage import exists, file_in, file_state, files_below, is_folder, open_arrow
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


def test_a_file_of_which_no_change_could_be_told_is_refused(monkeypatch):
    memory = fsspec.filesystem("memory")
    monkeypatch.setattr(type(memory), "modified", fsspec.AbstractFileSystem.modified)
    with pytest.raises(UserError, match=r"^data.path: 'memory://[^\n]*; the files there have no date of change[^\n]*$"):
        file_state("memory://bucket/x")


@pytest.mark.parametrize(
    "address",
    [
        "http://127.0.0.1:{port}/latest/meta-data/x.parquet",
        "https://127.0.0.1:{port}/x.parquet",
        "ftp://127.0.0.1:{port}/x.parquet",
        "reference://x.parquet::http://127.0.0.1:{port}/refs.json",
        "simplecache::http://127.0.0.1:{port}/x.parquet",
        "s3://bucket/x.parquet::http://127.0.0.1:{port}/x",
        "HTTP://127.0.0.1:{port}/x.parquet",
        "github://a:b@main/x.parquet",
        "./x://y",
        "://y",
    ],
)
@pytest.mark.parametrize("ask", [exists, is_folder, files_below, file_state, open_arrow])
def test_an_address_that_is_no_store_of_files_is_never_asked(address, ask):
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        listening.settimeout(0.01)
        with pytest.raises(
            UserError, match=r"^data.path: [^\n]* is no address that is read; one begins with s3, gs, [^\n]*$"
        ):
            ask(address.format(port=listening.getsockname()[1]))
        with pytest.raises(TimeoutError):
            listening.accept()


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:hunter2@bucket/x.parquet",
        "s3://key:hunt/er2@bucket/x.parquet",
        "s3://bucket/x.parquet?X-Amz-Signature=hunter2",
        "abfs://box@account.dfs.core.windows.net/x?sig=hunter2",
    ],
)
@pytest.mark.parametrize("ask", [exists, is_folder, files_below, file_state, open_arrow])
def test_an_address_with_a_password_or_a_query_is_refused_without_saying_it(address, ask):
    with pytest.raises(UserError, match=r"^data.path: [^\n]* has a password or a query [^\n]*$") as caught:
        ask(address)
    assert "hunt" not in str(caught.value)
    assert "er2" not in str(caught.value)


def test_a_link_to_itself_and_a_name_no_disk_can_have_are_no_file(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_text("")
    for name in ("loop", "file/below.png", "a" * 300):
        assert file_state(str(tmp_path / name)) is None


@pytest.mark.parametrize("ask", [exists, files_below, file_state])
def test_a_store_that_fails_is_one_line(monkeypatch, ask):
    memory = fsspec.filesystem("memory")

    def refused(*_args, **_options):
        raise PermissionError("access denied\nby the bucket")

    for name in ("info", "find", "modified"):
        monkeypatch.setattr(type(memory), name, refused)
    with pytest.raises(UserError, match=r"^data.path: 'memory://bucket/x' cannot be reached \(access denied\)$"):
        ask("memory://bucket/x")


def test_a_shard_that_leads_nowhere_is_one_line(tmp_path):
    (tmp_path / "part-0.parquet").symlink_to("nowhere")
    with pytest.raises(UserError, match=r"^data.path: '[^\n]*' cannot be read \([^\n]*\)$"):
        read_source(DataConfig(path=str(tmp_path)))


def test_a_name_that_is_no_text_is_one_line(tmp_path, draw_folder):
    root = draw_folder({"a": 3, "b": 3})
    (root / "a/0.png").rename(root / "a" / os.fsdecode(b"caf\xe9.png"))
    with pytest.raises(UserError, match=r"^data.path: the name of image 'a/caf.*png' is no UTF-8; rename it$"):
        read_source(DataConfig(path=str(root)))
