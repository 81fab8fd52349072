"""Classes on the test split, against the test score in a ledger."""

import re

import pytest

from search.ledger import notes
from search.report.classes import MOST_PAIRS, class_rows, classes_html, confused_pairs

# of 10 cats 8 are right, of 5 dogs all, of 4 birds none
CONFUSION = [[8, 1, 1], [0, 5, 0], [3, 1, 0]]
PER_CLASS = {
    "cat": {"recall": 0.8, "precision": 8 / 11, "f1": 0.762, "count": 10},
    "dog": {"recall": 1.0, "precision": 5 / 7, "f1": 0.833, "count": 5},
    "bird": {"recall": 0.0, "precision": 0.0, "f1": 0.0, "count": 4},
}
TEST = notes.TestScore(trial=3, per_class=PER_CLASS, confusion=CONFUSION)


def test_classes_have_their_scores_with_wilsons_intervals_the_worst_recall_first():
    rows = class_rows(TEST)
    assert [row["class"] for row in rows] == ["bird", "cat", "dog"]
    cat = rows[1]
    # Wilson 1927 by hand, z = 1.96: 8 of 10, and 8 of 11
    assert (cat["recall_low"], cat["recall_high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert (cat["precision_low"], cat["precision_high"]) == pytest.approx((0.4344, 0.9025), abs=1e-4)
    assert {key: cat[key] for key in ("recall", "precision", "f1", "count")} == PER_CLASS["cat"]
    assert (rows[0]["recall_low"], rows[0]["recall_high"]) == pytest.approx((0.0, 0.4899), abs=1e-4)


def test_pairs_are_ordered_by_their_images_then_by_their_share():
    pairs = [(pair["true"], pair["taken"], pair["images"], pair["of"]) for pair in confused_pairs(TEST)]
    assert pairs == [("bird", "cat", 3, 4), ("bird", "dog", 1, 4), ("cat", "bird", 1, 10), ("cat", "dog", 1, 10)]


def test_the_tables_show_both():
    text = classes_html(TEST)
    assert "<td>cat</td><td>10</td>" in text
    assert re.search(r'left: 80.0%.*0.800 <span class="soft">\(0.49 to 0.94\)', text)
    assert "<td>bird</td><td>cat</td><td>3</td><td>75 % of 4</td>" in text
    assert classes_html(None) == ""


def test_a_hundred_and_one_classes_are_folded_and_the_worst_pairs_shown():
    size = 101
    confusion = [
        [9 if row == column else int(column == (row + 1) % size) for column in range(size)] for row in range(size)
    ]
    scores = {"recall": 0.9, "precision": 0.9, "f1": 0.9, "count": 10}
    text = classes_html(
        notes.TestScore(trial=3, per_class={f"c{n:03}": scores for n in range(size)}, confusion=confusion)
    )
    assert "<details><summary>all 101 classes" in text
    assert f"Most confused, {MOST_PAIRS} of 101 pairs" in text
    assert text.count("10 % of 10") == MOST_PAIRS
