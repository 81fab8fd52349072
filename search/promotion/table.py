"""A promotion on the terminal."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from search.promotion.promote import Promotion, confirmed_rows

OUTCOMES = {
    "promoted": "version {version} is champion now",
    "refused": "version {version} is not promoted",
    "unchanged": "version {version} is champion already",
    "dry run": "nothing was changed",
}


def print_promotion(found: Promotion, *, metric: str, console: Console) -> None:
    """The refits, the gate's checks, what came of it."""
    table = Table("refitted", f"mean {metric}", "by seed", box=None, pad_edge=False)
    for row in confirmed_rows(found, metric=metric):
        mean = "out" if row["mean"] is None else f"{row['mean']:.4f}"
        table.add_row(
            row["recipe"], mean, escape(row["why_not"]) or ", ".join(f"{one:.4f}" for one in row["values"].values())
        )
    console.print(table)
    candidate = found.candidate
    lines = [f"candidate: {candidate.model.recipe.said}, seed {candidate.model.seed}; package {candidate.package}"]
    if found.numbers:
        lines += [
            f"test {name} {one['value']:.4f} ({one['low']:.4f} to {one['high']:.4f})"
            for name, one in found.numbers["test"]["metrics"].items()
        ]
        size = f"{found.numbers['size_mb']:.1f} MB, {found.numbers['latency_ms']:.1f} ms an image"
        lines.append(f"{size}; this search and its promotions read the test split {candidate.reads} times")
    lines += [f"{'yes' if check.passed else 'NO '}  {check.name}: {check.said}" for check in found.verdict.checks]
    forced = ", forced" if found.forced else ""
    lines.append(f"{found.name}: {OUTCOMES[found.outcome].format(version=found.version)}{forced}")
    if found.outcome == "promoted" and found.champion is not None:
        lines.append(f"  version {found.champion} was; `python -m search rollback {found.name}` goes back to it")
    for line in lines:
        console.print(line, highlight=False, markup=False)
