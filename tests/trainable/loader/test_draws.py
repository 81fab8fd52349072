import numpy as np
import pytest

from trainable.loader.draws import Draws, draws_for

IDS = [3, 2**64 - 1, 17, 0]


def test_a_draw_follows_from_seed_sample_number_and_purpose_alone():
    together = draws_for(IDS, seed=5, number=2).uniform("crop", 3)
    for position in reversed(range(4)):
        alone = draws_for([IDS[position]], seed=5, number=2).uniform("crop", 6)
        assert alone[0, :3].tolist() == together[position].tolist()


@pytest.mark.parametrize("other", [{"seed": 6}, {"number": 3}, {"purpose": "flip"}, {"ids": [4, 5, 6, 7]}])
def test_another_seed_sample_number_or_purpose_draws_others(other):
    def drawn(*, ids=IDS, seed=5, number=2, purpose="crop"):
        return draws_for(ids, seed=seed, number=number).uniform(purpose, 3)

    assert not np.isin(drawn(), drawn(**other)).any()


def test_draws_are_the_same_on_every_machine():
    assert draws_for([1, 2], seed=0, number=1).uniform("crop", 2).tolist() == [
        [0.616550874171648, 0.32610650721549406],
        [0.3442982041871737, 0.010340357334236105],
    ]


def test_draws_are_spread_evenly_and_know_nothing_of_each_other():
    numbers = draws_for(range(20_000), seed=0, number=1).uniform("crop", 4)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    shares = np.histogram(numbers, bins=10, range=(0, 1))[0] / numbers.size
    assert shares == pytest.approx([0.1] * 10, abs=0.004)  # 4 standard deviations of 80,000
    lines = np.concatenate([numbers, np.roll(numbers, 1, axis=0)], axis=1)  # of an image, and of the one before
    between = np.corrcoef(lines, rowvar=False) - np.eye(8)
    assert np.abs(between).max() < 0.03


def test_chances_and_whole_numbers_are_as_often_as_they_say():
    draws = draws_for(range(20_000), seed=1, number=4)
    assert draws.chance("erasing", 0.25).mean() == pytest.approx(0.25, abs=0.015)
    assert np.bincount(draws.below("turn", 4)[:, 0]) / 20_000 == pytest.approx([0.25] * 4, abs=0.015)
    assert not draws.chance("erasing", 0.0).any()
    assert draws.chance("erasing", 1.0).all()
    assert len(draws) == 20_000
    assert isinstance(draws, Draws)
