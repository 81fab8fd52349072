"""The searches beside a refresh."""

from datetime import UTC, datetime

import pytest
from optuna.distributions import FloatDistribution

from search.ledger import ledger as ledgers
from search.ledger.ledger import NoSearchError
from search.ledger.refreshes import Record, space_identity
from search.ledger.stored import SPEC_FILE
from search.ledger.trials import mean_share
from search.refresh.earlier import EarlierSearches
from search.space.spec import SearchSpec

METRIC = "val/balanced_accuracy"


def make_spec(folder, *, low=1e-4):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 4, "folder": str(folder)},
            "scheduler": {"min_epochs": 1, "max_epochs": 2},
            "base": {"data.path": "images"},
            "vary": {"optimizer.lr": {"log": [low, 1e-1]}},
        }
    )


@pytest.fixture
def ledger(tmp_path):
    """The ledger of a search that is not finished, in its folder."""
    spec = make_spec(tmp_path)
    notes = {"metric": METRIC, "data": {"fingerprint": "f" * 32}}
    ledger = ledgers.create(
        tmp_path / "cells", name="cells", storage=None, space=spec.space, metric=METRIC, notes=notes
    )
    (tmp_path / "cells" / SPEC_FILE).write_text(spec.model_dump_json())
    return ledger


def start(ledger):
    distributions = {"optimizer.lr": FloatDistribution(1e-4, 1e-1, log=True)}
    return ledger.start(encoded={"optimizer.lr": 1e-3}, distributions=distributions, target=2, origin="random")


def make_record(spec, **values):
    fields = {"number": 1, "key": "0" * 16, "fingerprint": "f" * 32, "code": "1", "began": "2026-01-01T00:00:00+00:00"}
    return Record(identity=space_identity(spec), **(fields | values))


def test_a_search_that_is_opened_shows_what_is_written_later(tmp_path, ledger):
    searches = EarlierSearches(tmp_path)
    _, opened = searches.find("cells")
    assert opened.trials() == []
    assert searches.find_finished("cells") is None
    ledger.end(start(ledger), state="FAILED", reason="diverged")
    ledger.note(finished=True)
    assert len(opened.trials()) == 1
    assert searches.find_finished("cells") == searches.find("cells")


def test_a_search_that_is_not_there_is_looked_for_again(tmp_path, request):
    searches = EarlierSearches(tmp_path)
    assert searches.find("cells") is None
    with pytest.raises(NoSearchError, match="cells"):
        searches.open_anew("cells")
    request.getfixturevalue("ledger")
    assert searches.find("cells") is not None


def test_only_decided_trials_that_failed_are_hopeless(tmp_path, ledger):
    searches = EarlierSearches(tmp_path)
    assert not searches.has_only_failures("none")
    assert not searches.has_only_failures("cells")
    number = start(ledger)
    assert not searches.has_only_failures("cells")
    ledger.end(number, state="FAILED", reason="diverged")
    assert searches.has_only_failures("cells")


def test_a_search_is_of_a_refresh_by_space_and_images(tmp_path, ledger):
    searches = EarlierSearches(tmp_path)
    spec = make_spec(tmp_path)
    assert searches.is_of("cells", make_record(spec))
    assert not searches.is_of("cells", make_record(spec, fingerprint="0" * 32))
    assert not searches.is_of("cells", make_record(make_spec(tmp_path, low=1e-5)))
    assert not searches.is_of("none", make_record(spec))


def test_work_is_hours_by_when_trials_last_reported(tmp_path, ledger):
    number = start(ledger)
    start(ledger)  # nothing of it is reported yet
    ledger.record(number, epoch=1, metrics={METRIC: 0.5, "usage/seconds": 1800.0})
    before = datetime.now(UTC)
    ((moment, hours),) = EarlierSearches(tmp_path).work(["cells", "none", "cells"], weight=0.5)
    assert moment <= before
    assert hours == ledger.trial(number).seconds * 0.5 / 3600
    ledger.record(number, epoch=2, metrics={METRIC: 0.5, "usage/seconds": 1200.0, "usage/gpu_share": 0.25})
    ((_, hours),) = EarlierSearches(tmp_path).work(["cells"], weight=1.0)
    assert hours == (1800 + 1200 / 4) / 3600  # what shared a GPU by measurement took a quarter of it
    assert mean_share([ledger.trial(number)]) == (1800 + 1200 / 4) / 3000
