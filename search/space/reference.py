"""Every value of a trial and of a space file with its range, default and effect, from the fields themselves."""

import json
from collections.abc import Sequence

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.table import Table

from search.space.spec import SearchSpec
from trainable.config.trial import TrialConfig
from trainable.config.validation import allowed, leaf_fields

_HEAD = """# Configuration

Made by `python -m search fields --markdown`; a test compares the two.

A dotted path is the name of a value everywhere: in `base:` and `vary:` of a space file, in `--set`, in Optuna, in MLflow
(searched ones under `cfg.`, the others in `configuration.yaml` of the search's run) and in messages. Forms of a searched value:

| in `vary:` | draws |
|---|---|
| `{choice: [a, b]}` | one of the values; lists are allowed |
| `{uniform: [0.5, 1.0]}`, with `step: 0.1` | a number between the bounds |
| `{log: [1.0e-5, 1.0e-2]}` | a number between the bounds, even on a logarithmic scale |
| `{int: [16, 512]}`, with `step: 16` or `log: true` | a whole number |
| `when: {path: value}` or `when: {path: [a, b]}` beside any of them | only searched where the other path has that value |
| `prior: value` beside any of them, with `confidence: low`, `medium` or `high` | that value and those near it first, then any |

A prior says what is known beforehand to be good: `optimizer.lr: {log: [1.0e-5, 1.0e-2], prior: 1.0e-3, confidence: low}`.
A number is then looked for by a normal distribution around it on the scale of the range, whose standard deviation is 0.4 of the
range (`low`), 0.2 (`medium`, the default) or 0.1 (`high`), cut off at the bounds; a choice has 2, 4 or 8 times the chance of
each other one. After the recipes of `try_first` comes the point of all priors. Then half of what the sampler proposes is drawn
by them, and half as many with every 10 results, so that a wrong prior costs some trials and no more; what `freeze_thaw` expects
of a new configuration is weighed by how likely the priors make it, to the power of 10 over the number of results. A prior rules
nothing out, and may be changed when a search goes on.
"""


def fields(model: type[BaseModel]) -> list[dict[str, str]]:
    """Path, allowed values, default and description of each value of a settings model."""
    return [
        {"path": path, "takes": allowed(field), "default": _default(field), "effect": field.description or ""}
        for path, field in leaf_fields(model).items()
    ]


def page() -> str:
    """The reference as Markdown."""
    trial = _table(fields(TrialConfig))
    spec = _table(fields(SearchSpec))
    return f"{_HEAD}\n## A trial\n\n{trial}\n\n## A space file\n\n{spec}\n"


def rows_like(words: Sequence[str]) -> list[dict[str, str]]:
    """The values of a trial, then of a space file, whose path holds one of the words; all without words."""
    rows = fields(TrialConfig) + fields(SearchSpec)
    return [row for row in rows if not words or any(word in row["path"] for word in words)]


def rows_table(rows: list[dict[str, str]]) -> Table:
    """Values for a terminal."""
    table = Table("path", "takes", "default", "effect", box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row.values())
    return table


def _table(rows: list[dict[str, str]]) -> str:
    lines = [
        f"| `{row['path']}` | {_cell(row['takes'])} | {_cell(row['default'])} | {_cell(row['effect'])} |"
        for row in rows
    ]
    return "\n".join(["| path | takes | default | effect |", "|---|---|---|---|", *lines])


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    return "none" if value is None else f"`{json.dumps(value)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
