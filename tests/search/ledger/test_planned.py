import json

import pytest

from search.ledger.files import PLAN
from search.ledger.notes import Planned
from search.ledger.planned import keep_plan, kept_plan
from search.ledger.stored import SPEC_FILE
from search.space.spec import SearchSpec

PLANNED = Planned(epochs=8, least=40.0, most=160.0)


def spec_of(**sections):
    document = {
        "search": {"name": "cells", "trials": 9},
        "scheduler": {"max_epochs": 9},
        "base": {"data.path": "images"},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}},
    }
    return SearchSpec.model_validate(document | sections)


def test_a_plan_waits_for_its_search(tmp_path):
    folder = tmp_path / "searches" / "cells"
    assert kept_plan(spec_of(), folder=folder) is None
    keep_plan(PLANNED, spec=spec_of(), folder=folder)
    assert kept_plan(spec_of(), folder=folder) == PLANNED
    assert kept_plan(spec_of(tracking={"experiment": "another"}), folder=folder) == PLANNED


@pytest.mark.parametrize(
    "other",
    [
        {"search": {"name": "cells", "trials": 10}},
        {"search": {"name": "cells", "trials": 9, "budget": {"epochs": 40}}},
        {"base": {"data.path": "others"}},
        {"resources": {"concurrency": 4}},
        {"baselines": ["scratch"]},
    ],
)
def test_it_is_of_no_search_that_may_take_another_time(tmp_path, other):
    keep_plan(PLANNED, spec=spec_of(), folder=tmp_path)
    assert kept_plan(spec_of(**other), folder=tmp_path) is None


def test_a_plan_made_elsewhere_is_none_of_this_machine(tmp_path):
    keep_plan(PLANNED, spec=spec_of(), folder=tmp_path)
    document = json.loads((tmp_path / PLAN).read_text())
    (tmp_path / PLAN).write_text(json.dumps(document | {"host": "another"}))
    assert kept_plan(spec_of(), folder=tmp_path) is None


def test_a_search_that_has_begun_keeps_the_plan_from_before(tmp_path):
    keep_plan(PLANNED, spec=spec_of(), folder=tmp_path)
    (tmp_path / SPEC_FILE).touch()
    keep_plan(Planned(epochs=9, least=1.0, most=2.0), spec=spec_of(), folder=tmp_path)
    assert kept_plan(spec_of(), folder=tmp_path) == PLANNED


@pytest.mark.parametrize(
    "harm", [{"epochs": 0}, {"epochs": None}, {"least": "x"}, {"least": -1.0}, {"most": 1.0}, {"most": "9"}]
)
def test_a_damaged_plan_is_none(tmp_path, harm):
    keep_plan(PLANNED, spec=spec_of(), folder=tmp_path)
    document = json.loads((tmp_path / PLAN).read_text())
    (tmp_path / PLAN).write_text(json.dumps(document | {"planned": document["planned"] | harm}))
    assert kept_plan(spec_of(), folder=tmp_path) is None
    for text in ("[1", "[1]", "null", "{}"):
        (tmp_path / PLAN).write_text(text)
        assert kept_plan(spec_of(), folder=tmp_path) is None
