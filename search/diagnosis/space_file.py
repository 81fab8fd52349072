"""What a diagnosis advises, as the text of a space file."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.space.writing import document_lines, scalar, wrapped
from trainable.diagnosis.advice import Advice
from trainable.diagnosis.diagnose import Diagnosis

UPDATES_AN_EPOCH = 10  # fewer say little about a rate, and an epoch is what halving judges by


def space_text(advice: Advice, *, diagnosis: Diagnosis, base: Mapping[str, Any], path: Path) -> str:
    """A whole space file, headed by its purpose and reasons.

    ``base`` are the fixed values by dotted path that say which images and which backbone.
    """
    document = space_document(advice, diagnosis=diagnosis, base=base, name=path.stem)
    return "\n".join([*_header(advice, base=base, path=path), *document_lines(document)]) + "\n"


def space_document(
    advice: Advice, *, diagnosis: Diagnosis, base: Mapping[str, Any], name: str
) -> dict[str, dict[str, Any] | list[Any]]:
    """The contents of a space file called ``name``: what is advised, in 32 trials by halving."""
    fixed = {**base, **advice.fixed}
    fixed.setdefault("train.batch_size", _batch_size(diagnosis.num_training))
    ranges = {path: values for path, values in advice.ranges.items() if path not in fixed and _can_hold(values, fixed)}
    return {
        "search": {"name": name, "metric": "val/balanced_accuracy", "trials": 32, "seed": 0},
        "sampler": {"name": "tpe"},
        "scheduler": {"name": "asha", "mode": "promote", "min_epochs": 3, "max_epochs": 27, "reduction": 3},
        "resources": {"gpu": "auto", "cpu": 1},
        "baselines": list(advice.baselines),
        "base": fixed,
        "vary": ranges,
        "try_first": [dict(recipe) for recipe in advice.recipes],
    }


def _can_hold(values: Mapping[str, Any], fixed: Mapping[str, Any]) -> bool:
    """Whether the condition of a searched value is not ruled out by a fixed one."""
    return all(owner not in fixed or fixed[owner] == wanted for owner, wanted in values.get("when", {}).items())


def _header(advice: Advice, *, base: Mapping[str, Any], path: Path) -> list[str]:
    model = base.get("model.name")
    kind = f"a {advice.size} task, {advice.similarity} to what {scalar(model)} was pretrained on"
    lines = [
        f"# Fine-tune on {images_named(base)}: {kind}.",
        f"#   python -m search run {shlex.quote(str(path))}",
        "#",
        *wrapped("Cost", f"Unknown; `python -m search plan {shlex.quote(str(path))}` measures it on this machine."),
        *wrapped("Varies", "What a diagnosis of these images advises (`python -m search diagnose`):"),
    ]
    for reason in advice.reasons:
        lines += wrapped("", f"- {reason}")
    return lines


def images_named(base: Mapping[str, Any]) -> str:
    """What the fixed values say of the images, for people."""
    if base.get("data.format") == "elpv":
        return "the cells of elpv-dataset"
    return json.dumps(base["data.path"])


def _batch_size(num_images: int) -> int:
    """The largest of 32, 16 and 8 that gives an epoch some updates."""
    return next((size for size in (32, 16) if num_images >= UPDATES_AN_EPOCH * size), 8)
