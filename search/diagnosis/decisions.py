"""What an automatic search decides, each choice with its reason: pure functions of the images, the machine and the weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
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
# Billions of multiply-adds a second of frozen layers, at least: small convolutions have a CPU core do 3 to 10 of the 10 to 18
# that it does elsewhere (spaces/foundation.yaml).
GMACS_A_SECOND: dict[Device, float] = {"cpu": 5.0, "gpu": 2000.0}
FEWEST, MOST = 100, 5000  # images of a split that are looked at: fewer cannot tell stages apart, more change little
FEWEST_OF_A_CLASS = 5
SHORT_MINUTES = 60.0
SHORT_EPOCHS, LONG_EPOCHS = 12, 27  # at most, of a trial in a search below and from those minutes on
# Passes of all images through the backbone that fit into the time: below these heads are all but everything, then little more.
FEW_PASSES, SOME_PASSES = 10.0, 60.0
EPOCHS_OF_FEW, EPOCHS_OF_SOME = 3, 9
DEEP = 0.75  # share of the units behind which the last layers train


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
    fitting = int(LOOK_SHARE * 60 * minutes * _gmacs_a_second(device, cpus=cpus) / max(gmacs, 1e-3) / 2)
    limit = min(MOST, max(FEWEST, FEWEST_OF_A_CLASS * num_classes, fitting))
    takes_all = num_images <= limit
    decision = Decision(
        what="look",
        value="all images" if takes_all else f"at most {limit:,} training and as many validation images",
        reason=f"at {gmacs:.2g} billion multiply-adds an image an estimated quarter of the time, or less",
        override="--minutes",
    )
    return None if takes_all else limit, decision


def passes_within(minutes: float, *, num_images: int, gmacs: float, device: Device, cpus: int) -> float:
    """How often ``num_images`` of ``gmacs`` billion multiply-adds each pass the backbone in a time."""
    return 60 * minutes * _gmacs_a_second(device, cpus=cpus) / max(num_images * gmacs, 1e-3)


def _gmacs_a_second(device: Device, *, cpus: int) -> float:
    return GMACS_A_SECOND[device] * (cpus if device == "cpu" else 1)


def in_time(advised: Advice, *, passes: float, shows_stages: bool) -> tuple[Advice, Decision | None]:
    """What is searched where few passes of the images fit into the time, whatever the task; else what was advised.

    Heads that are solved for on one view of the images, which one pass serves, and the last layers behind what that pass
    leaves: a trial by steps of a head that sees another view in each epoch would take a pass for every view. Where the backbone
    ``shows_stages`` the head sees the last of them beside the pooled features.
    """
    if passes >= SOME_PASSES:
        return advised, None
    head, trained = ({"when": {"finetune.strategy": strategy}} for strategy in ("linear_probe", "partial"))
    fixed: dict[str, Any] = {"augment.strength": "none", "loss.logit_adjustment": 1.0}
    fixed |= {"model.pool": "stages"} if shows_stages else {}
    partial = {"finetune.strategy": "partial", "optimizer.lr": 2e-3, "optimizer.backbone_multiplier": 0.5}
    depth = {"freeze.depth": DEEP}
    is_searched = passes >= FEW_PASSES
    fixed |= {} if is_searched else depth
    hastened = replace(
        advised,
        strategies=("linear_probe", "partial"),
        because=(),
        fixed=fixed,
        ranges={
            "finetune.strategy": {"choice": ["linear_probe", "partial"]},
            "finetune.solver": {"choice": ["lbfgs", "closed_form"], **head},
            "finetune.probe_c": {"log": [1e-3, 1.0], **head},
            **({"freeze.depth": {"choice": [0.5, DEEP], **trained}} if is_searched else {}),
            "optimizer.lr": {"log": [5e-4, 5e-3], **trained},
            "optimizer.backbone_multiplier": {"log": [0.2, 1.0], **trained},
        },
        recipes=(
            {"finetune.strategy": "linear_probe", "finetune.solver": "lbfgs", "finetune.probe_c": 0.01},
            partial | (depth if is_searched else {}),
        ),
        baselines=("linear_probe",),
    )
    decision = Decision(
        what="pace",
        value="heads that are solved for on one view of the images, and the last layers behind what that "
        "leaves, with logits adjusted by the classes' shares",
        reason=f"all images pass the backbone some {passes:.0f} times in the time, for more than heads and last layers "
        f"{SOME_PASSES:.0f} are wanted",
        override="--minutes",
    )
    return hastened, decision


def choose_bounds(minutes: float, *, passes: float) -> tuple[dict[str, Any], Decision]:
    """The time of everything, this look included, and the scheduler's section."""
    epochs = SHORT_EPOCHS if minutes < SHORT_MINUTES else LONG_EPOCHS
    if passes < SOME_PASSES:
        epochs = EPOCHS_OF_FEW if passes < FEW_PASSES else EPOCHS_OF_SOME
    scheduler = {"name": "freeze_thaw", "min_epochs": 1, "max_epochs": epochs, "reduction": 3, "finalists": 2}
    decision = Decision(
        what="time",
        value=f"{minutes:g} minutes in all, trials of at most {epochs} epochs",
        reason="this look and the report counted",
        override="--minutes, --set scheduler.max_epochs=EPOCHS",
    )
    return scheduler, decision


def choose_promotion(*, passes: float) -> tuple[dict[str, Any], Decision | None]:
    """The section of promotion: fewer refits where few passes of the images fit into the time, of which each takes some."""
    if passes >= SOME_PASSES:
        return {}, None
    decision = Decision(
        what="promotion",
        value="the best two are trained again on two seeds each",
        reason="the best three on three seeds each may take longer than the search",
        override="--set promote.confirm.top=3 --set promote.confirm.seeds=3",
    )
    return {"promote": {"confirm": {"top": 2, "seeds": 2}}}, decision


def describe_training(advice: Advice) -> list[Decision]:
    """What is searched of what trains, how deep to freeze, and by which views."""
    depths = advice.ranges.get("freeze.depth", {}).get("choice", advice.fixed.get("freeze.depth"))
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
            value="none, images are seen as they are"
            if advice.fixed.get("augment.strength") == "none"
            else "varied views are mirrored left to right alone",
            reason="only you can say that there is no up or down",
            override="--set augment.strength=symmetries --set augment.flip=both --set augment.rotate=quarter",
        ),
    ]
