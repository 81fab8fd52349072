import pytest

from search.space.final import NUM_SHARES, WEIGHED_METRICS, finish_steps, makes_soup, num_finish_passes, num_turned
from search.space.spec import SearchSpec
from trainable.config.trial import AugmentConfig
from trainable.loader.symmetries import symmetries
from trainable.statistics.class_weights import METRICS
from trainable.training.interpolation import SHARES

TARGET = {"data.format": "elpv", "data.source": ["mono"], "data.target": "poly"}


def spec_of(base=None, vary=None, **sections):
    document = {
        "search": {"name": "made", "trials": 2} | sections.pop("search", {}),
        "scheduler": {"max_epochs": 9},
        "base": base or {},
        "vary": {"optimizer.lr": {"log": [1e-4, 1e-1]}} | (vary or {}),
        **sections,
    }
    return SearchSpec.model_validate(document)


def test_a_soup_is_made_of_two_trials_or_more_where_one_metric_and_one_seed_decide():
    assert makes_soup(spec_of())
    assert not makes_soup(spec_of(soup=1))
    assert not makes_soup(spec_of(search={"confirm": 2}))
    assert not makes_soup(spec_of(search={"choose_by": ["val/loss"]}))


def test_a_candidate_is_finished_as_asked_but_not_for_another_domain():
    assert finish_steps(spec_of()) == ["calibration"]
    assert finish_steps(spec_of(finish=[])) == []
    assert finish_steps(spec_of(finish=["views"])) == ["views"]
    assert finish_steps(spec_of(finish=["class_weights"])) == ["class_weights"]
    assert finish_steps(spec_of(search={"metric": "val/loss"}, finish=["calibration", "class_weights"])) == [
        "calibration"
    ]
    assert finish_steps(spec_of(TARGET, finish=["interpolation", "views", "calibration"])) == ["calibration"]


def test_the_metrics_for_which_classes_can_be_weighed_are_those_that_the_weights_know():
    assert {f"val/{name}" for name in METRICS} == set(WEIGHED_METRICS)


def test_validation_images_are_looked_at_once_for_a_finish_and_once_for_each_interpolation():
    assert len(SHARES) == NUM_SHARES
    steps = {(): 0, ("calibration",): 1, ("views",): 1, ("interpolation", "views", "calibration"): 4}
    assert {each: num_finish_passes(spec_of(finish=list(each))) for each in steps} == steps


@pytest.mark.parametrize("flip", ["none", "horizontal", "both"])
@pytest.mark.parametrize("rotate", ["none", "quarter"])
def test_as_many_other_views_are_counted_as_there_are(flip, rotate):
    base = {"augment.flip": flip, "augment.rotate": rotate}
    assert num_turned(spec_of(base)) == len(symmetries(AugmentConfig(flip=flip, rotate=rotate))) - 1


def test_of_what_is_searched_the_most_views_are_counted():
    assert num_turned(spec_of(vary={"augment.flip": {"choice": ["both", "horizontal", "none"]}})) == 3
