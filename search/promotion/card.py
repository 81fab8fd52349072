"""The card that goes with a registered model: what it is, what it was made of, how good it is, what it is for."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from search.ledger.notes import SCORES_OF_FINISH
from search.promotion.candidate import Candidate
from search.promotion.gate import Evidence
from search.space.spec import ORACLE
from trainable.statistics.comparison import Interval
from trainable.terminal import plain

INTENDED_USE = """Tells the classes below apart in images like those it was trained on, and gives each a score. Every image is
given one of these classes, also one that shows none of them. The figures below hold for images drawn as the test split was,
not for another camera, place or time; look at them again before it decides about anything alone."""


def card(candidate: Candidate, *, evidence: Evidence) -> str:
    """Describe a candidate in Markdown."""
    spec, description = candidate.search.spec, candidate.model.description
    quality = _quality(evidence, confidence=spec.promote.confidence, num_test_reads=candidate.num_test_reads)
    sections = [
        f"# {spec.model_name}",
        *([f"**{ORACLE}**"] if spec.base.get("data.oracle") else []),
        f"## Intended use\n\n{INTENDED_USE}",
        f"## Data\n\n{_data(description)}",
        f"## Quality\n\n{quality}",
        f"## How it was found\n\n{_origin(candidate)}",
        f"## Network\n\n{_network(description)}",
        f"## Finish\n\n{_finish(description)}",
        *([f"## When it is unsure\n\n{_unsure(description, evidence=evidence)}"] if evidence.unsure else []),
    ]
    return "\n\n".join(sections) + "\n"


def _data(description: Mapping[str, Any]) -> str:
    splits = description["counts"]
    rows = [[name, *(str(counts[name]) for counts in splits.values())] for name in description["classes"]]
    data = description["config"]["data"]
    words = f"Fingerprint `{description['fingerprint']}`."
    if data["target"] is not None:
        of = "target" if data["oracle"] else "source"
        words += f" Adapted to {_cell(repr(data['target']))}; the figures below are of test images of the {of}."
    return f"{words}\n\n{_table(['class', *splits], rows)}"


def _quality(evidence: Evidence, *, confidence: float, num_test_reads: int) -> str:
    test = evidence.test
    metrics = [
        [name, f"{score.value:.4f}", f"{score.low:.4f} to {score.high:.4f}"] for name, score in test.metrics.items()
    ]
    classes = [
        [
            name,
            f"{score['recall']:.4f}",
            f"{score['recall_low']:.4f} to {score['recall_high']:.4f}",
            f"{score['precision']:.4f}",
            f"{score['f1']:.4f}",
            str(score["count"]),
        ]
        for name, score in test.per_class.items()
    ]
    return "\n\n".join(
        [
            f"On {test.num_images} test images, which neither the search nor any training has seen; this search and its "
            f"promotions have read them {num_test_reads} times, each time for a final model. Intervals at {confidence:.0%} "
            "confidence, by bootstrap over images taken as independent, for recalls Wilson's; one without width says that no "
            "image was wrong, or none right.",
            _table(["metric", "value", "interval"], metrics),
            f"Expected calibration error {test.ece:.4f}.",
            _table(["class", "recall", "interval", "precision", "F1", "images"], classes),
        ]
    )


def _origin(candidate: Candidate) -> str:
    spec, metric = candidate.search.spec, candidate.search.metric
    rows = [
        [
            recipe.as_text,
            f"{recipe.mean(metric):.4f}",
            ", ".join(f"{model.metrics[metric]:.4f}" for model in recipe.models),
        ]
        for recipe in candidate.recipes
        if recipe.models
    ]
    chosen = f"the mean of {metric}"
    if spec.search.choose_by:
        chosen = f"the mean rank in {', '.join(spec.search.choose_by)}"
    return (
        f"By search `{spec.search.name}` (`{spec.content_hash()}`): its best recipes were trained again on fresh seeds and "
        f"chosen by {chosen}, among the seeds by {metric}. This is {candidate.recipe}, seed {candidate.seed}.\n\n"
        + _table(["recipe", f"mean {metric}", "by seed"], rows)
    )


def _network(description: Mapping[str, Any]) -> str:
    expected = description["input"]
    return (
        f"{description['architecture']}; images of {expected['channels']} channels, the shorter side brought to "
        f"{expected['stored_side']} pixels ({expected['interpolation']}), of which the {expected['size']}×{expected['size']} "
        "centre is looked at. Decoding and normalisation are part of the model."
    )


def _finish(description: Mapping[str, Any]) -> str:
    """What was done to the trained network, by validation images."""
    finish = description.get("finish", {"tried": []})
    scores = list(dict.fromkeys((*SCORES_OF_FINISH, *(tried["by"] for tried in finish["tried"]))))
    rows = [
        [
            tried["step"],
            "kept" if tried["kept"] else "left out",
            *(f"{tried['before'][name]:.4f} → {tried['after'][name]:.4f}" for name in scores),
        ]
        for tried in finish["tried"]
    ]
    if not rows:
        return "The network answers as it was trained."
    views, calibration = finish["views"], finish["calibration"]
    share = finish.get("interpolation", 1.0)
    weights = (
        f"Its weights are {share:g} times the trained ones, the rest those training began with. " if share < 1 else ""
    )
    given = [f"averaged over the image and {len(views)} flips and turns of it"] if views else []
    if calibration["tau"]:
        given.append(f"less {calibration['tau']:.3f} times the logarithm of each class's share of the training images")
    if calibration["temperature"] != 1:
        given.append(f"divided by {calibration['temperature']:.3f}")
    weighed = finish.get("class_weights", ())
    if weighed:
        named = sorted(zip(weighed, description["classes"], strict=True))
        (least, lightest), (most, heaviest) = named[0], named[-1]
        given.append(
            f"moved so that probabilities count between {least:.3g} ({lightest}) and {most:.3g} ({heaviest}) times, for the "
            "metric's sake, which calibrates them no longer"
        )
    said = f"Its logits are {', then '.join(given)}." if given or weights else "The network answers as it was trained."
    table = _table(["step", "", *scores], rows)
    of = " of the source, which tell nothing of how sure it may be of the target," if _adapts(description) else ""
    return f"{weights}{said} On validation images{of} that a step was not fitted to:\n\n{table}"


def _unsure(description: Mapping[str, Any], *, evidence: Evidence) -> str:
    """From when on it names a class, and what that is worth on test images."""
    found, asked = evidence.unsure, description["unsure"]
    assert found is not None, "it is asked only then"

    def share(interval: Interval) -> str:
        return f"{interval.value:.1%} ({interval.low:.1%} to {interval.high:.1%})"

    return (
        f"A class is plausible from a probability of {asked['least_probability']:.4f} on, fitted to {asked['num_images']} "
        f"validation images so that the plausible ones hold the right class of {asked['coverage']:.1%} of images. Where not just "
        f"one is plausible it answers that it is unsure. On the test images the plausible classes, {found.mean_size:.2f} on "
        f"average, hold the right one of {share(found.coverage)}; it is sure of {share(found.sure)} and right in "
        f"{share(found.accuracy_when_sure)} of these (Wilson's intervals). That is so for all classes together: a rare one may "
        "be left out more often, and images of another kind are not covered."
    )


def _adapts(description: Mapping[str, Any]) -> bool:
    return description["config"]["data"]["target"] is not None


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    """A text, the name of a class perhaps, that is neither Markdown nor HTML nor the end of its row."""
    return re.sub(r"([\\|<>\[\]`])", r"\\\1", " ".join(plain(text).split()))
