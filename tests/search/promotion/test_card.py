"""The card of a candidate."""

from dataclasses import replace

import pytest

from search.promotion.card import card
from trainable.statistics.comparison import Interval
from trainable.statistics.conformal import Covered


def test_it_says_what_it_is_made_of_and_how_good_it_is(promotion):
    text = card(promotion.candidate, evidence=promotion.evidence)
    assert text.startswith("# cells\n\n## Intended use")
    assert "| class | train | val | test |\n| --- | --- | --- | --- |\n| crack | 6 | 2 | 3 |" in text
    assert "Fingerprint `ffff`." in text
    assert "On 100 test images" in text
    assert "have read them 4 times" in text
    assert "Intervals at 95% confidence" in text
    assert "| balanced_accuracy | 0.9000 | 0.8500 to 0.9500 |" in text
    assert "| crack | 0.6000 | 0.3000 to 0.8000 | 0.5000 | 0.5450 | 10 |" in text
    assert "Expected calibration error 0.0800." in text
    assert "This is trial 2, seed 8." in text
    assert "| trial 2 | 0.8000 | 0.7000, 0.9000 |" in text
    assert "trial 1" not in text  # it is out
    assert "images of 3 channels, the shorter side brought to 36 pixels (bilinear), of which the 32×32 centre" in text


def test_it_says_when_the_model_is_unsure_and_what_that_is_worth(promotion):
    assert "unsure" not in card(promotion.candidate, evidence=promotion.evidence)
    promotion.candidate.model.description["unsure"] = {"coverage": 0.9, "least_probability": 0.25, "num_images": 40}
    found = Covered(
        coverage=Interval(0.92, 0.85, 0.96),
        sure=Interval(0.7, 0.6, 0.78),
        accuracy_when_sure=Interval(0.97, 0.9, 0.99),
        mean_size=1.3,
    )
    text = card(promotion.candidate, evidence=replace(promotion.evidence, unsure=found))
    assert "from a probability of 0.2500 on, fitted to 40 validation images" in text
    assert "the plausible classes, 1.30 on average, hold the right one of 92.0% (85.0% to 96.0%)" in text
    assert "it is sure of 70.0% (60.0% to 78.0%) and right in 97.0% (90.0% to 99.0%)" in text


@pytest.mark.parametrize(("oracle", "of"), [(False, "source"), (True, "target")])
def test_of_an_adapted_network_it_says_whose_test_images_the_figures_are_of(promotion, oracle, of):
    data = promotion.candidate.model.description["config"]["data"]
    data |= {"target": "other", "oracle": oracle}
    text = card(promotion.candidate, evidence=promotion.evidence)
    assert f"Adapted to 'other'; the figures below are of test images of the {of}." in text


def test_the_name_of_a_class_is_neither_a_row_nor_a_link_nor_a_page(promotion):
    odd = "a|b\n## Head\r <img src=x onerror=alert(1)> [click](http://x) `c` \x1b[31m"
    description = promotion.candidate.model.description
    counts = {split: {odd: 1} for split in description["counts"]}
    description |= {"classes": [odd], "counts": counts}
    text = card(promotion.candidate, evidence=promotion.evidence)
    (row,) = [line for line in text.splitlines() if "Head" in line]
    assert row.startswith(r"| a\|b ## Head� \<img src=x onerror=alert(1)\> \[click\](http://x) \`c\` ")
    assert "\x1b" not in text
