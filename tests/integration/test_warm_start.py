"""A search that begins with what another in the same folder found, through the command line."""

import pytest

from search.ledger.trials import leaders

pytestmark = pytest.mark.slow


def test_a_search_begins_with_the_best_of_the_one_before_says_so_and_goes_on_as_it_began(make_place):
    place = make_place()
    place.write_space()
    place.told("run", "space.yaml", "--trials", "4")
    best = leaders(place.ledger().trials(), metric="val/balanced_accuracy")[0]
    taken = f"takes trial {best.number} of cells"
    again = ("run", "space.yaml", "--name", "again", "--set", "search.warm_start=auto", "--set", "search.num_warm=1")
    planned = place.told("plan", "space.yaml", "--set", "search.warm_start=auto", "--set", "search.name=again")
    assert taken in planned
    result = place.succeed(*again, "--trials", "2")
    assert f"warm start: {taken}" in result.stderr
    first, second = place.ledger("again").trials()
    assert (first.origin, first.params) == ("warm_start", best.params)
    assert second.origin == "random"
    chosen = place.ledger("again").notes.warm_start
    assert chosen.whose == (f"trial {best.number} of cells",)
    more = place.succeed(*again, "--trials", "3")  # the earlier search is not looked at again
    assert "warm start: looked at" not in more.stderr
    assert place.ledger("again").notes.warm_start == chosen
    assert [trial.origin for trial in place.ledger("again").trials()][:2] == ["warm_start", "random"]
