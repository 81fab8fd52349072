"""What an automatic search decides, each choice with its reason: pure functions of the images, the machine and the weights."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from search.space.writing import flow
from trainable.diagnosis.advice import Advice

Device = Literal["cpu", "gpu"]

# Backbones that are taken where their weights are at hand, the first first: on a CPU what is cheap, on a GPU what is good.
CANDIDATES: dict[Device, tuple[str, ...]] = {
    "cpu": ("efficientnet_b0", "mobilenetv3_large_100", "resnet50"),
    "gpu": ("convnext_tiny", "resnet50", "vit_base_patch16_224", "efficientnet_b0", "mobilenetv3_large_100"),
}
LOOK_SHARE = 0.25  # of the minutes: what the look through frozen layers may take by its estimate
# Billions of multiply-adds a second of frozen layers: a CPU core does 10 to 18 (spaces/foundation.yaml), a GPU at least this.
GMACS_A_SECOND: dict[Device, float] = {"cpu": 10.0, "gpu": 2000.0}
FEWEST, MOST = 100, 5000  # images of a split that are looked at: fewer cannot tell stages apart, more change little
FEWEST_OF_A_CLASS = 5
SHORT_MINUTES = 60.0
SHORT_EPOCHS, LONG_EPOCHS = 12, 27  # at most, of a trial in a search below and from those minutes on


@dataclass(frozen=True, kw_only=True)
class Decision:
    """A choice: of ``what``, its ``value``, the ``reason``, and the ``override``, words of a command that choose otherwise."""

    what: str
    value: str
    reason: str
    override: str

    def line(self) -> str:
        """One sentence for people."""
        return f"{self.what}: {self.value} ({self.reason}); {self.override} decides otherwise"


def choose_backbone(
    asked: Mapping[str, Any], *, device: Device, at_hand: Mapping[str, str], package: Mapping[str, str] | None
) -> tuple[dict[str, Any], Decision]:
    """Model and weights by dotted path: what was asked for, else a candidate at hand, else a package's, else a download.

    ``at_hand`` says of each candidate with weights on the disk which and where, ``package`` is the model and weights of the
    installed package, None without one.
    """
    first = CANDIDATES[device][0]
    known = [name for name in CANDIDATES[device] if name in at_hand]
    if "model.name" in asked or "model.weights" in asked:
        installed = (package or {}).get("model.name", first)
        name, weights = asked.get("model.name", installed), asked.get("model.weights", "pretrained")
        reason = "as asked for"
    elif known:
        name, weights = known[0], "pretrained"
        reason = f"the first for a {device.upper()} that is at hand: {at_hand[name]}"
    elif package is not None:
        name, weights = package["model.name"], package["model.weights"]
        reason = "its weights are installed, nothing is downloaded"
    else:
        name, weights = first, "pretrained"
        reason = "no weights are at hand, so these are downloaded"
    decision = Decision(
        what="backbone",
        value=f"{name} with weights {weights}",
        reason=reason,
        override="--model NAME",
    )
    return {"model.name": name, "model.weights": weights}, decision


def describe_size(size: int, *, is_asked: bool, short_side: int | None) -> Decision:
    """The side of the input, pixels, beside the median of the images' shorter sides, which may not be known."""
    reason = "as asked for" if is_asked else "the backbone's own"
    if short_side is not None:
        lost = ", of which details may be lost" if short_side > 2 * size else ""
        reason += f"; the images' shorter sides have a median of {short_side} pixels{lost}"
    return Decision(what="image size", value=f"{size} pixels", reason=reason, override="--set data.image_size=PIXELS")


def choose_sample(
    *, num_images: int, num_classes: int, gmacs: float, device: Device, cpus: int, minutes: float
) -> tuple[int | None, Decision]:
    """How many images of each split are looked at through frozen layers; None for all of them.

    ``num_images`` are those of the training and the validation split, of which a pass of the backbone takes ``gmacs`` billions of
    multiply-adds an image. As many as fit into ``LOOK_SHARE`` of the minutes by that estimate, half of them of each split.
    """
    rate = GMACS_A_SECOND[device] * (cpus if device == "cpu" else 1)
    fitting = int(LOOK_SHARE * 60 * minutes * rate / max(gmacs, 1e-3) / 2)
    limit = min(MOST, max(FEWEST, FEWEST_OF_A_CLASS * num_classes, fitting))
    takes_all = num_images <= limit
    decision = Decision(
        what="look",
        value="all images" if takes_all else f"at most {limit:,} training and as many validation images",
        reason=f"at {gmacs:.2g} billion multiply-adds an image an estimated quarter of the time, or less",
        override="--minutes",
    )
    return None if takes_all else limit, decision


def choose_bounds(minutes: float) -> tuple[dict[str, Any], Decision]:
    """The time of everything, this look included, and the scheduler's section."""
    epochs = SHORT_EPOCHS if minutes < SHORT_MINUTES else LONG_EPOCHS
    scheduler = {"name": "freeze_thaw", "min_epochs": 1, "max_epochs": epochs, "reduction": 3, "finalists": 2}
    decision = Decision(
        what="time",
        value=f"{minutes:g} minutes in all, trials of at most {epochs} epochs",
        reason="this look and the report counted",
        override="--minutes, --set scheduler.max_epochs=EPOCHS",
    )
    return scheduler, decision


def describe_training(advice: Advice) -> list[Decision]:
    """What is searched of what trains, how deep to freeze, and by which views."""
    depths = advice.ranges.get("freeze.depth", {}).get("choice")
    return [
        Decision(
            what="what trains",
            value=" or ".join(advice.strategies),
            reason=f"a {advice.size} task, {advice.similarity} to what the backbone knows",
            override="--set finetune.strategy=full",
        ),
        Decision(
            what="freeze depths",
            value="none, all layers train" if depths is None else flow(depths),
            reason="for the same reason",
            override="--set 'vary.freeze.depth={choice: [0, 0.5]}'",
        ),
        Decision(
            what="symmetries",
            value="varied views are mirrored left to right alone",
            reason="only you can say that there is no up or down",
            override="--set augment.flip=both --set augment.rotate=quarter",
        ),
    ]
