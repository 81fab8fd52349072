"""What the tests of data share."""

import shutil

import pytest


@pytest.fixture
def copied_cells(tmp_path, cells):
    """Eight photographs of solar cells in two class folders that may be changed."""
    for number, cell in enumerate(cells[:8]):
        folder = tmp_path / "cells" / ("cracked" if number % 2 else "whole")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(cell, folder / cell.name)
    return tmp_path / "cells"
