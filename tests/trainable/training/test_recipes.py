import pytest

from trainable.config.trial import TrialConfig
from trainable.training.lr_schedule import rate_factor
from trainable.training.recipes import bit_hyperrule, from_scratch

TRIAL = TrialConfig.model_validate(
    {
        "data": {"path": "images", "class_sampling": "balanced"},
        "model": {"name": "resnet18", "head": "mlp"},
        "freeze": {"depth": 0.5},
        "optimizer": {"name": "lion"},
        "train": {"epochs": 10, "batch_size": 64, "ema": 0.5, "ema_start": 3, "patience": 2},
        "loss": {"name": "focal"},
    }
)


@pytest.mark.parametrize(
    ("num_images", "steps", "warmup", "falls", "mixup"),
    [
        (2_000, 500, 100, (200, 300, 400), 0.0),
        (100_000, 10_000, 500, (3_000, 6_000, 9_000), 0.1),
        (1_000_000, 20_000, 500, (6_000, 12_000, 18_000), 0.1),
    ],
)
def test_bit_hyperrule_has_the_published_steps_scaled_to_the_batch(num_images, steps, warmup, falls, mixup):
    config = bit_hyperrule(TRIAL, num_images=num_images)
    seen = config.train.epochs * num_images
    assert steps * 512 <= seen < steps * 512 + num_images
    assert config.lr_schedule.warmup_epochs / config.train.epochs == pytest.approx(warmup / steps)

    def factor(step):
        return rate_factor(step, num_steps=steps, warmup_steps=warmup, config=config.lr_schedule)

    for order, step in enumerate(falls):
        assert factor(step - 1) == pytest.approx(0.1**order)
        assert factor(step + 1) == pytest.approx(0.1 ** (order + 1))
    assert (config.optimizer.name, config.optimizer.momentum, config.optimizer.weight_decay) == ("sgd", 0.9, 0.0)
    assert config.optimizer.lr == pytest.approx(0.003 * 64 / 512)
    assert config.augment.mixup == mixup
    assert (config.freeze.depth, config.finetune.strategy, config.loss.name) == (0.0, "full", "ce")
    assert (config.train.ema, config.train.patience) == (0.0, None)
    assert config.model == TRIAL.model
    assert config.data == TRIAL.data


@pytest.mark.parametrize("num_images", [10, 2_000, 19_990, 20_000, 400_000, 1_000_000])
@pytest.mark.parametrize("batch_size", [2, 64, 4096])
def test_bit_hyperrule_fits_however_its_epochs_compare_with_what_the_trial_counts_in_epochs(num_images, batch_size):
    longest = {"epochs": 1000, "ema": 0.5, "ema_start": 999, "patience": 999, "batch_size": batch_size}
    document = TRIAL.model_dump() | {"train": longest, "lr_schedule": {"warmup_epochs": 999}}
    document["data"] |= {"early_size": 64, "early_epochs": 999}
    config = bit_hyperrule(TrialConfig.model_validate(document), num_images=num_images)
    assert config.train.epochs < 1000 or num_images == 10
    assert (config.data.early_size, config.data.early_epochs) == (None, 0)


def test_from_scratch_keeps_data_backbone_and_length_and_has_the_defaults_elsewhere():
    config = from_scratch(TRIAL)
    assert (config.optimizer, config.loss, config.augment) == tuple(
        getattr(TrialConfig(), name) for name in ("optimizer", "loss", "augment")
    )
    assert (config.finetune.strategy, config.freeze.depth) == ("scratch", 0.0)
    assert (config.data, config.model, config.train) == (TRIAL.data, TRIAL.model, TRIAL.train)
