import shlex
from pathlib import Path

import pytest

from search.ledger.notes import DataFacts
from search.ledger.trials import Trial
from search.space.spec import SearchSpec, resume_command
from search.tracking.projection import data_used, fixed_text, trial_params, trial_points


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
    assert words == ["python", "-m", "search", command, "cells", "--folder", str(Path(folder).expanduser())]


def test_a_password_that_an_old_search_keeps_goes_no_further(tmp_path):
    spec = SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1},
            "scheduler": {"min_epochs": 1, "max_epochs": 1},
            "base": {"data.path": "https://user:hunter2@host/cells?sig=hunter2"},
            "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
        }
    )
    data = data_used(spec, facts=DataFacts(fingerprint="f" * 32, fingerprints={"path": ["f" * 32]}))
    assert (data.source, data.name) == ("https://host/cells?sig=***", "cells?sig=***@ffffffff")
    trial = Trial(
        number=0,
        params={"optimizer.lr": 1e-3},
        state="RUNNING",
        epochs=(),
        target=1,
        origin="",
        attempts=0,
        reason=None,
        started=None,
        ended=None,
    )
    params = trial_params(trial, spec=spec)
    assert params == {"lr": "0.001", "log10_lr": "-3", "cfg.optimizer.lr": "0.001"}
    assert 'data.path: "https://host/cells?sig=***"\n' in fixed_text(spec)
    assert "hunter2" not in fixed_text(spec)


def test_what_a_network_takes_is_logged_once_at_step_0():
    taken = {"model/parameters": 11_181_642.0}
    trial = Trial(number=0, params={}, state="FAILED", epochs=(), target=1, origin="", measured=taken)
    (point,) = trial_points(trial, metric="val/accuracy", after=0)
    assert (point.name, point.value, point.step) == ("model/parameters", 11_181_600.0, 0)
    assert trial_points(trial, metric="val/accuracy", after=1) == []
