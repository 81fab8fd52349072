"""Which values a path can have in a search."""

import pytest

from search.space.offered import offered
from search.space.spec import SearchSpec

VARY = {
    "model.head": {"choice": ["linear", "mlp"]},
    "model.head_hidden": {"int": [8, 64], "when": {"model.head": "mlp"}},
    "optimizer.lr": {"log": [1e-4, 1e-1], "when": {"model.head": "linear"}},
}
SPEC = SearchSpec.model_validate(
    {
        "search": {"name": "made", "trials": 2},
        "scheduler": {"max_epochs": 9},
        "base": {"model.head_hidden": 16, "optimizer.lr": 0.1},
        "vary": VARY,
    }
)


@pytest.mark.parametrize(
    ("path", "given", "values"),
    [
        ("train.batch_size", "", [32]),
        ("model.head", "", ["linear", "mlp"]),
        ("model.head_hidden", "", [8, 64, 16]),  # and, where the head is linear, what is fixed
        ("model.head_hidden", "model.head_hidden", [8, 64]),
        ("model.head", "model.head_hidden", ["mlp"]),
        ("model.head_hidden", "optimizer.lr", [16]),  # never searched together
    ],
)
def test_a_path_has_its_searched_values_and_where_they_do_not_hold_the_fixed_one(path, given, values):
    assert offered(SPEC, path, given) == values
