"""What is refused before anything is trained for a promotion."""

import pytest

from search.promotion.checks import check_floors, check_judgeable, check_model_name, check_ready
from search.space.loading import load
from trainable.errors import UserError


def test_what_no_labelled_image_can_judge_is_not_trained_again(make_spec, ledger, tmp_path):
    make_spec()
    text = (tmp_path / "space.yaml").read_text()
    adapted = text.replace("data: {path: images}", "data: {path: images, target: others}, adapt: {method: adabn}")
    (tmp_path / "space.yaml").write_text(adapted)
    with pytest.raises(UserError, match="trial 2 takes its batch norms from the target .adapt.method: adabn."):
        check_judgeable(load("space.yaml"), ledger)
    (tmp_path / "space.yaml").write_text(adapted.replace("target: others", "target: others, oracle: true"))
    check_judgeable(load("space.yaml"), ledger)
    (tmp_path / "space.yaml").write_text(adapted.replace("adabn", "mmd"))
    check_judgeable(load("space.yaml"), ledger)


def test_a_search_that_is_not_finished_is_not_promoted(make_spec, ledger):
    with pytest.raises(UserError, match="cells: is not finished; `python -m search resume cells` goes on with it"):
        check_ready(make_spec(), ledger)


def test_a_floor_for_a_class_that_there_is_not_names_the_nearest(make_spec):
    spec = make_spec()
    floors = spec.promote.model_copy(update={"min_recall": {"crack": 0.5, "fin": 0.5}})
    with pytest.raises(UserError, match="promote.min_recall.fin: there is no such class; did you mean 'fine'"):
        check_floors(spec.model_copy(update={"promote": floors}), classes=["crack", "fine"])
    check_floors(spec, classes=["crack", "fine"])


def test_an_experiment_may_be_called_what_a_model_may_not(make_spec):
    spec = make_spec()
    check_model_name(spec)
    tracking = spec.tracking.model_copy(update={"experiment": "solar cells"})
    with pytest.raises(
        UserError, match="promote.model: missing, and 'solar cells' .tracking.experiment. can be no model"
    ):
        check_model_name(spec.model_copy(update={"tracking": tracking}))
