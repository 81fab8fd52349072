"""A promotion on the terminal."""

import shlex

from rich.console import Console
from rich.table import Table

from search.ledger.notes import PairedScore
from search.promotion.promote import Promotion
from search.report.verdict import beside_text
from search.space.sections import TrackingSection
from trainable.masking import masked_address

OUTCOMES = {
    "promoted": "version {version} is champion now",
    "refused": "version {version} is not promoted",
    "unchanged": "version {version} is champion already",
    "dry run": "nothing was changed",
}


def print_promotion(promotion: Promotion, *, console: Console) -> None:
    """Print the refits, the gate's checks, what came of it."""
    candidate, evidence = promotion.candidate, promotion.evidence
    metric = candidate.search.metric
    table = Table("refitted", f"mean {metric}", "by seed", box=None, pad_edge=False)
    for row in promotion.recipe_rows():
        mean = "out" if row["mean"] is None else f"{row['mean']:.4f}"
        table.add_row(
            row["recipe"], mean, row["why_not"] or ", ".join(f"{value:.4f}" for value in row["values"].values())
        )
    console.print(table)
    lines = [f"candidate: {candidate.recipe}, seed {candidate.seed}; package {candidate.package}"]
    if evidence is not None:
        lines += [
            f"test {name} {score.value:.4f} ({score.low:.4f} to {score.high:.4f})"
            for name, score in evidence.test.metrics.items()
        ]
        size, reads = (
            f"{evidence.size_mb:.1f} MB, {evidence.latency_ms:.1f} ms an image",
            candidate.num_test_reads,
        )
        lines.append(f"{size}; this search and its promotions read the test split {reads} times")
        if candidate.num_known:
            lines.append(f"not asked about: {candidate.num_known} test images that are in train or val as well")
    beside = beside_champion(promotion)
    lines += [] if beside is None else [f"verdict: {beside}"]
    lines += [f"{'yes' if check.passed else 'NO '}  {check.name}: {check.reason}" for check in promotion.verdict.checks]
    lines.append(f"{promotion.name}: {outcome_text(promotion)}")
    if promotion.outcome == "promoted":
        asked = f"python -m search predict models:/{promotion.name}@champion path/to/images{_uri(promotion)}"
        lines.append(f"  next: `{asked}` asks it")
    if promotion.outcome == "promoted" and promotion.champion is not None:
        lines.append(
            f"  version {promotion.champion} was; `python -m search rollback {promotion.name}{_uri(promotion)}` goes back to it"
        )
    for line in lines:
        console.print(line, highlight=False, markup=False)


def outcome_text(promotion: Promotion) -> str:
    """What came of it: ``version 3 is champion now``."""
    return OUTCOMES[promotion.outcome].format(version=promotion.version) + (", forced" if promotion.forced else "")


def _uri(promotion: Promotion) -> str:
    """The address that a command needs to find the model where it is not the one that is taken without."""
    uri = promotion.candidate.search.spec.tracking.uri
    return "" if uri == TrackingSection().uri else f" --uri {shlex.quote(masked_address(uri))}"


def beside_champion(promotion: Promotion) -> str | None:
    """The candidate beside the champion in a sentence, where both were asked about the same images."""
    paired = None if promotion.evidence is None else promotion.evidence.paired
    if paired is None:
        return None
    rule = promotion.candidate.search.spec.promote
    score = PairedScore(**paired.figures)
    confidence = 2 * rule.confidence - 1  # each bound is one-sided at the rule's
    metric, num_images = f"test/{rule.metric}", paired.num_images
    return beside_text("the champion", score, metric=metric, num_images=num_images, confidence=confidence)
