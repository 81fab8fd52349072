"""Writes what a diagnosis advises as a space file."""

import json
import re
import shlex
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.space.paths import nest
from search.space.sections import NAME_PATTERN
from trainable.atomic import write_beside
from trainable.diagnosis.advice import Advice
from trainable.diagnosis.diagnose import Diagnosis
from trainable.errors import UserError

LINE = 124
PLAIN = re.compile(r"[A-Za-z_][\w./-]*(:[\w./-]+)?", re.ASCII)
RESERVED = {"null", "true", "false"}
UPDATES_AN_EPOCH = 10  # fewer say little about a rate, and an epoch is what halving judges by
NAME = re.compile(NAME_PATTERN)


def check_place(path: Path) -> None:
    """Raise UserError for a path that cannot be a space file's."""
    if path.suffix not in (".yaml", ".yml"):
        raise UserError(f"--out {path}: a space file ends in .yaml")
    if not NAME.fullmatch(path.stem):
        raise UserError(
            f"--out {path}: the search is called as its file: letters, digits, '.', '_', '-', no other first"
        )


def space_text(advice: Advice, *, diagnosis: Diagnosis, base: Mapping[str, Any], path: Path) -> str:
    """A whole space file, headed by its purpose and reasons.

    ``base`` are the fixed values by dotted path that say which images and which backbone.
    """
    fixed = {**base, **advice.fixed}
    fixed.setdefault("train.batch_size", _batch_size(diagnosis.num_training))
    ranges = {name: values for name, values in advice.ranges.items() if name not in fixed and _can_hold(values, fixed)}
    lines = [
        *_header(advice, base=base, path=path),
        f"search:    {{name: {_scalar(path.stem)}, metric: val/balanced_accuracy, trials: 32, seed: 0}}",
        "sampler:   {name: tpe}",
        "scheduler: {name: asha, mode: promote, min_epochs: 3, max_epochs: 27, reduction: 3}",
        "resources: {gpu: auto, cpu: 1}",
        f"baselines: {_flow(list(advice.baselines))}",
        "base:",
        *(f"  {section}: {_flow(values)}" for section, values in nest(fixed).items()),
        "vary:",
        *(f"  {name}: {_flow(values)}" for name, values in ranges.items()),
        "try_first:",
        *(f"  - {_flow(recipe)}" for recipe in advice.recipes),
    ]
    return "\n".join(lines) + "\n"


def write_space(text: str, *, path: Path) -> None:
    """Write a space file. Raises UserError where another one is there already."""
    if path.exists():
        if not path.is_file() or path.read_bytes() != text.encode():
            raise UserError(f"--out {path}: is there already, with other contents; give another name or move it away")
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_beside(path) as file:
        file.write(text.encode())


def _can_hold(values: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
    """Whether the condition of a searched value is not ruled out by a fixed one."""
    return all(owner not in fixed or fixed[owner] == wanted for owner, wanted in values.get("when", {}).items())


def _header(advice: Advice, *, base: Mapping[str, Any], path: Path) -> list[str]:
    model = base.get("model.name")
    kind = f"a {advice.size} task, {advice.similarity} to what {_scalar(model)} was pretrained on"
    lines = [
        f"# Fine-tune on {_data(base)}: {kind}.",
        f"#   python -m search run {shlex.quote(str(path))}",
        "#",
        *_wrapped("Cost", f"Unknown; `python -m search plan {shlex.quote(str(path))}` measures it on this machine."),
        *_wrapped("Varies", "What a diagnosis of these images advises (`python -m search diagnose`):"),
    ]
    for reason in advice.reasons:
        lines += _wrapped("", f"- {reason}")
    return lines


def _data(base: Mapping[str, Any]) -> str:
    if base.get("data.format") == "elpv":
        return "the cells of elpv-dataset"
    return json.dumps(base["data.path"])


def _wrapped(title: str, text: str) -> list[str]:
    head = f"# {title:<8} "
    hanging = "#          " + ("  " if not title else "")
    return textwrap.wrap(text, LINE, initial_indent=head, subsequent_indent=hanging, break_on_hyphens=False)


def _batch_size(num_images: int) -> int:
    """The largest of 32, 16 and 8 that gives an epoch some updates."""
    return next((size for size in (32, 16) if num_images >= UPDATES_AN_EPOCH * size), 8)


def _flow(value: Any) -> str:
    """YAML on one line."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    """A scalar that strict YAML reads back as itself; JSON's text is YAML's too."""
    if isinstance(value, str) and PLAIN.fullmatch(value) and value.lower() not in RESERVED:
        return value
    return json.dumps(value, ensure_ascii=False)
