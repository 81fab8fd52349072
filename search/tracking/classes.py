"""What a trial's best epoch makes of each class of the validation images, as tables that MLflow shows."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from search.ledger.notes import Scores
from search.report.classes import class_rows

STATE = "state.json"  # of a checkpoint, which also holds its results
CLASSES, CONFUSION = "classes.csv", "confusion.csv"


def class_files(checkpoint: Path) -> dict[str, str]:
    """Two tables by file name: recall, precision, F1 and count of each class, the worst recall first; the confusion, rows true.

    Nothing where the checkpoint does not tell them.
    """
    try:
        told = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))["results"]["evaluation"]
        scores = Scores(per_class=told["per_class"], confusion=told["confusion"])
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    rows = class_rows(scores)
    if not rows:
        return {}
    classes = list(scores.per_class)
    confusion = [[name, *counts] for name, counts in zip(classes, scores.confusion, strict=True)]
    return {
        CLASSES: _table(rows[0], (row.values() for row in rows)),
        CONFUSION: _table(["true, taken for", *classes], confusion),
    }


def _table(names: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows([_short(value) for value in row] for row in rows)
    return text.getvalue()


def _short(value: Any) -> Any:
    return f"{value:.4f}" if isinstance(value, float) else value
