"""Where the files of a packaged model lie."""

import pytest

from trainable.data.packaged import DESCRIPTION, WITHIN, find_package
from trainable.errors import UserError


def test_a_package_is_the_folder_or_lies_in_that_of_a_registered_model(tmp_path):
    with pytest.raises(UserError, match=f"distill.teachers: {tmp_path} is no packaged model, it has no model.json"):
        find_package(tmp_path, field="distill.teachers")
    (tmp_path / WITHIN).mkdir(parents=True)
    (tmp_path / WITHIN / DESCRIPTION).write_text("{}")
    assert find_package(tmp_path, field="distill.teachers") == tmp_path / WITHIN
    assert find_package(tmp_path / WITHIN, field="distill.teachers") == tmp_path / WITHIN
