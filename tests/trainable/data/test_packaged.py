"""Where the files of a packaged model lie."""

import pytest

from trainable.data.packaged import DESCRIPTION, PACKAGE, WEIGHTS, find_package
from trainable.errors import UserError
from trainable.serving import classifier


def test_a_package_is_the_folder_or_lies_in_that_of_a_registered_model(tmp_path):
    with pytest.raises(UserError, match=f"distill.teachers: {tmp_path} is no packaged model, it has no model.json"):
        find_package(tmp_path, field="distill.teachers")
    (tmp_path / PACKAGE).mkdir(parents=True)
    (tmp_path / PACKAGE / DESCRIPTION).write_text("{}")
    assert find_package(tmp_path, field="distill.teachers") == tmp_path / PACKAGE
    assert find_package(tmp_path / PACKAGE, field="distill.teachers") == tmp_path / PACKAGE


def test_a_packaged_network_which_imports_nothing_of_the_project_calls_its_files_the_same():
    assert (classifier.DESCRIPTION, classifier.WEIGHTS) == (DESCRIPTION, WEIGHTS)
