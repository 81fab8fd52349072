"""Fixed recipes that a search is to beat: nothing in them is tuned."""

import math

from trainable.config.trial import TrialConfig

BIT_BATCH = 512  # what BiT-HyperRule's numbers are for


def from_scratch(config: TrialConfig) -> TrialConfig:
    """All layers from random weights for as long, with the default update rule, schedule, loss and views."""
    return _changed(config, finetune={"strategy": "scratch"}, freeze={"depth": 0.0})


def source_only(config: TrialConfig) -> TrialConfig:
    """A trial's own training without a look at the target's images, which are still measured."""
    return TrialConfig.model_validate(config.model_dump() | {"adapt": {}})


def bit_hyperrule(config: TrialConfig, *, num_images: int) -> TrialConfig:
    """BiT-HyperRule (Kolesnikov et al. 2020) for ``num_images`` training images, on the trial's data and backbone.

    All layers, SGD 0.9 at 0.003, no weight decay; warmed up, then lowered tenfold at three steps; 500 steps of 512 images
    below 20,000 images, 10,000 below 500,000, else 20,000; MixUp 0.1 from 20,000 on; crop and flip. For another batch size
    rate and steps are scaled linearly. The image size is the trial's own, where the rule has 128 or 480 pixels.
    """
    if num_images < 20_000:
        steps, warmup, milestones = 500, 100, [0.25, 0.5, 0.75]
    elif num_images < 500_000:
        steps, warmup, milestones = 10_000, 500, [2500 / 9500, 5500 / 9500, 8500 / 9500]
    else:
        steps, warmup, milestones = 20_000, 500, [5500 / 19500, 11500 / 19500, 17500 / 19500]
    batch = config.train.batch_size * config.train.accumulate
    epochs = min(1000, max(1, math.ceil(steps * BIT_BATCH / num_images)))
    return _changed(
        config,
        finetune={"strategy": "full"},
        freeze={"depth": 0.0},
        optimizer={
            "name": "sgd",
            "lr": 0.003 * batch / BIT_BATCH,
            "weight_decay": 0.0,
            "momentum": 0.9,
            "nesterov": False,
        },
        lr_schedule={
            "name": "step",
            "warmup_epochs": epochs * warmup / steps,
            "warmup_start": 0.0,
            "milestones": milestones,
        },
        augment={"strength": "light", "mixup": 0.1 if num_images >= 20_000 else 0.0},
        train={"epochs": epochs},
    )


def _changed(config: TrialConfig, **sections: dict[str, object]) -> TrialConfig:
    """The configuration with these sections anew; of data, model and train all else stays.

    What is counted in epochs goes with another number of them: small images first, the running average, patience.
    """
    kept = {name: getattr(config, name).model_dump() for name in ("data", "model", "train")}
    if "train" in sections:
        kept["data"] |= {"early_size": None, "early_epochs": 0}
        kept["train"] |= {"patience": None, "ema": 0.0, "ema_start": 0}
    merged = {name: kept.get(name, {}) | values for name, values in sections.items()}
    return TrialConfig.model_validate({"seed": config.seed} | kept | merged)
