"""The best configuration for a reader: what of it is not a default, and who chose that."""

import html
from typing import Any

from search.ledger.trials import Trial
from search.report.html import html_cells, html_table
from search.space.dimension import dimension_text
from search.space.paths import FIELDS, SET_BY_SEARCH, defaults, flatten
from search.space.spec import SearchSpec
from search.space.values import Value
from trainable.config.validation import as_text
from trainable.masking import masked_address

NOTHING = "–"  # what stands for a text without letters


def differences(trial: Trial, *, spec: SearchSpec) -> list[dict[str, Any]]:
    """The searched values of a trial, then its other values that differ from the defaults, each by path; plain data.

    ``searched`` is the range that a value was found in, None of one that was given; ``by`` says who gave it.
    """
    usual, config = defaults(), flatten(spec.config_of(trial))
    searched = set(trial.searched) if trial.is_searched else set()
    paths = sorted(path for path in config if path in searched or config[path] != usual.get(path))
    rows = [
        {
            "path": path,
            "value": config[path],
            "default": usual.get(path),
            "searched": dimension_text(spec.space.dimensions[path]) if path in searched else None,
            "by": _by(path, trial=trial),
        }
        for path in paths
    ]
    return sorted(rows, key=lambda row: row["searched"] is None)


def configuration_html(trial: Trial, *, spec: SearchSpec) -> str:
    """The differences as a table, and how many settings are as they always are."""
    rows = differences(trial, spec=spec)
    cells = [
        html_cells(
            [
                f"<code>{html.escape(row['path'])}</code>",
                f"<b>{_text(row['value'])}</b>",
                _text(row["default"]),
                "given by " + row["by"] if row["searched"] is None else f"searched: {html.escape(row['searched'])}",
            ]
        )
        for row in rows
    ]
    usual = len(FIELDS) - len({row["path"] for row in rows} & FIELDS.keys())
    table = html_table(cells, heads=("setting", f"trial {trial.number}", "default", "where from"))
    return f'{table}<p class="soft">The other {usual} settings have their defaults.</p>'


def _by(path: str, *, trial: Trial) -> str:
    if path in trial.overrides:
        return "the search, for this trial alone" if trial.is_searched else "the probe"
    return "the search" if path in SET_BY_SEARCH else "the space file"


def _text(value: Value) -> str:
    if isinstance(value, str):
        return html.escape(masked_address(value)) or NOTHING
    return html.escape(f"{value:.4g}" if isinstance(value, float) else as_text(value))
