import pytest

from search.engine.listeners import Listener, Outcome
from search.ledger.ledger import LedgerFailsError, NoSearchError
from search.ledger.refits import existing_refits
from search.ledger.stored import SPEC_FILE
from search.run.search import PREPARED, _end, _looked_at_first, run_search
from search.run.search import _variants as variants
from search.space.spec import SearchSpec
from trainable.config.trial import TrialConfig
from trainable.errors import UserError

BACKBONES = ["resnet10t", "resnet18", "resnet26"]


def make_spec(vary, **data):
    return SearchSpec.model_validate(
        {
            "search": {"name": "cells", "trials": 1},
            "scheduler": {"min_epochs": 1, "max_epochs": 9},
            "base": {"data": {"path": "images"} | data, "model": {"weights": "random"}},
            "vary": {"model.name": {"choice": BACKBONES}, **vary},
        }
    )


@pytest.mark.parametrize(
    ("path", "values"),
    [
        ("data.class_sampling", {"choice": ["shuffle", "balanced", "sqrt"]}),
        ("data.rehearsal_share", {"uniform": [0.1, 2.0]}),
        ("data.prefix_gb", {"choice": [0.0, 1.0]}),
        ("data.workers", {"int": [0, 4]}),
    ],
)
def test_what_has_no_say_in_images_or_networks_is_prepared_once(path, values):
    found = variants(make_spec({path: values}, rehearsal="old"), among=PREPARED)
    assert [one["model"]["name"] for one in found] == BACKBONES
    assert all(TrialConfig.model_validate(one) for one in found)


def test_every_image_size_is_prepared_with_every_backbone():
    found = variants(
        make_spec({"data.image_size": {"choice": [32, 64]}, "data.class_sampling": {"choice": ["shuffle", "sqrt"]}}),
        among=PREPARED,
    )
    pairs = {(one["model"]["name"], one["data"]["image_size"]) for one in found}
    assert pairs == {(name, size) for name in BACKBONES for size in (32, 64)}
    assert len(found) == 6


def test_every_folder_of_unlabelled_images_is_prepared():
    document = make_spec({}).model_dump()
    document["base"] |= {"distill.teachers": ["a model"]}
    document["vary"] |= {
        "distill.unlabelled": {"choice": ["wild", "tame"]},
        "distill.unlabelled_share": {"uniform": [0.1, 0.9]},
    }
    found = variants(SearchSpec.model_validate(document), among=PREPARED)
    assert len(found) == 2 * len(BACKBONES)
    assert {one["distill"]["unlabelled"] for one in found} == {"wild", "tame"}


def test_of_backbones_that_are_chosen_among_only_the_images_are_prepared_first():
    document = make_spec({"data.image_size": {"choice": [32, 64]}}).model_dump()
    document["base"]["model.weights"] = "pretrained"
    found = _looked_at_first(SearchSpec.model_validate(document | {"select_backbones": {"keep": 1}}))
    assert [one["data"]["image_size"] for one in found] == [32, 64]
    assert {one["model"]["weights"] for one in found} == {"random"}
    assert len(_looked_at_first(SearchSpec.model_validate(document))) == 6


def begun(folder, *, seed=0):
    """A search whose database does not answer, or has no driver here."""
    storage = "postgresql+psycopg://user@127.0.0.1:1/none"
    search = {"name": "cells", "trials": 1, "seed": seed, "folder": str(folder), "storage": storage}
    document = make_spec({}).model_dump()
    return SearchSpec.model_validate(document | {"search": document["search"] | search})


def test_a_search_whose_database_does_not_answer_is_not_begun_anew(tmp_path):
    spec = begun(tmp_path)
    file = tmp_path / "cells" / SPEC_FILE
    file.parent.mkdir()
    file.write_text(spec.model_dump_json())
    before = file.read_bytes()
    with pytest.raises((LedgerFailsError, UserError), match=r"^search\.storage: cannot open the database") as refused:
        run_search(begun(tmp_path, seed=9), address=None, listeners=[])
    assert not isinstance(refused.value, NoSearchError)
    assert file.read_bytes() == before


def test_refits_whose_database_does_not_answer_are_not_taken_for_none(tmp_path):
    with pytest.raises((LedgerFailsError, UserError), match=r"^search\.storage: cannot open the database"):
        existing_refits(begun(tmp_path), folder=tmp_path / "cells")
    assert existing_refits(make_spec({}), folder=tmp_path / "cells") is None


class Hearer(Listener):
    """Notes that it heard of the end, and fails where it is to."""

    def __init__(self, name, *, heard, error=None):
        self._name, self._heard, self._error = name, heard, error

    def end(self, ledger, *, outcome):
        self._heard.append((self._name, outcome.status))
        if self._error is not None:
            raise self._error


def test_every_listener_hears_of_the_end_in_order_also_where_another_fails(tmp_path):
    heard = []
    listeners = [
        Hearer("time", heard=heard),
        Hearer("page", heard=heard, error=OSError("disk full")),
        Hearer("mlflow", heard=heard),
    ]
    with pytest.raises(OSError, match="disk full"):
        _end(listeners, None, outcome=Outcome("finished", "", tmp_path))
    assert heard == [(name, "finished") for name in ("time", "page", "mlflow")]
