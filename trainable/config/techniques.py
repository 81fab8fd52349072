"""What each technique asks of a configuration: the keys it reads, the settings it needs.

This table is what may be known of a technique without torch. What a technique does stands in a table of the same names beside
its code; ``trainable.config.trial`` takes the values of a key from here.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

from trainable.config.technique import Method, Need, Technique

STAGES = ("stem", "stage1", "stage2", "stage3", "stage4")  # of any backbone, in the order of the input


def are_neighbours(stages: list[str]) -> bool:
    """Whether these stages follow each other, in any order."""
    positions = sorted(STAGES.index(stage) for stage in stages)
    return positions == list(range(positions[0], positions[0] + len(positions)))


_FROM_WEIGHTS = ("model.weights", "finetune.l2_sp")
_RATES_OF_BACKBONE = ("optimizer.layer_decay", "optimizer.backbone_multiplier")
_PRETRAINED = (*_FROM_WEIGHTS, *_RATES_OF_BACKBONE)


def _light_adapters(*keys: str) -> Technique:
    """A strategy that trains light adapters, with the keys of its own."""
    return Technique(
        keys=(*_PRETRAINED, "freeze.depth", "finetune.beside", *keys),
        needs=(
            Need(
                "freeze.depth",
                lambda depth: depth not in (1, "stage4", []),
                lambda _: (
                    f"finetune.strategy: {_quoted(LIGHT_ADAPTERS)} have no layer to adapt, freeze.depth keeps the whole "
                    "backbone as it is"
                ),
            ),
        ),
    )


def _quoted(names: tuple[str, ...]) -> str:
    *before, last = map(repr, names)
    return f"{', '.join(before)} and {last}"


_LOW_RANK = _light_adapters("finetune.rank", "finetune.alpha", "finetune.adapter_dropout", "finetune.targets")
STRATEGIES = {
    "partial": Technique(keys=(*_PRETRAINED, "freeze.depth")),
    "full": Technique(keys=_PRETRAINED),
    "scratch": Technique(keys=_RATES_OF_BACKBONE),
    "linear_probe": Technique(keys=(*_FROM_WEIGHTS, "finetune.probe_c")),  # which its solvers read
    "norm_only": Technique(keys=_PRETRAINED),
    "bias_only": Technique(keys=_PRETRAINED),
    "surgical": Technique(
        keys=(*_PRETRAINED, "finetune.trainable"),
        needs=(
            Need(
                "finetune.trainable",
                are_neighbours,
                lambda got: f"finetune.trainable: {', '.join(got)} are no neighbours; stages are {', '.join(STAGES)}",
            ),
        ),
    ),
    "gradual": Technique(
        keys=(*_PRETRAINED, "freeze.depth", "finetune.order", "finetune.every", "finetune.schedule"),
        needs=(
            Need(
                "freeze.depth",
                lambda depth: depth not in (1, "stage4", []),
                lambda _: (
                    "finetune.strategy: 'gradual' has nothing to thaw, freeze.depth keeps the whole backbone frozen"
                ),
            ),
            Need(
                "finetune.schedule",
                lambda schedule: schedule != {},
                lambda _: "finetune.schedule: names no stage, so 'gradual' has nothing to thaw",
            ),
        ),
    ),
    "lp_ft": Technique(
        keys=(*_PRETRAINED, "freeze.depth", "finetune.probe_c"),
        needs=(
            Need(
                "model.head",
                lambda head: head in ("linear", "cosine"),
                lambda got: f"finetune.strategy: 'lp_ft' needs model.head: linear or cosine, got {got!r}",
            ),
        ),
    ),
    "two_stage": Technique(keys=(*_PRETRAINED, "freeze.depth", "finetune.classifier_share")),
    "lora": _LOW_RANK,
    "dora": _LOW_RANK,
    "adapter": _light_adapters("finetune.bottleneck", "finetune.adapter_dropout"),
    "prompt": _light_adapters("finetune.prompts"),
}
LIGHT_ADAPTERS = ("lora", "dora", "adapter", "prompt")


def _solved(head: str) -> tuple[Need, ...]:
    return (
        Need(
            "finetune.strategy",
            lambda strategy: strategy == "linear_probe",
            lambda got: (
                f"finetune.solver: solves for the head alone and needs finetune.strategy: linear_probe, got {got!r}"
            ),
        ),
        Need(
            "model.head",
            lambda got: got == head,
            lambda got: f"finetune.solver: solves for a {head} head and needs model.head: {head}, got {got!r}",
        ),
    )


_READ_BY_UPDATES = (
    "finetune.probe_c",  # of the start that lp_ft solves for
    "data.class_sampling",
    "freeze.bn",
    "optimizer.name",
    "optimizer.lr",
    "optimizer.backbone_multiplier",
    "optimizer.layer_decay",
    "optimizer.weight_decay",
    "optimizer.momentum",
    "optimizer.nesterov",
    "optimizer.clip_norm",
    "lr_schedule.name",
    "lr_schedule.warmup_epochs",
    "lr_schedule.warmup_start",
    "lr_schedule.final",
    "lr_schedule.rise_share",
    "lr_schedule.decay_share",
    "lr_schedule.milestones",
    "lr_schedule.factor",
    "lr_schedule.patience",
    "train.accumulate",
    "train.patience",
    "train.min_delta",
    "train.ema",
    "train.ema_start",
    "augment.strength",
    "augment.views",
    "augment.flip",
    "augment.rotate",
    "augment.auto",
    "augment.auto_ops",
    "augment.auto_magnitude",
    "augment.erase",
    "augment.custom",
    "augment.mixup",
    "augment.cutmix",
    "augment.mix_probability",
    "augment.mix_until",
    "loss.name",
    "loss.focal_gamma",
    "loss.focal_alpha",
    "loss.logit_tau",
    "loss.label_smoothing",
    "loss.class_weights",
    "loss.class_weight_power",
    "distill.teachers",
    "distill.weight",
    "distill.temperature",
    "distill.unlabelled",
    "distill.unlabelled_share",
)
SOLVERS = {
    "gradient": Technique(keys=_READ_BY_UPDATES),
    "lbfgs": Technique(keys=("finetune.probe_c",), needs=_solved("linear")),
    "closed_form": Technique(keys=("finetune.probe_c",), needs=_solved("linear")),
    "prototypes": Technique(needs=_solved("cosine")),
    "text": Technique(needs=_solved("text")),
}


def _counting_classes_once(loss: str) -> tuple[Need, ...]:
    """What a loss that goes by the sizes of classes asks for: that nothing else makes up for them, or they count twice."""
    twice = f"counts the sizes of classes a second time, beside loss.name: {loss}; use one"
    return (
        Need("loss.class_weights", lambda got: got == "none", lambda got: f"loss.class_weights: {got!r} {twice}"),
        Need("data.class_sampling", lambda got: got == "shuffle", lambda got: f"data.class_sampling: {got!r} {twice}"),
        Need("loss.logit_adjustment", lambda got: got == 0, lambda got: f"loss.logit_adjustment: {got:g} {twice}"),
    )


def _of_images_and_text(path: str, *, is_met: Callable[[Any], bool], wanted: str) -> Need:
    return Need(path, is_met, lambda got: f"{path}: model.head: text needs {wanted}, got {got!r}")


HEADS = {
    "linear": Technique(),
    "mlp": Technique(keys=("model.head_hidden",)),
    "cosine": Technique(),
    "text": Technique(
        keys=("finetune.text_weights", "finetune.templates", "finetune.class_names"),
        needs=(
            _of_images_and_text("model.pool", is_met=lambda got: got == "own", wanted="the backbone's own features"),
            _of_images_and_text("model.until", is_met=lambda got: got is None, wanted="the whole backbone, null"),
            _of_images_and_text(
                "finetune.strategy",
                is_met=lambda got: got not in ("scratch", "two_stage"),
                wanted="a strategy that keeps the backbone's weights and the head it begins with",
            ),
        ),
    ),
}


def _of_the_last_layers(pool: str) -> Need:
    return Need(
        "model.until",
        lambda until: until is None,
        lambda got: f"model.pool: {pool!r} is of the last layer's tokens and needs model.until: null, got {got!r}",
    )


POOLS = {
    "own": Technique(),
    "stages": Technique(),
    "gem": Technique(),
    "attentive": Technique(),
    "token_mean": Technique(needs=(_of_the_last_layers("token_mean"),)),
    "blocks": Technique(keys=("model.pool_blocks",), needs=(_of_the_last_layers("blocks"),)),
}

LOSSES = {
    "ce": Technique(),
    "focal": Technique(keys=("loss.focal_gamma", "loss.focal_alpha")),
    "balanced_softmax": Technique(needs=_counting_classes_once("balanced_softmax")),
    "logit_adjusted": Technique(keys=("loss.logit_tau",), needs=_counting_classes_once("logit_adjusted")),
}

CLASS_WEIGHTS = {
    "none": Technique(),
    "inverse": Technique(keys=("loss.class_weight_power",)),
    "effective": Technique(keys=("loss.class_weight_power",)),
}

UPDATE_RULES = {
    "adamw": Technique(),
    "adam": Technique(),
    "sgd": Technique(keys=("optimizer.nesterov",)),
    "lamb": Technique(),
    "lion": Technique(),
    "muon": Technique(keys=("optimizer.nesterov",)),
}

SCHEDULES = {
    "cosine": Technique(keys=("lr_schedule.final",)),
    "one_cycle": Technique(keys=("lr_schedule.final", "lr_schedule.rise_share")),
    "wsd": Technique(keys=("lr_schedule.final", "lr_schedule.decay_share")),
    "step": Technique(keys=("lr_schedule.milestones", "lr_schedule.factor")),
    "plateau": Technique(keys=("lr_schedule.final", "lr_schedule.factor", "lr_schedule.patience")),
    "constant": Technique(),
}

COLOUR_CHANNELS = (1, 3)  # the numbers of channels that operations on colours know

_WHOLE_IMAGE = ("augment.flip", "augment.rotate")
STRENGTHS = {
    "none": Technique(),
    "symmetries": Technique(keys=_WHOLE_IMAGE),
    "light": Technique(keys=_WHOLE_IMAGE),
    "medium": Technique(keys=_WHOLE_IMAGE),
    "strong": Technique(keys=_WHOLE_IMAGE),
}

POLICIES = {
    "none": Technique(),
    "randaugment": Technique(keys=("augment.auto_ops", "augment.auto_magnitude")),
    "trivial": Technique(),
    "augmix": Technique(),
}

SAMPLERS = {"shuffle": Technique(), "balanced": Technique(), "sqrt": Technique(), "effective": Technique()}

_TERM = ("adapt.weight", "adapt.schedule")
_CLASSIFIER = ("adapt.hidden", "adapt.dropout")


def _not_bounded(method: str) -> Need:
    return Need(
        "adapt.schedule",
        lambda schedule: schedule != "bounded",
        lambda _: (
            f"adapt.schedule: 'bounded' compares a term that is minimised with the loss, adapt.method: {method} reverses its "
            "gradient; fixed, ganin or dynamic"
        ),
    )


METHODS = {
    "none": Method(trains_on_target=False),
    "dann": Method(
        keys=(*_TERM, "adapt.layer", *_CLASSIFIER),
        needs=(_not_bounded("dann"),),
        aligns=True,
        domain_classifier="features",
    ),
    "cdan": Method(
        keys=(*_TERM, "adapt.layer", *_CLASSIFIER),
        needs=(_not_bounded("cdan"),),
        aligns=True,
        domain_classifier="features and predictions",
    ),
    "mmd": Method(keys=(*_TERM, "adapt.layer", "adapt.bandwidths"), aligns=True),
    "coral": Method(keys=(*_TERM, "adapt.layer"), aligns=True),
    "mcc": Method(keys=(*_TERM, "adapt.temperature")),
    "adabn": Method(target_norms="when measured", trains_on_target=False),
    "dsbn": Method(target_norms="in training"),
    "adversarial": Method(
        keys=(*_TERM, *_CLASSIFIER, "adapt.eps", "adapt.steps"), domain_classifier="features", changes_images=True
    ),
    "fda": Method(
        keys=(*_TERM, "adapt.beta"),
        changes_images=True,
        needs=(
            Need(
                "adapt.schedule",
                lambda schedule: schedule not in ("dynamic", "bounded"),
                lambda got: (
                    f"adapt.schedule: '{got}' goes by features or losses, of which adapt.method: fda has none; fixed or ganin"
                ),
            ),
            Need(
                "adapt.weight",
                lambda weight: weight <= 1,
                lambda got: f"adapt.weight: {got} is the share of images that adapt.method: fda changes, at most 1",
            ),
        ),
    ),
}

WEIGHT_SCHEDULES = {
    "fixed": Technique(),
    "ganin": Technique(keys=("adapt.ganin_gamma",)),
    "dynamic": Technique(keys=("adapt.dynamic_scale",)),
    "bounded": Technique(),
}

ALIGNING_METHODS = tuple(name for name, method in METHODS.items() if method.aligns)
DISCRIMINATING_METHODS = tuple(name for name, method in METHODS.items() if method.domain_classifier is not None)
NORM_METHODS = tuple(name for name, method in METHODS.items() if method.target_norms is not None)

CHOICES: dict[str, Mapping[str, Technique] | Mapping[str, Method]] = {
    "model.pool": POOLS,
    "model.head": HEADS,
    "data.class_sampling": SAMPLERS,
    "finetune.strategy": STRATEGIES,
    "finetune.solver": SOLVERS,
    "optimizer.name": UPDATE_RULES,
    "lr_schedule.name": SCHEDULES,
    "augment.strength": STRENGTHS,
    "augment.auto": POLICIES,
    "loss.name": LOSSES,
    "loss.class_weights": CLASS_WEIGHTS,
    "adapt.method": METHODS,
    "adapt.schedule": WEIGHT_SCHEDULES,
}

# The values of these choices as types: adding a row to a table is all that a configuration asks for.
if TYPE_CHECKING:
    ClassSamplingName = str
    ClassWeightsName = str
    HeadName = str
    LossName = str
    MethodName = str
    PolicyName = str
    PoolName = str
    ScheduleName = str
    SolverName = str
    StrategyName = str
    StrengthName = str
    UpdateRuleName = str
    WeightScheduleName = str
else:
    ClassSamplingName = Literal[tuple(SAMPLERS)]
    ClassWeightsName = Literal[tuple(CLASS_WEIGHTS)]
    HeadName = Literal[tuple(HEADS)]
    LossName = Literal[tuple(LOSSES)]
    MethodName = Literal[tuple(METHODS)]
    PolicyName = Literal[tuple(POLICIES)]
    PoolName = Literal[tuple(POOLS)]
    ScheduleName = Literal[tuple(SCHEDULES)]
    SolverName = Literal[tuple(SOLVERS)]
    StrategyName = Literal[tuple(STRATEGIES)]
    StrengthName = Literal[tuple(STRENGTHS)]
    UpdateRuleName = Literal[tuple(UPDATE_RULES)]
    WeightScheduleName = Literal[tuple(WEIGHT_SCHEDULES)]
