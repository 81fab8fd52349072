import pytest
import torch

from trainable.config.trial import ModelConfig
from trainable.data.input_spec import InputSpec
from trainable.model.backbone import create_backbone
from trainable.pretraining.resumable import write_backbone


@pytest.mark.parametrize(
    "name",
    ["vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "tf_efficientnet_lite0", "efficientnet_b0"],
)
def test_every_family_is_written_so_that_its_weights_load(name, tmp_path):
    """At 64 pixels a ViT's position embeddings are not those that the architecture is built with."""
    spec = InputSpec(size=64, mean=(0.5,) * 3, std=(0.5,) * 3, interpolation="bilinear", crop_share=1.0)
    backbone, _ = create_backbone(ModelConfig(name=name, weights="random"), spec=spec, generator_seed=1)
    path = write_backbone(tmp_path, backbone, spec=spec, of={})
    again, _ = create_backbone(ModelConfig(name=name, weights=str(path)), spec=spec, generator_seed=2)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, found = backbone.eval()(images), again.eval()(images)
    resampled = name.startswith("vit")  # bicubic up to 224 pixels and down again
    assert torch.allclose(found, expected, atol=0.05 if resampled else 0.0)
