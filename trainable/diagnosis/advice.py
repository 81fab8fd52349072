"""The CS231n notes' strategy matrix, size × similarity, as a function of a diagnosis."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trainable.diagnosis.diagnose import EARLIER, Diagnosis

Size = Literal["small", "large"]
Similarity = Literal["similar", "different"]
Ranges = dict[str, dict[str, Any]]

# The notes give no numbers; both must hold for `large`. Of the sets of Kornblith et al. 2019 Food-101 (75,750 training
# images, 750 a class) and CIFAR are large, Cars (8,144 and 42), DTD and Flowers (2,040 and 20) small.
LARGE_IMAGES = 5000  # training images: at 32 a batch some 150 updates an epoch
LARGE_IMAGES_PER_CLASS = 100  # training images of a class on average
# Standard errors by which an earlier stage must lead. Three stages are tried, so that chance alone calls at most 7 tasks in
# 100 different; with one error it would be up to 40.
LEADING_ERRORS = 2.0
MMD_LEVEL = 0.05  # p of the permutation test up to which a reference counts as different
SKEWED = 2.0  # largest class over smallest from which class weights are worth a search
VERY_SKEWED = 10.0  # from which drawing classes more evenly is, too


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to search, by what a diagnosis says.

    ``strategies`` are names of `finetune.strategy`, the likeliest first. ``fixed`` are values and ``ranges`` searched values
    by dotted path, as a space file writes them; ``recipes`` points to try first; ``baselines`` what to compare with;
    ``findings`` say what was found, ``because`` why that means this search, a sentence each.
    """

    size: Size
    similarity: Similarity
    strategies: tuple[str, ...]
    fixed: Mapping[str, Any]
    ranges: Mapping[str, Mapping[str, Any]]
    recipes: tuple[Mapping[str, Any], ...]
    baselines: tuple[str, ...]
    findings: tuple[str, ...]
    because: tuple[str, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """All sentences, in order."""
        return (*self.findings, *self.because)

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        told = {name: value for name, value in vars(self).items() if name not in ("findings", "because")}
        return told | {"ranges": dict(self.ranges), "fixed": dict(self.fixed), "reasons": self.reasons}


def advice(diagnosis: Diagnosis) -> Advice:
    """The quarter of the matrix that a task belongs to, and what to search there."""
    size, why_size = _size(diagnosis)
    similarity, why_similar = _similarity(diagnosis)
    quarter = QUARTERS[size, similarity](diagnosis)
    balancing, why_balance = _balancing(diagnosis)
    return Advice(
        size=size,
        similarity=similarity,
        strategies=quarter.strategies,
        fixed=quarter.fixed,
        ranges=quarter.ranges | balancing,
        recipes=quarter.recipes,
        baselines=quarter.baselines,
        findings=(why_size, *why_similar),
        because=(quarter.because, *why_balance),
    )


def _size(diagnosis: Diagnosis) -> tuple[Size, str]:
    images, each = diagnosis.num_training, diagnosis.images_per_class
    phrase = f"{images:,} training images, {each:,.0f} a class"
    if images >= LARGE_IMAGES and each >= LARGE_IMAGES_PER_CLASS:
        return "large", f"Large: {phrase}."
    return "small", f"Small: {phrase}; large is from {LARGE_IMAGES:,} and {LARGE_IMAGES_PER_CLASS} a class on."


def _similarity(diagnosis: Diagnosis) -> tuple[Similarity, tuple[str, ...]]:
    """Whether the last features serve as well as earlier ones; where the probes cannot tell, whether a reference looks alike."""
    lead, witness = diagnosis.lead, diagnosis.discrepancy
    alike = witness is None or witness.p > MMD_LEVEL
    reasons = [] if witness is None else [_said_of_reference(diagnosis)]
    if lead is None:
        finding = "The backbone shows no earlier stage to compare its last features with."
        return ("similar" if alike else "different"), (finding, *reasons)
    finding = (
        f"the best earlier stage, {lead.stage}, {'leads' if lead.value > 0 else 'trails'} the last features by "
        f"{abs(lead.value):.3f} balanced accuracy, standard error {lead.error:.3f}"
    )
    bar, more = f"{LEADING_ERRORS:g} errors", (*reasons, _by_evidence(diagnosis))
    if abs(lead.value) > LEADING_ERRORS * lead.error:
        verdict: Similarity = "different" if lead.value > 0 else "similar"
        return verdict, (f"{verdict.capitalize()}: {finding}, more than {bar}.", *more)
    if alike:
        return "similar", (f"Taken for similar: {finding}, within {bar}, so that the probes cannot tell.", *more)
    return "different", (
        f"Different, by the reference: {finding}, within {bar}, so that the probes cannot tell.",
        *more,
    )


def _said_of_reference(diagnosis: Diagnosis) -> str:
    witness = diagnosis.discrepancy
    assert witness is not None
    verdict = "looks like" if witness.p > MMD_LEVEL else "does not look like"
    return (
        f"The task {verdict} the reference: MMD² {witness.value:.3f} to {witness.num_images} images, p {witness.p:.3f}."
    )


def _by_evidence(diagnosis: Diagnosis) -> str:
    """What LogME says beside the probes."""
    lead = diagnosis.lead
    assert lead is not None
    *_, last = diagnosis.stages
    earlier, pooled = diagnosis.stages[lead.stage].logme, diagnosis.stages[last].logme
    preferred = lead.stage if earlier > pooled else "the last features"
    return f"LogME prefers {preferred}: {earlier:.3f} for {lead.stage}, {pooled:.3f} for the last features."


@dataclass(frozen=True, kw_only=True)
class Quarter:
    """One cell of the matrix."""

    strategies: tuple[str, ...]
    because: str
    fixed: dict[str, Any]
    ranges: Ranges
    recipes: tuple[dict[str, Any], ...]
    baselines: tuple[str, ...] = ("linear_probe",)


def _small_similar(_: Diagnosis) -> Quarter:
    moved = {"when": {"finetune.strategy": "lp_ft"}}
    return Quarter(
        strategies=("linear_probe", "lp_ft"),
        because="Few images and fitting features: a linear head on them, since training everything would overfit; or from the "
        "solved head on, gently (LP-FT, Kumar et al. 2022).",
        fixed={},
        ranges={
            "finetune.strategy": {"choice": ["linear_probe", "lp_ft"]},
            "freeze.depth": {"choice": [0, 0.5, 0.75], **moved},
            "optimizer.lr": {"log": [1e-4, 1e-2]},
            "optimizer.backbone_multiplier": {"log": [0.01, 0.3], **moved},
            "optimizer.layer_decay": {"uniform": [0.6, 1.0], **moved},
            "optimizer.weight_decay": {"log": [1e-4, 1e-1]},
            "augment.strength": {"choice": ["none", "light", "medium"]},
        },
        recipes=(
            {"finetune.strategy": "linear_probe", "optimizer.lr": 1e-3},
            {
                "finetune.strategy": "lp_ft",
                "freeze.depth": 0.5,
                "optimizer.lr": 1e-3,
                "optimizer.backbone_multiplier": 0.1,
            },
        ),
    )


def _large_similar(_: Diagnosis) -> Quarter:
    return Quarter(
        strategies=("full",),
        because="Many images and fitting features: train everything, early layers at lower rates.",
        fixed={"finetune.strategy": "full"},
        ranges={
            "optimizer.lr": {"log": [1e-4, 1e-2]},
            "optimizer.backbone_multiplier": {"log": [0.03, 1.0]},
            "optimizer.layer_decay": {"uniform": [0.6, 1.0]},
            "optimizer.weight_decay": {"log": [1e-5, 1e-1]},
            "augment.strength": {"choice": ["light", "medium", "strong"]},
            "loss.label_smoothing": {"choice": [0.0, 0.1]},
        },
        recipes=({"optimizer.lr": 1e-3, "optimizer.backbone_multiplier": 0.1, "optimizer.layer_decay": 0.75},),
    )


def _small_different(diagnosis: Diagnosis) -> Quarter:
    stage = diagnosis.lead.stage if diagnosis.lead else None
    depths: list[Any] = [0.25, 0.5] if stage is None else [("stem", *EARLIER)[EARLIER.index(stage)], stage]
    probes = ("linear_probe",) if stage is None else ("stage_probes",)
    kept = "the first layers" if stage is None else f"{stage} and what is below it"
    return Quarter(
        strategies=("partial", "surgical"),
        because=f"Few images and features of something else: keep {kept}, train what follows anew; or train only the early "
        "stages, which helps where the same things look different (surgical, Lee et al. 2023).",
        fixed={},
        ranges={
            "finetune.strategy": {"choice": ["partial", "surgical"]},
            "freeze.depth": {"choice": depths, "when": {"finetune.strategy": "partial"}},
            "finetune.trainable": {
                "choice": [["stem", "stage1"], ["stage1", "stage2"]],
                "when": {"finetune.strategy": "surgical"},
            },
            "optimizer.lr": {"log": [1e-4, 1e-2]},
            "optimizer.backbone_multiplier": {"log": [0.03, 1.0]},
            "optimizer.weight_decay": {"log": [1e-4, 1e-1]},
            "augment.strength": {"choice": ["light", "medium", "strong"]},
        },
        recipes=(
            {"finetune.strategy": "partial", "freeze.depth": depths[-1], "optimizer.lr": 1e-3},
            {"finetune.strategy": "surgical", "finetune.trainable": ["stem", "stage1"], "optimizer.lr": 1e-3},
        ),
        baselines=probes,
    )


def _large_different(diagnosis: Diagnosis) -> Quarter:
    probes = "stage_probes" if diagnosis.lead else "linear_probe"
    return Quarter(
        strategies=("full", "scratch"),
        because="Many images and features of something else: train everything, the backbone at rates near the head's; pretrained "
        "weights are still the better start as a rule, which the same network from random weights, trained for as long "
        "beside the search, confirms or not.",
        fixed={"finetune.strategy": "full"},
        ranges={
            "optimizer.lr": {"log": [1e-4, 1e-2]},
            "optimizer.backbone_multiplier": {"log": [0.1, 1.0]},
            "optimizer.layer_decay": {"uniform": [0.8, 1.0]},
            "optimizer.weight_decay": {"log": [1e-5, 1e-1]},
            "augment.strength": {"choice": ["light", "medium", "strong"]},
            "loss.label_smoothing": {"choice": [0.0, 0.1]},
        },
        recipes=({"optimizer.lr": 1e-3, "optimizer.backbone_multiplier": 0.3, "optimizer.layer_decay": 0.9},),
        baselines=(probes, "scratch"),
    )


QUARTERS: dict[tuple[Size, Similarity], Callable[[Diagnosis], Quarter]] = {
    ("small", "similar"): _small_similar,
    ("large", "similar"): _large_similar,
    ("small", "different"): _small_different,
    ("large", "different"): _large_different,
}


def _balancing(diagnosis: Diagnosis) -> tuple[Ranges, tuple[str, ...]]:
    """What to search against classes of unequal size."""
    ratio, counts = diagnosis.imbalance, diagnosis.counts["train"]
    if ratio < SKEWED:
        return {}, ()
    largest, smallest = max(counts, key=lambda name: counts[name]), min(counts, key=lambda name: counts[name])
    finding = (
        f"Skewed: {counts[largest]:,} training images of {largest!r} to {counts[smallest]:,} of {smallest!r}, "
        f"{ratio:.1f} to 1"
    )
    if ratio < VERY_SKEWED:
        return {"loss.class_weights": {"choice": ["none", "inverse"]}}, (f"{finding}; class weights are searched.",)
    return {
        "data.class_sampling": {"choice": ["shuffle", "sqrt", "balanced"]},
        "loss.class_weights": {"choice": ["none", "inverse", "effective"], "when": {"data.class_sampling": "shuffle"}},
    }, (f"{finding}; class weights and samplers are searched, one at a time.",)
