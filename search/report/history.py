"""The history of a model: its data versions, what was decided on each, its champions, their scores on every frozen test set."""

import html
from pathlib import Path
from typing import Any

from rich.table import Table

from search.ledger.refreshes import Record, Records
from search.report.html import html_row, html_table

SHOWN = 12  # characters of a fingerprint


def history(folder: Path) -> list[dict[str, Any]]:
    """Every refresh of the search in ``folder``, the oldest first; plain data."""
    return [_row(record) for record in Records(folder).all()]


def history_table(rows: list[dict[str, Any]]) -> Table:
    """One refresh a row, with the champion's score on the frozen test set of each data version."""
    table = Table(*_heads(rows), box=None, pad_edge=False)
    for cells in _cells(rows):
        table.add_row(*cells)
    return table


def history_html(rows: list[dict[str, Any]]) -> str:
    """Give the history as HTML, with the reasons; empty where there was no refresh."""
    if not rows:
        return ""
    table = html_table([html_row(cells) for cells in _cells(rows)], heads=_heads(rows))
    return table + "".join(_details(row) for row in rows)


def _row(record: Record) -> dict[str, Any]:
    return {
        "refresh": record.number,
        "began": record.began,
        "state": record.state,
        "fingerprint": record.fingerprint,
        "images": sum(record.classes.values()),
        "classes": dict(record.classes),
        "difference": record.difference_text,
        "decision": None if record.decision is None else record.decision["kind"],
        "reasons": [] if record.decision is None else list(record.decision["reasons"]),
        "way": [rung["kind"] for rung in record.rungs],
        "searches": list(record.searches),
        "promotions": [dict(promotion) for promotion in record.promotions],
        "champion": None if record.after is None else record.after.version,
        "scores": dict(record.scores),
    }


def _heads(rows: list[dict[str, Any]]) -> list[str]:
    tests = [f"test of {fingerprint[:SHOWN]}" for fingerprint in _versions(rows)]
    return ["refresh", "began", "data", "images", "decision", "searches", "champion", *tests]


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            str(row["refresh"]),
            row["began"][:16].replace("T", " "),
            row["fingerprint"][:SHOWN],
            str(row["images"]),
            row["decision"] or row["state"],
            ", ".join(row["searches"]) or "-",
            "-" if row["champion"] is None else f"version {row['champion']}",
            *(_score(row["scores"].get(fingerprint)) for fingerprint in _versions(rows)),
        ]
        for row in rows
    ]


def _versions(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["fingerprint"] for row in rows))


def _score(score: dict[str, Any] | None) -> str:
    if score is None or score["value"] is None:
        return "-"
    part = "" if score["num_images"] == score["of"] else f" of {score['of']}"
    return f"{score['value']:.4f} {score['metric']} ({score['num_images']}{part})"


def _details(row: dict[str, Any]) -> str:
    lines = [f"data: {row['difference'] or 'the first version'}", *row["reasons"]]
    lines += [
        f"{promotion['search']}: version {promotion['version']} {promotion['outcome']}: {promotion['reasons']}"
        for promotion in row["promotions"]
    ]
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f"<h3>Refresh {row['refresh']}: {html.escape(row['decision'] or row['state'])}</h3><ul>{items}</ul>"
