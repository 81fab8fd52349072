import shlex

import pytest

from search.space.spec import SearchSpec, resume_command


@pytest.mark.parametrize("folder", ["my searches", "it's", "$HOME/searches", "a/b", "~/searches"])
@pytest.mark.parametrize("command", ["resume", "promote", "sync"])
def test_the_command_to_go_on_is_read_by_a_shell_as_it_is_meant(folder, command):
    spec = SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1, "folder": folder},
            "scheduler": {"min_epochs": 1, "max_epochs": 1},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )
    words = shlex.split(resume_command(spec, command=command))
    assert words == ["python", "-m", "search", command, "cells", "--folder", folder]
