"""A finished search with the study of its refits."""

import pytest

from search.ledger.refits import note_tested


def test_seeds_are_fresh_and_more_of_them_begin_with_the_same(make_search):
    few, many = make_search(seeds=2).fresh_seeds(), make_search(seeds=4).fresh_seeds()
    assert many[:2] == few
    assert len(set(many)) == 4
    assert set(make_search(seeds=4, seed=1).fresh_seeds()).isdisjoint(many)
    assert 0 not in many


def test_of_several_refits_with_a_seed_the_newest_counts(make_search, record):
    search = make_search({(2, 0): 0.9, (1, 0): 0.7})
    seed = search.fresh_seeds()[0]
    assert search.find_refit(2, seed=seed).number == 0
    again = record(search.refits, {"optimizer.lr": 3e-3, "seed": seed}, {"val/balanced_accuracy": 0.8})
    assert search.find_refit(2, seed=seed).number == again == 2
    with pytest.raises(StopIteration):
        search.find_refit(0, seed=seed)


def test_every_read_of_the_test_split_is_counted(make_search):
    search = make_search()
    assert search.num_test_reads == 1  # the search's own
    note_tested(search.refits, ["a", "b"])
    assert search.num_test_reads == 3
