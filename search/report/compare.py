"""Searches side by side: what they found, what it took, in what they differ."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from rich.table import Table

from search.ledger.stored import stored_spec
from search.report.report import report_data
from search.space.paths import defaults
from search.space.spec import difference


def compare_searches(folders: Sequence[Path]) -> dict[str, Any]:
    """Every search's report, the settings and the best values that are not the same in all, and what to beware of."""
    specs = [stored_spec(folder) for folder in folders]
    reports = [report_data(folder) for folder in folders]
    configs = [defaults() | report["best_config"] if report["best_config"] else {} for report in reports]
    paths = sorted({path for config in configs for path in config})
    return {
        "searches": reports,
        "settings": {
            f"{first.search.name} -> {second.search.name}": difference(first, second)
            for first, second in combinations(specs, 2)
        },
        "best_values": {
            path: [config.get(path) for config in configs]
            for path in paths
            if len({repr(config.get(path)) for config in configs}) > 1
        },
        "warnings": _warnings(reports),
    }


def comparison_table(comparison: dict[str, Any]) -> Table:
    """One column a search; its figures, then the values of its best configuration that are not the same in all."""
    reports = comparison["searches"]
    table = Table("", *(report["name"] for report in reports), box=None, pad_edge=False)
    for title, row in _figures(reports).items():
        table.add_row(title, *row)
    for path, values in comparison["best_values"].items():
        table.add_row(f"  {path}", *map(_text, values))
    return table


def comparison_lines(comparison: dict[str, Any]) -> list[str]:
    """Differences of the settings, and warnings, a line each."""
    lines = [f"{pair}: {line}" for pair, differences in comparison["settings"].items() for line in differences]
    return lines + [f"warning: {warning}" for warning in comparison["warnings"]]


def _figures(reports: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    figures = {
        "state": [report["state"] for report in reports],
        "data": [report["fingerprint"][:12] for report in reports],
        "metric": [report["metric"] for report in reports],
        "best value": [_text(report["best_value"]) for report in reports],
        "best trial": [_text(report["best_trial"]) for report in reports],
    }
    measured = [report["test"] or {} for report in reports]
    for name in dict.fromkeys(name for scores in measured for name in scores):
        figures[f"test/{name}"] = [_text(scores.get(name)) for scores in measured]
    baselines = [report["baseline_values"] for report in reports]
    for name in dict.fromkeys(name for values in baselines for name in values):
        figures[f"baseline {name}"] = [_text(values.get(name)) for values in baselines]
    figures["trials"] = [
        ", ".join(f"{count} {standing}" for standing, count in sorted(report["standings"].items()))
        for report in reports
    ]
    figures["epochs"] = [str(report["epochs"]) for report in reports]
    figures["trial-minutes"] = [f"{report['seconds'] / 60:.1f}" for report in reports]
    return figures


def _warnings(reports: Sequence[dict[str, Any]]) -> list[str]:
    warnings = []
    if len({report["fingerprint"] for report in reports}) > 1:
        warnings.append("the images are not the same, so neither validation nor test values can be compared")
    if len({report["metric"] for report in reports}) > 1:
        warnings.append("the metrics are not the same, so best values cannot be compared")
    warnings += [f"{report['name']} is not finished" for report in reports if report["state"] != "finished"]
    return warnings


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
