"""What is said where there is no Ray to run a search on."""

import stat

import pytest

from search.tune.cluster import cluster
from trainable.errors import OutageError, UserError


@pytest.mark.parametrize("is_long", [True, False])
def test_a_local_ray_that_does_not_start_is_one_line_about_this_machine(tmp_path, monkeypatch, is_long):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 40) if is_long else tmp_path / "file" / "below"))
    with (
        pytest.raises(UserError, match=r"^Ray cannot be started on this machine; RAY_TMPDIR [^\n]* \([^\n]+\)$"),
        cluster(address=None),
    ):
        pass


def test_a_cluster_that_cannot_be_joined_is_one_line_about_its_address():
    with (
        pytest.raises(OutageError, match=r"^--address: cannot join Ray at 'nowhere:x' \([^\n]+\)$"),
        cluster(address="nowhere:x"),
    ):
        pass


@pytest.mark.parametrize("is_there", [True, False])
def test_nobody_else_reads_the_token_of_a_local_ray(tmp_path, monkeypatch, is_there):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 40)))
    if is_there:
        (tmp_path / ".ray").mkdir(mode=0o755)
    with pytest.raises(UserError, match="RAY_TMPDIR"), cluster(address=None):
        pass
    assert stat.S_IMODE((tmp_path / ".ray").stat().st_mode) == 0o700
