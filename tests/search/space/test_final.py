import pytest

from search.space.final import finish_steps, makes_soup, num_turned
from search.space.spec import SearchSpec
from trainable.config.trial import AugmentConfig
from trainable.loader.symmetries import symmetries


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
    assert finish_steps(spec_of({"data.format": "elpv", "data.source": ["mono"], "data.target": "poly"})) == []


@pytest.mark.parametrize("flip", ["none", "horizontal", "both"])
@pytest.mark.parametrize("rotate", ["none", "quarter"])
def test_as_many_other_views_are_counted_as_there_are(flip, rotate):
    base = {"augment.flip": flip, "augment.rotate": rotate}
    assert num_turned(spec_of(base)) == len(symmetries(AugmentConfig(flip=flip, rotate=rotate))) - 1


def test_of_what_is_searched_the_most_views_are_counted():
    assert num_turned(spec_of(vary={"augment.flip": {"choice": ["both", "horizontal", "none"]}})) == 3
