"""Classes on the test split: how many of each are right, how sure that is, and what is taken for what."""

import html
from collections.abc import Sequence
from typing import Any

from search.ledger.notes import Scores, TestScore
from search.report.html import html_cells, html_row, html_table
from trainable.statistics.comparison import wilson

CONFIDENCE = 0.95
PLAIN_ROWS = 30  # classes of a table that is open from the first
WORST = 10  # classes that are shown of more
MOST_PAIRS = 10  # of classes that are confused


def class_rows(scored: Scores) -> list[dict[str, Any]]:
    """Of every class recall and precision, each with Wilson's interval at 95 %, F1 and count, the worst recall first; plain data.

    Of a class without images, or that no image was taken for, the interval is from 0 to 1.
    """
    columns = list(zip(*scored.confusion, strict=True))
    rows = []
    for index, (name, scores) in enumerate(scored.per_class.items()):
        hits = scored.confusion[index][index]
        recall = wilson(hits, of=sum(scored.confusion[index]), confidence=CONFIDENCE)
        precision = wilson(hits, of=sum(columns[index]), confidence=CONFIDENCE)
        rows.append(
            {
                "class": name,
                "recall": scores["recall"],
                "recall_low": recall.low,
                "recall_high": recall.high,
                "precision": scores["precision"],
                "precision_low": precision.low,
                "precision_high": precision.high,
                "f1": scores["f1"],
                "count": int(scores["count"]),
            }
        )
    return sorted(rows, key=lambda row: (row["recall"], row["class"]))


def confused_pairs(test: TestScore) -> list[dict[str, Any]]:
    """The pairs of classes by how many images of the ``true`` one were ``taken`` for the other, most first; plain data."""
    classes = list(test.per_class)
    pairs = [
        {"true": true, "taken": taken, "images": count, "of": sum(row)}
        for true, row in zip(classes, test.confusion, strict=True)
        for taken, count in zip(classes, row, strict=True)
        if count and taken != true
    ]
    return sorted(pairs, key=lambda pair: (-pair["images"], -pair["images"] / pair["of"], pair["true"], pair["taken"]))


def classes_html(test: TestScore | None) -> str:
    """Both as tables; nothing before there is a test score."""
    if test is None or not test.confusion:
        return ""
    rows = [
        html_cells(
            [
                html.escape(row["class"]),
                str(row["count"]),
                *(_measured(row, key) for key in ("recall", "precision")),
                f"{row['f1']:.3f}",
            ]
        )
        for row in class_rows(test)
    ]
    table = folded_table(rows, heads=("class", "images", "recall, 95 %", "precision, 95 %", "F1"))
    return table + _pairs_html(confused_pairs(test))


def folded_table(rows: Sequence[str], *, heads: Sequence[str]) -> str:
    """A table of classes in HTML, the worst recall first; of many the worst, and all of them by a click."""
    table = html_table(rows, heads=heads)
    if len(rows) <= PLAIN_ROWS:
        return table
    worst = html_table(rows[:WORST], heads=heads)
    return f"{worst}<details><summary>all {len(rows)} classes, the worst recall first</summary>{table}</details>"


def range_html(value: float, *, low: float, high: float) -> str:
    """A share of one with its bounds, drawn on a line from 0 to 1 and written beside it."""
    place = f"left: {100 * low:.1f}%; right: {100 * (1 - high):.1f}%"
    drawn = f'<span class="range"><i style="{place}"></i><b style="left: {100 * value:.1f}%"></b></span>'
    return f'{drawn} {value:.3f} <span class="soft">({low:.2f} to {high:.2f})</span>'


def _measured(row: dict[str, Any], key: str) -> str:
    return range_html(row[key], low=row[f"{key}_low"], high=row[f"{key}_high"])


def _pairs_html(pairs: Sequence[dict[str, Any]]) -> str:
    if not pairs:
        return ""
    rows = [
        html_row(
            [
                pair["true"],
                pair["taken"],
                str(pair["images"]),
                f"{100 * pair['images'] / pair['of']:.0f} % of {pair['of']}",
            ]
        )
        for pair in pairs[:MOST_PAIRS]
    ]
    more = f", {MOST_PAIRS} of {len(pairs)} pairs" if len(pairs) > MOST_PAIRS else ""
    table = html_table(rows, heads=("true class", "taken for", "images", "share"))
    return f"<h3>Most confused{more}</h3>{table}"
