"""A backbone that timm does not have, but that is registered with timm and offers what its models do."""

import pytest
import torch
from timm.models import build_model_with_cfg, register_model
from torch import nn

from trainable import TrialConfig, fit
from trainable.model.backbone import laid_out

NAME = "patches_of_our_own"


class Patches(nn.Module):
    """A stem and three blocks, with the interface of timm's models."""

    def __init__(self, num_classes=10, in_chans=3, **_):
        super().__init__()
        self.num_features = self.head_hidden_size = 24
        self.stem = nn.Conv2d(in_chans, 12, 4, stride=4)
        blocks = [nn.Sequential(nn.Conv2d(12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU()) for _ in range(3)]
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(12, 24, 1)
        self.reset_classifier(num_classes)

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}

    def get_classifier(self):
        return self.head

    def reset_classifier(self, num_classes, global_pool=None):
        self.head = nn.Linear(24, num_classes) if num_classes else nn.Identity()

    def forward_features(self, images):
        return self.last(self.blocks(self.stem(images)))

    def forward_head(self, features, pre_logits=False):
        pooled = features.mean(dim=(2, 3))
        return pooled if pre_logits else self.head(pooled)

    def forward(self, images):
        return self.forward_head(self.forward_features(images))


def patches_of_our_own(pretrained=False, pretrained_cfg=None, **options):
    cfg = {"input_size": (3, 32, 32), "first_conv": "stem", "classifier": "head", "num_classes": 10}
    return build_model_with_cfg(Patches, NAME, pretrained, pretrained_cfg=cfg, **options)


@pytest.fixture(scope="module", autouse=True)
def registered():
    register_model(patches_of_our_own)


def test_its_layers_are_laid_out_and_frozen_by_depth():
    _, plan = laid_out(NAME)
    assert next(unit.stage for unit in plan.units) == "stem"
    assert plan.frozen(0.0) == frozenset()
    assert plan.frozen(1.0) == frozenset(range(len(plan.units)))


def test_it_trains_half_frozen_and_resumes_to_the_bit(cell_folder, cache, tmp_path):
    torch.set_num_threads(1)
    config = TrialConfig.model_validate(
        {
            "data": {"path": str(cell_folder), "image_size": 32, "cache": cache},
            "model": {"name": NAME, "weights": "random"},
            "freeze": {"depth": 0.5},
            "train": {"epochs": 2, "batch_size": 9, "device": "cpu"},
        }
    )
    first, second = fit(config), None
    epoch = next(first)
    epoch.save(tmp_path / "first")
    second = next(first)
    again = next(fit(config, resume_from=tmp_path / "first"))
    assert again.number == second.number == 2
    assert again.metrics["train/loss"] == second.metrics["train/loss"]
    assert again.evaluation == second.evaluation
