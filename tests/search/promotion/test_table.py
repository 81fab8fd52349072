"""A promotion on the terminal."""

import io
from dataclasses import replace

import pytest
from rich.console import Console

from search.promotion.table import print_promotion
from trainable.statistics.comparison import Interval, Paired


def printed(promotion):
    file = io.StringIO()
    print_promotion(promotion, console=Console(file=file, width=200))
    return file.getvalue()


NEXT = "`python -m search predict models:/cells@champion path/to/images` asks it"


def test_it_has_the_refits_the_numbers_and_every_check(promotion):
    lines = [line.rstrip() for line in printed(promotion).splitlines()]
    assert [line.split() for line in lines[:3]] == [
        ["refitted", "mean", "val/balanced_accuracy", "by", "seed"],
        ["trial", "2", "0.8000", "0.7000,", "0.9000"],
        ["trial", "1", "out", "refit", "2", "failed:", "diverged"],
    ]
    assert lines[3] == "candidate: trial 2, seed 8; package refits/packages/a/package"
    assert "test balanced_accuracy 0.9000 (0.8500 to 0.9500)" in lines
    assert "20.0 MB, 12.0 ms an image; this search and its promotions read the test split 4 times" in lines
    assert "yes  champion: there is no champion yet" in lines
    assert lines[-2:] == ["cells: version 3 is champion now", f"  next: {NEXT}"]


@pytest.mark.parametrize(
    ("changes", "last"),
    [
        ({"outcome": "refused"}, ["cells: version 3 is not promoted"]),
        ({"outcome": "dry run", "version": None}, ["cells: nothing was changed"]),
        ({"outcome": "unchanged"}, ["cells: version 3 is champion already"]),
        (
            {"champion": 2, "forced": True},
            [
                "cells: version 3 is champion now, forced",
                f"  next: {NEXT}",
                "  version 2 was; `python -m search rollback cells` goes back to it",
            ],
        ),
    ],
)
def test_what_came_of_it_is_the_last_line(promotion, changes, last):
    assert printed(replace(promotion, **changes)).splitlines()[-len(last) :] == last


def test_where_nothing_had_to_be_judged_there_are_no_numbers(promotion):
    assert "MB" not in printed(replace(promotion, outcome="unchanged", evidence=None))


def test_the_way_back_names_the_store_where_the_command_would_not_find_it(promotion):
    search = promotion.candidate.search
    tracking = search.spec.tracking.model_copy(update={"uri": "sqlite:///my store.db"})
    spec = search.spec.model_copy(update={"tracking": tracking})
    moved = replace(promotion.candidate, search=replace(search, spec=spec))
    last = printed(replace(promotion, champion=2, candidate=moved)).splitlines()[-1]
    assert "`python -m search rollback cells --uri 'sqlite:///my store.db'` goes back to it" in last


def test_beside_a_champion_the_verdict_is_a_sentence(promotion):
    paired = Paired(num_images=100, gain=Interval(0.04, 0.01, 0.07), only_first=6, only_second=2, p=0.29)
    judged = replace(promotion, evidence=replace(promotion.evidence, has_champion=True, paired=paired))
    # Each bound is one-sided at promote.confidence, 0.95.
    assert "verdict: better than the champion by 1.0 to 7.0 points (90 %, on the same 100 images)" in printed(judged)
    assert "verdict" not in printed(promotion)
